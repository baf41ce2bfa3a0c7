"""The agent's end of the template process: asks for forks, hears of exits, replaces a template that died."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from rabbitry_broker.loop import Loop
from rabbitry_workers.channel import Splitter, pack_message
from rabbitry_workers.executor import children, template

log = logging.getLogger("rabbitry.node")

ORDERLY_SECONDS = 1.0
END_SECONDS = 2.0  # for executors to be gone after their template

OnForked = Callable[[int, Any, list[int]], None]
OnExited = Callable[[int, int], None]
Start = Callable[[], tuple[subprocess.Popen[bytes], socket.socket]]

AGAIN_SECONDS = 1.0  # until the next try to start the node's template

USELESS_STARTS = 2  # of a template that dies before it has forked anything: there will be no other


def fork_template() -> tuple[int, socket.socket]:
    """Fork the template from this process, which must not have threads or connections yet.

    Returns:
        (pid, our end of its control socket).
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()  # from now on the end of the agent is the end of `theirs`: no signal is needed
            template.preload()
            template.serve(theirs)
        finally:
            os._exit(1)
    theirs.close()
    return pid, ours


def start_template() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a fresh interpreter as the node's own template, with our end of its control socket."""
    ours, theirs = socket.socketpair()
    child = subprocess.Popen(
        [sys.executable, "-m", "rabbitry_workers.executor.template"], stdin=theirs.fileno(), close_fds=True
    )
    theirs.close()
    return child, ours


