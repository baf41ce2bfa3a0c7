"""Lanes, in which tasks wait, and the executors that are leased for them.

An executor, as the parts of its node see it: what it holds, what it runs, what it may be told.

    STARTING --forked--> IDLE --lease--> LEASED --lease ends--> IDLE --retire--> (gone)
                                  |  ^
                          BLOCKED |  | UNBLOCKED        any state --channel ends--> DEAD
                                  v  |
                                BLOCKED

A LEASED executor that becomes an actor host is ACTOR until it is DEAD. A LEASED executor holds a grant of its lane's
resource class; a BLOCKED one has given its CPUs back. All of this belongs to the loop's thread.

The process behind it, its channel and signals: `node.dispatch.executors`.
"""

from __future__ import annotations

import enum
import signal
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

from rabbitry_broker.messages import Task, TaskHeader
from rabbitry_broker.resources import ResourceRequest
from rabbitry_workers.node.model.ledger import Grant, Ledger
from rabbitry_workers.node.model.work import Chunk, Held, Piece

LaneKey = tuple[str, bytes, bytes]
"""Resource class (and the bundle in which it is asked for), job, environment."""


def class_in(resource_class: str, bundle: str) -> str:
    """Return what stands in a lane's key for a resource class in a bundle.

    >>> class_in("CPU=1", "bundle.67.0")
    'CPU=1 bundle.67.0'
    """
    return f"{resource_class} {bundle}"


class State(enum.Enum):
    """Where an executor is in its life; see the module's head."""

    STARTING = "starting"
    IDLE = "idle"
    LEASED = "leased"
    BLOCKED = "blocked"
    ACTOR = "actor"
    DEAD = "dead"


_MOVES: Final = {
    State.STARTING: {State.IDLE, State.DEAD},
    State.IDLE: {State.LEASED, State.DEAD},
    State.LEASED: {State.IDLE, State.BLOCKED, State.ACTOR, State.DEAD},
    State.ACTOR: {State.DEAD},
    State.BLOCKED: {State.LEASED, State.DEAD},
    State.DEAD: set(),
}

LAST_LINES: Final = 60  # of what an executor printed, for the error of a task that it dies with

CONTINUATION_NUMBERS: Final = 64
"""Numbers left free behind each chunk, for what the executor goes on with by itself; more than a streak has."""


class Page(Protocol):
    """The page that an executor shares with its node (`rabbitry_workers.executor.progress`)."""

    started: Any  # [0]: sequence number of what it began last, plus one
    revocations: Any  # [0]: how often it was revoked, [1]: what it had begun then

    def spare_children_of(self, task_id: bytes) -> None:
        """Say of a task that is to be cancelled that what it submitted goes on."""

    def cancel(self, task_id: bytes) -> None:
        """Have a task that has not begun skipped."""

    def tail(self, stream: int) -> bytes:
        """Return what it printed and had not written to its pipe yet: 0 for standard output, 1 for standard error."""

    def close(self) -> None:
        """Let go of the page."""


class LogFile(Protocol):
    """A file that keeps what an executor prints (`node.services.log_files`)."""

    def write(self, task_id: bytes, actor_id: bytes, name: str, data: bytes) -> None:
        """Append lines of a task."""

    def close(self) -> None:
        """Close it."""


