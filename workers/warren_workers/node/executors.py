"""The executors of a node, as their agent sees them: processes, what they hold, what they run.

    STARTING --forked--> IDLE --lease--> LEASED --lease ends--> IDLE --retire--> (gone)
                                  |  ^
                          BLOCKED |  | UNBLOCKED        any state --channel ends--> DEAD
                                  v  |
                                BLOCKED

A LEASED executor that becomes an actor host is ACTOR until it is DEAD. A LEASED executor holds a grant of its lane's
resource class; a BLOCKED one has given its CPUs back. All of this belongs to the loop's thread.
"""

from __future__ import annotations

import enum
import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from warren_broker.loop import Loop
from warren_broker.messages import Task, TaskHeader
from warren_workers.channel import Splitter, pack_message
from warren_workers.executor.progress import Progress

if TYPE_CHECKING:
    from warren_workers.node.intake import Held, Piece
    from warren_workers.node.ledger import Grant

_READ_BYTES = 1 << 18

log = logging.getLogger("warren.node")


class State(enum.Enum):
    """Where an executor is in its life; see the module's head."""

    STARTING = "starting"
    IDLE = "idle"
    LEASED = "leased"
    BLOCKED = "blocked"
    ACTOR = "actor"
    DEAD = "dead"


_MOVES = {
    State.STARTING: {State.IDLE, State.DEAD},
    State.IDLE: {State.LEASED, State.DEAD},
    State.LEASED: {State.IDLE, State.BLOCKED, State.ACTOR, State.DEAD},
    State.ACTOR: {State.DEAD},
    State.BLOCKED: {State.LEASED, State.DEAD},
    State.DEAD: set(),
}


# Numbers left free behind each chunk, for what the executor goes on with by itself; more than a streak has.
CONTINUATION_NUMBERS: Final = 64


class Chunk:
    """Tasks of one piece sent to an executor and not all done yet."""

    __slots__ = ("clears_note", "done", "end", "first", "header", "header_bytes", "held", "piece", "sent_at", "tasks")

    def __init__(self, piece: Piece, first: int, tasks: list[Task]) -> None:
        self.piece = piece
        self.held: Held = piece.held
        self.header: TaskHeader = piece.header
        self.header_bytes = piece.header_bytes
        self.first = first
        self.end = first + len(tasks)
        self.tasks = tasks
        self.done: set[int] = set()  # sequence numbers, for actor calls: they may end in any order
        self.clears_note = False  # a continuation: the commit of its result also removes its note
        self.sent_at = time.monotonic()


class ExecutorProcess:
    """One executor: its process, channel and work."""

    def __init__(self, loop: Loop, pid: int, key: tuple[bytes, bytes], fds: list[int], owner: ExecutorOwner) -> None:
        self.pid = pid
        self.key = key
        self.state = State.IDLE
        self.lane: Any = None
        self.grant: Grant | None = None
        self.chunks: deque[Chunk] = deque()
        self.next_sequence = 0
        self.idle_since = time.monotonic()
        self.retiring = False
        self.leaving = ""
        self.over_memory = ""  # why it was killed, if it took more memory than it may
        self.cancelled: set[bytes] = set()  # while they ran
        self.dropped: dict[bytes, bool] = {}  # cancelled before they began (by force or not): their errors stand
        self.last_name = ""
        self.client_id = b""
        self.actor = b""
        self.seen_sequence = 0  # of the task it was seen running, and since when
        self.seen_at = 0.0
        self.revoked = False  # it begins nothing until it reads TAKEN
        self._loop = loop
        self._owner = owner
        self._sock = socket.socket(fileno=fds[0])
        self._sock.setblocking(False)
        self._splitter = Splitter()
        self._unsent = bytearray()
        self.progress = Progress(fds[3])
        self.outputs = (fds[1], fds[2])
        loop.add_handler(self._sock.fileno(), self._on_event, loop.READ)

    def move(self, state: State) -> None:
        """Change state; an impossible move is a bug and raises."""
        if state not in _MOVES[self.state]:
            raise AssertionError(f"executor {self.pid}: {self.state} -> {state}")
        self.state = state

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

    def running(self) -> tuple[Chunk, int] | None:
        """Return the chunk and index of the task that runs now (as the shared page says)."""
        if self.state is State.DEAD:
            return None  # the page is closed; what the process printed last may still be read
        sequence = self.progress.started[0] - 1
        for chunk in self.chunks:
            if chunk.first <= sequence < chunk.end:
                return chunk, sequence - chunk.first
        return None

    def interrupt(self, task_id: bytes) -> None:
        """Raise KeyboardInterrupt in the task, if it is the one that runs."""
        self.progress.cancel(task_id)
        self.kill(signal.SIGINT)

    def revoke(self) -> None:
        """Have the executor start nothing after the task it runs now; a TAKEN message must follow."""
        revocations = self.progress.revocations
        revocations[1] = self.progress.started[0]
        revocations[0] += 1

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def close(self) -> None:
        """Let go of the channel."""
        self.state = State.DEAD
        self._loop.remove_handler(self._sock.fileno())
        self._sock.close()
        self.progress.close()


class ExecutorOwner:
    """What an executor process reports to."""

    on_executor_message: Callable[[ExecutorProcess, list[Any]], None]
    on_executor_gone: Callable[[ExecutorProcess], None]
