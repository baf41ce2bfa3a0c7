"""The process of an executor: its channel, its signals, its end. What it holds and runs: `node.model.lanes`."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable
from typing import Any, Final, Protocol

from rabbitry_broker.loop import Loop
from rabbitry_workers.channel import EXIT, Splitter, pack_message
from rabbitry_workers.executor import children
from rabbitry_workers.executor.progress import Progress
from rabbitry_workers.node.model.lanes import Executor, State

_READ_BYTES: Final = 1 << 18
EXIT_SECONDS: Final = 60.0

log = logging.getLogger("rabbitry.node")


class ExecutorOwner(Protocol):
    """What an executor process reports to."""

    @property
    def on_executor_gone(self) -> Callable[[Executor], None]:
        """Called when the channel of one has ended."""

    def on_executor_message(self, executor: Executor, message: list[Any]) -> None:
        """It said something."""


class ExecutorProcess(Executor):
    """One executor with its process and channel.

    Args:
        loop: the node's.
        pid: of the process.
        key: its job and environment.
        fds: our ends of its channel and output, and the page that both share.
        owner: who hears what it says.
    """

    def __init__(self, loop: Loop, pid: int, key: tuple[bytes, bytes], fds: list[int], owner: ExecutorOwner) -> None:
        super().__init__(pid, key)
        self._loop = loop
        self._owner = owner
        self._sock = socket.socket(fileno=fds[0])
        self._sock.setblocking(False)
        self._splitter = Splitter()
        self._unsent = bytearray()
        self.progress = Progress(fds[3])
        self.outputs = (fds[1], fds[2])
        loop.add_handler(self._sock.fileno(), self._on_event, loop.READ)

    def send(self, message: list[Any]) -> None:
        """Send a message; what does not fit into the socket's buffer follows when it does."""
        if self.state is State.DEAD:
            return
        data = pack_message(message)
        if not self._unsent:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # its end is noticed by the read handler
            if sent == len(data):
                return
            self._loop.update_handler(self._sock.fileno(), self._loop.READ | self._loop.WRITE)
            data = data[sent:]
        self._unsent += data

    def _on_event(self, fd: int, events: int) -> None:
        if events & self._loop.WRITE and self._unsent:
            try:
                sent = self._sock.send(self._unsent)
                del self._unsent[:sent]
            except BlockingIOError:
                pass
            except OSError:
                self._unsent.clear()
            if not self._unsent:
                self._loop.update_handler(fd, self._loop.READ)
        if events & ~self._loop.WRITE:
            try:
                data = self._sock.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                # First of all: an end that is not taken in would be reported again and again.
                self._loop.remove_handler(fd)
                self._owner.on_executor_gone(self)
                return
            for message in self._splitter.feed(data):
                self._tell(message)

    def _tell(self, message: list[Any]) -> None:
        try:
            self._owner.on_executor_message(self, message)
        except Exception:
            # Those behind it have been read, too: without them, what they say is done would never be.
            log.exception("acting on a message of executor %d failed", self.pid)

    def on_exit(self) -> None:
        """The process has ended: act on what it said last, then on its end.

        The channel alone does not tell: a child that the process has forked holds it open.
        """
        while self.state is not State.DEAD:
            try:
                data = self._sock.recv(_READ_BYTES)
            except OSError:  # nothing more is there
                data = b""
            if not data:
                self._loop.remove_handler(self._sock.fileno())
                self._owner.on_executor_gone(self)
                return
            for message in self._splitter.feed(data):
                self._tell(message)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process. What it has started is killed with it."""
        left = children.descendants(self.pid) if number == signal.SIGKILL else []
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return
        children.end(left)

    def end(self) -> None:
        """Have the process end: it takes nothing any more. What user code does at the end has `EXIT_SECONDS`."""
        self.send([EXIT])
        self._loop.call_later(EXIT_SECONDS, self._end_at_last)

    def _end_at_last(self) -> None:
        if self.state is not State.DEAD:
            log.warning("the worker process %d did not end within %g s: it is killed", self.pid, EXIT_SECONDS)
            self.kill()

    def close(self) -> None:
        """Let go of the channel."""
        self.state = State.DEAD
        self._loop.remove_handler(self._sock.fileno())
        self._sock.close()
        self.progress.close()
