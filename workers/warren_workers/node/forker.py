"""The agent's end of the template process: asks for forks, hears of exits, replaces a template that died."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from warren_broker.loop import Loop
from warren_workers.channel import Splitter, pack_message
from warren_workers.executor import template

log = logging.getLogger("warren.node")

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
                self._on_forked(message[1], tag, fds)
            else:
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
        """End the template (and with it whatever executors are left)."""
        self._closed = True
        self._loop.remove_handler(self._sock.fileno())
        self._sock.close()
        if self._child is not None:
            self._child.wait()