class Forker:
    """Asks the template for executors, one at a time. Loop thread only.

    Args:
        loop: the agent's loop.
        first: (pid, control socket) of the template forked at the agent's start.
        on_forked: called with pid, the request's tag and the four descriptors.
        on_exited: called with pid and wait status.
        child: the first template, if it is a process that was started.
        start: starts another one when a template has died.
        useless: told why, and of the tags that wait, when templates die before they have forked anything; None to go on
            for ever.
        on_up: told that a template of an environment can fork.

    Attributes:
        is_up: True once a template of an environment is what its environment wants.
    """

    def __init__(
        self,
        loop: Loop,
        first: tuple[int, socket.socket],
        on_forked: OnForked,
        on_exited: OnExited,
        *,
        child: subprocess.Popen[bytes] | None = None,
        start: Start | None = None,
        useless: Callable[[str, list[Any]], None] | None = None,
        on_up: Callable[[], None] | None = None,
    ) -> None:
        self._loop = loop
        self._start = start
        self._useless = useless
        self._on_up = on_up
        self._starts = 0
        self.is_up = start is None
        self._on_forked = on_forked
        self._on_exited = on_exited
        self._queue: deque[tuple[Any, bytes]] = deque()
        self._asked = False
        self._closed = False
        self._child = child
        self._pids: set[int] = set()
        self._attach(*first)

    def _attach(self, pid: int, sock: socket.socket) -> None:
        self.pid = pid
        self._sock = sock
        self._sock.setblocking(True)
        # One of an environment may take long to begin, and reads nothing until then: the loop would wait for it.
        self._hears = self._start is None
        self._splitter = Splitter()
        self._fds: list[int] = []
        self._loop.add_handler(sock.fileno(), self._on_event, self._loop.READ)

    def fork(self, tag: Any, config: dict[str, Any]) -> None:
        """Ask for an executor with this configuration.

        Raises:
            Exception: it has something that cannot be sent; nothing is asked for then.
        """
        self._queue.append((tag, pack_message([template.FORK, 0, config])))
        self._ask()

    def _ask(self) -> None:
        if self._asked or not self._queue or not self._hears:
            return
        _, request = self._queue[0]
        self._asked = True
        try:
            self._sock.sendall(request)
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
            if message[0] == template.USELESS:
                self._give_up(message[1])
                return
            if message[0] == template.READY:
                self.is_up = self._hears = True
                if self._on_up is not None:
                    self._on_up()
                continue
            try:
                self._take(message)
            except Exception:
                # What comes behind it has been read too, and those that wait would never be asked for.
                log.exception("acting on what the template says failed: %r", message)
        self._ask()

    def _take(self, message: list[Any]) -> None:
        if message[0] == template.FORKED:
            tag, _ = self._queue.popleft()
            self._starts = 0
            self._asked = False
            fds, self._fds = self._fds[:4], self._fds[4:]
            self._pids.add(message[1])
            self._on_forked(message[1], tag, fds)
        else:
            self._pids.discard(message[1])
            self._on_exited(message[1], message[2])

    def _replace(self) -> None:
        """The template died (and on Linux its executors with it): start a fresh interpreter as the new one."""
        self._loop.remove_handler(self._sock.fileno())
        self._sock.close()
        if self._closed:
            return
        for executor in self._pids:
            children.end_group(executor)
        self._end_later(frozenset(self._pids))
        self._pids.clear()
        self._starts += 1
        if self._useless is not None and self._starts >= USELESS_STARTS:
            self._closed = True
            self._tell_useless("its processes end before they do anything")
            return
        log.warning("the template process died; starting another")
        if self._child is not None:
            self._end_child(self._child)
        self._hears = False
        self._start_another()

    def _start_another(self) -> None:
        if self._closed:
            return
        try:
            self._child, ours = (self._start or start_template)()
        except OSError as error:
            if self._useless is None:
                # Too many processes or open files, now: without a template this node would never run anything again.
                log.warning("no template process can be started now: %s", error)
                self._loop.call_later(AGAIN_SECONDS, self._start_another)
                return
            self._closed = True
            self._tell_useless(f"its processes cannot be started: {error}")
            return
        self._asked = False
        self._attach(self._child.pid, ours)
        self._ask()

    def _end_later(self, executors: frozenset[int]) -> None:
        """Tell of the ends of executors whose template can tell no more.

        Mostly their channels have ended by then. A child of an executor that has a session of its own may hold one open
        for as long as it lives, and with it all that the executor had.
        """
        if executors:
            self._loop.call_later(END_SECONDS, lambda: self._tell_ends(executors - self._pids))

    def _tell_ends(self, executors: frozenset[int]) -> None:
        for executor in executors:
            self._on_exited(executor, signal.SIGKILL)

    def give_up_unless_up(self, why: str) -> None:
        """The template has had the time that it may take to begin."""
        if not self.is_up and not self._closed:
            self._give_up(why)

    def _give_up(self, why: str) -> None:
        """The template is of no use, and no other would be."""
        self._loop.remove_handler(self._sock.fileno())
        self._sock.close()
        self._closed = True
        self._tell_useless(why)

    def _tell_useless(self, why: str) -> None:
        if self._child is not None:
            self._end_child(self._child)
        tags = [tag for tag, _ in self._queue]
        self._queue.clear()
        if self._useless is not None:
            self._useless(why, tags)

    def _end_child(self, child: subprocess.Popen[bytes]) -> None:
        """End a template that was started as a process, with what its command has started besides."""
        if self._start is not None:
            children.end_group(child.pid)
        child.kill()
        child.wait()

    def close(self) -> list[Any]:
        """End the template (and with it whatever executors are left), and wait until the executors are gone.

        Those that were told to end have `ORDERLY_SECONDS` for what user code does then.
        What they lock and map, such as the shared-memory session, is free then.

        Returns:
            The tags that wait still: they get no executor.
        """
        if self._closed:
            return []
        self._closed = True
        self._loop.remove_handler(self._sock.fileno())
        with _Processes(self._pids) as executors:
            executors.wait(ORDERLY_SECONDS)
            self._sock.close()
            if self._child is not None and self._start is None:
                self._child.wait()
            elif self._child is not None:
                self._end_child(self._child)  # it may be busy importing
            if not executors.wait(END_SECONDS):
                log.warning("executors are still there %g s after they were ended", END_SECONDS)
        tags = [tag for tag, _ in self._queue]
        self._queue.clear()
        return tags


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