class Executor(ABC):
    """What a node knows of one of its executors. Only what has to do with its process is abstract."""

    progress: Page
    outputs: tuple[int, int]  # descriptors of the pipes into which it prints: stdout, stderr

    def __init__(self, pid: int, key: tuple[bytes, bytes]) -> None:
        self.pid = pid
        self.key = key  # job, environment
        self.state = State.IDLE
        self.in_wait = False  # while it is blocked: by `wait`, not by `get`
        self.lane: Lane | None = None
        self.grant: Grant | None = None
        self.chunks: deque[Chunk] = deque()
        self.next_sequence = 0
        self.idle_since = time.monotonic()
        self.leaving = ""
        self.dismissed = ""  # why the node has it end, if it does: events say so
        self.lingering = False  # it takes nothing any more, but others live by it
        self.over_memory = ""  # why it was killed, if it took more memory than it may
        self.cancelled: set[bytes] = set()  # while they ran
        self.dropped: dict[bytes, bool] = {}  # cancelled before they began (by force or not): their errors stand
        self.last_name = ""
        self.last_lines: deque[tuple[bytes, bytes]] = deque(maxlen=LAST_LINES)  # task, and what it printed
        self.log_files: list[LogFile | None] = [None, None]  # of its standard output and error, if it prints
        self.client_id = b""
        self.actor = b""
        self.creation = (b"", "")  # of an actor: the task, and what its output is marked with
        self.is_named = False  # of an actor: it has said what its output is marked with from then on
        self.unnamed: list[Any] = []  # what it printed then and was read before that
        self.seen_sequence = 0  # of the task it was seen running, and since when
        self.seen_at = 0.0
        self.revoked = False  # it begins nothing until it reads TAKEN

    def move(self, state: State) -> None:
        """Change state; an impossible move is a bug and raises."""
        if state not in _MOVES[self.state]:
            raise AssertionError(f"executor {self.pid}: {self.state} -> {state}")
        self.state = state

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

    @abstractmethod
    def send(self, message: list[Any]) -> None:
        """Send a message to the process."""

    @abstractmethod
    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process. What it has started is killed with it."""

    @abstractmethod
    def end(self) -> None:
        """Have the process end: it takes nothing any more, and has a while for what user code does at the end."""

    @abstractmethod
    def on_exit(self) -> None:
        """The process has ended."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the channel: the executor is dead."""


class Account(Protocol):
    """Where a lane's executors get what they hold: a ledger, or those of several bundles."""

    def acquire(self, request: ResourceRequest) -> Grant | None:
        """Take `request`, all of it or nothing."""

    def has_room(self, request: ResourceRequest) -> bool:
        """Return True if `acquire(request)` would succeed now."""

    def times(self, request: ResourceRequest) -> int:
        """Return how many times it fits when nothing else is running."""


class Lane:
    """What waits for one resource class in one kind of executor (job and environment).

    Attributes:
        executors: those that are leased for it.
        starting: executors that were asked for, and are not there yet.
        again: it will be served again soon: Redis was away when it was.
        account: what its executors hold is taken from there.
        bundle: the queue of the bundle that its tasks run in, "" for none.
        on_change: called when the first task begins to wait, when none waits any more, and when some were taken.
    """

    __slots__ = (
        "account",
        "again",
        "bundle",
        "executors",
        "key",
        "on_change",
        "pieces",
        "request",
        "starting",
        "waiting",
        "waiting_since",
    )

    def __init__(
        self,
        key: LaneKey,
        request: ResourceRequest,
        account: Account,
        bundle: str = "",
        on_change: Callable[[Lane], None] = lambda lane: None,
    ) -> None:
        self.key = key
        self.on_change = on_change
        self.request = request
        self.account = account
        self.bundle = bundle
        self.pieces: dict[int, deque[Piece]] = {}
        self.executors: list[Executor] = []
        self.starting = 0
        self.again = False
        self.waiting = 0
        self.waiting_since = 0.0

    def capacity(self, slots: int) -> int:
        """Return how many tasks of the lane may run at a time, about, on a node with so many slots."""
        return max(1, len(self.executors) + self.starting, slots if self.request else 1)

    def put(self, piece: Piece, *, front: bool = False) -> None:
        """Add a piece behind (or before) those of its priority."""
        line = self.pieces.setdefault(piece.header.priority, deque())
        if front:
            line.appendleft(piece)
        else:
            line.append(piece)
        if not self.waiting:
            self.waiting_since = time.monotonic()
        self.wait_for(self.waiting + len(piece.tasks))

    def wait_for(self, count: int) -> None:
        """So many tasks wait from now on."""
        before, self.waiting = self.waiting, count
        if (not before) is not (not count):
            self.on_change(self)

    def first(self) -> Piece | None:
        """Return the piece to serve next; None if nothing waits."""
        while self.pieces:
            priority = max(self.pieces)
            line = self.pieces[priority]
            while line and not line[0].tasks:
                line.popleft()
            if line:
                return line[0]
            del self.pieces[priority]
        return None

    def take(self, piece: Piece, count: int) -> list[Task]:
        """Remove up to `count` tasks from the head of `piece`."""
        tasks = piece.tasks
        if count >= len(tasks):
            taken = list(tasks)
            tasks.clear()
        else:
            taken = [tasks.popleft() for _ in range(count)]
        self.waiting_since = time.monotonic()
        self.waiting -= len(taken)
        self.on_change(self)
        return taken

    def untake(self, piece: Piece, tasks: list[Task], marked: int) -> None:
        """Undo a `take` that has just been done: these tasks could not be handed out."""
        piece.tasks.extendleft(reversed(tasks))
        piece.marked = marked
        self.wait_for(self.waiting + len(tasks))

    def all_pieces(self) -> Iterator[Piece]:
        """Yield what waits, in the order in which it will be served."""
        for priority in sorted(self.pieces, reverse=True):
            for piece in self.pieces[priority]:
                if piece.tasks:
                    yield piece

    def remove(self, piece: Piece) -> None:
        """Remove a piece that waits."""
        self.pieces[piece.header.priority].remove(piece)
        self.wait_for(self.waiting - len(piece.tasks))

    def take_all(self) -> list[Piece]:
        """Remove everything that waits."""
        pieces = [piece for line in self.pieces.values() for piece in line if piece.tasks]
        self.pieces.clear()
        self.wait_for(0)
        return pieces


