"""The agent's end of the template process: asks for forks, hears of exits, replaces a template that died."""

from __future__ import annotations

import logging
import os
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from warren_broker.loop import Loop
from warren_workers.channel import Splitter, pack_message
from warren_workers.executor import template

log = logging.getLogger("warren.node")

END_SECONDS = 2.0  # for executors to be gone after their template

OnForked = Callable[[int, Any, list[int]], None]
OnExited = Callable[[int, int], None]


def fork_template() -> tuple[int, socket.socket]:
    """Fork the template from this process, which must not have threads or connections yet.

    Returns:
        (pid, our end of its control socket).
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            from warren_broker.parent_death import die_with_parent

            die_with_parent()
            ours.close()
            template.preload()
            template.serve(theirs)
        finally:
            os._exit(1)
    theirs.close()
    return pid, ours


class Forker:
    """Asks the template for executors, one at a time. Loop thread only.

    Args:
        loop: the agent's loop.
        first: (pid, control socket) of the template forked at the agent's start.
        on_forked: called with pid, the request's tag and the four descriptors.
        on_exited: called with pid and wait status.
    """

    def __init__(self, loop: Loop, first: tuple[int, socket.socket], on_forked: OnForked, on_exited: OnExited) -> None:
        self._loop = loop
        self._on_forked = on_forked
        self._on_exited = on_exited
        self._queue: deque[tuple[Any, dict[str, Any]]] = deque()
        self._asked = False
        self._closed = False
        self._child: subprocess.Popen[bytes] | None = None
        self._pids: set[int] = set()
        self._attach(*first)

    def _attach(self, pid: int, sock: socket.socket) -> None:
        self.pid = pid
        self._sock = sock
        self._sock.setblocking(True)
        self._splitter = Splitter()
        self._fds: list[int] = []
        self._loop.add_handler(sock.fileno(), self._on_event, self._loop.READ)

    def fork(self, tag: Any, config: dict[str, Any]) -> None:
        """Ask for an executor with this configuration."""
        self._queue.append((tag, config))
        self._ask()

    def _ask(self) -> None:
        if self._asked or not self._queue:
            return
        _, config = self._queue[0]
        self._asked = True
        try:
            self._sock.sendall(pack_message([template.FORK, 0, config]))
        except OSError:
            return  # the read handler meets the end and starts another template

    def _on_event(self, fd: int, events: int) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, 65536, 16)
        except ConnectionError:
            data, fds = b"", []
        self._fds += fds
        if not data:
            self._replace()
            return
        for message in self._splitter.feed(data):
            if message[0] == template.FORKED:
                tag, _ = self._queue.popleft()
                self._asked = False
                fds, self._fds = self._fds[:4], self._fds[4:]
                self._pids.add(message[1])
                self._on_forked(message[1], tag, fds)
            else:
                self._pids.discard(message[1])
                self._on_exited(message[1], message[2])
        self._ask()

    def _replace(self) -> None:
        """The template died (and on Linux its executors with it): start a fresh interpreter as the new one."""
        self._loop.remove_handler(self._sock.fileno())
        self._sock.close()
        if self._closed:
            return
        log.warning("the template process died; starting another")
        ours, theirs = socket.socketpair()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "warren_workers.executor.template"], stdin=theirs.fileno(), close_fds=True
        )
        theirs.close()
        self._asked = False
        self._attach(self._child.pid, ours)
        self._ask()

    def close(self) -> None:
        """End the template (and with it whatever executors are left), and wait until the executors are gone.

        What they lock and map, such as the shared-memory session, is free then.
        """
        self._closed = True
        self._loop.remove_handler(self._sock.fileno())
        with _Processes(self._pids) as executors:
            self._sock.close()
            if self._child is not None:
                self._child.wait()
            if not executors.wait(END_SECONDS):
                log.warning("executors are still there %g s after they were ended", END_SECONDS)


class _Processes:
    """Processes that are not children of this one, to be waited for. Open it while they are alive."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = set(pids)
        self._files: list[int] = []

    def __enter__(self) -> _Processes:
        if sys.platform == "linux":
            # A descriptor of a process also tells of its end if nobody collects its exit status.
            for pid in list(self._pids):
                try:
                    self._files.append(os.pidfd_open(pid))
                except ProcessLookupError:
                    pass
                except OSError:
                    continue  # an old kernel, or too many open files
                self._pids.discard(pid)
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            os.close(file)

    def wait(self, seconds: float) -> bool:
        """Wait until all are gone; False if some are not after `seconds`."""
        deadline = time.monotonic() + seconds
        left = set(self._files)
        poll = select.poll()
        for file in left:
            poll.register(file, select.POLLIN)
        while left or self._pids:
            if time.monotonic() > deadline:
                return False
            for file, _ in poll.poll(10 if self._pids else 1000 * seconds):
                poll.unregister(file)
                left.discard(file)
            self._pids = {pid for pid in self._pids if _lives(pid)}
        return True


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