class Lanes(dict[LaneKey, Lane]):
    """The lanes of a node. Who asks for one makes it; `forget` lets go of those in which nothing is left.

    Args:
        ledger: of the node's resources.

    Attributes:
        ledger: the same.
        account_of: returns the account of a bundle, by its queue.
        ready: those in which something waits, those of which tasks were taken last at the end.
        jobs: how many lanes each job has.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self.ready: dict[Lane, None] = {}
        self._ready_of: dict[str, dict[Lane, None]] = {}  # by resource class (and bundle)
        self.jobs: Counter[bytes] = Counter()
        self.account_of: Callable[[str], Account] = lambda _: ledger

    def of(self, header: TaskHeader) -> Lane:
        """Return the lane of tasks with this header."""
        bundle = header.bundle
        key = (class_in(header.resources, bundle) if bundle else header.resources, header.job, header.env)
        lane = self.get(key)
        if lane is None:
            account = self.account_of(bundle) if bundle else self.ledger
            lane = self[key] = Lane(key, ResourceRequest.parse(header.resources), account, bundle, self._on_change)
            self.jobs[header.job] += 1
        return lane

    def _on_change(self, lane: Lane) -> None:
        ready, resource_class = self.ready, lane.key[0]
        if lane in ready:
            del ready[lane]
            if lane.waiting:
                ready[lane] = None
                return
            line = self._ready_of[resource_class]
            del line[lane]
            if not line:
                del self._ready_of[resource_class]
        elif lane.waiting:
            ready[lane] = None
            self._ready_of.setdefault(resource_class, {})[lane] = None

    def ready_of(self, resource_class: str) -> Iterable[Lane]:
        """Return the lanes of a class in which something waits."""
        return self._ready_of.get(resource_class, ())

    def waits(self, resource_class: str) -> bool:
        """True if tasks of that class wait for room here."""
        return resource_class in self._ready_of

    def waits_of(self, resource_class: str, job: bytes) -> bool:
        """True if tasks of that class and job wait for room here."""
        return any(lane.key[1] == job for lane in self.ready_of(resource_class))

    def waits_inside(self, bundle: str) -> bool:
        """True if tasks from the queue of that bundle wait for room here."""
        return any(lane.bundle == bundle for lane in self.ready)

    def put_back(self, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task], *, marked: int) -> None:
        """Put tasks to the head of their lane; the first `marked` have their start mark, if they have one at all."""
        piece = Piece(held, header_bytes, header, deque(tasks))
        piece.marked = marked if header.max_retries == 0 else 0
        self.of(header).put(piece, front=True)

    def forget(self, lane: Lane) -> None:
        """Let go of a lane if nothing is left in it: a job may ask for a new resource class with each task."""
        if not (lane.waiting or lane.executors or lane.starting or lane.again):
            self._remove(lane)

    def _remove(self, lane: Lane) -> None:
        if self.pop(lane.key, None) is not None:
            job = lane.key[1]
            self.jobs[job] -= 1
            if not self.jobs[job]:
                del self.jobs[job]

    def forget_empty(self) -> None:
        """Let go of all lanes in which nothing is left."""
        for lane in list(self.values()):
            self.forget(lane)

    def forget_of(self, *, job: bytes, env: bytes | None = None) -> None:
        """Let go of those of a job (in one environment, or any) in which nothing is left."""
        for lane in list(self.values()):
            if lane.key[1] == job and env in (None, lane.key[2]):
                self.forget(lane)
