"""Events: marks of what became of tasks, workers and jobs, with times; made where it happens, sent in batches.

HOT PATH (`benchmarks/`: `async_*`): one mark stands for many tasks. What is done for each task is to join its id to
those of its batch, and to note two numbers in the executor.

Whoever makes a mark puts it into the `Recorder` of its process. Once a second a thread that is there anyway packs what
gathered and sends it to the store (`store/events.py`). What does not fit is dropped and counted: events never hold
work up.

A batch is MessagePack, compressed: [version, who, headers, marks, dropped], where `who` says which process wrote it,
`headers` are encoded task headers, and each mark begins with one of the words below. Times are seconds since 1970,
ids stand one behind the other, `h` is the number of a header in the batch.

    SUBMITTED  h, time, ids, queue                          sent to a queue
    PARKED     h, time, ids, queue                          waits in the store for results of other tasks
    NEEDS      id, ids                                      the tasks whose results a task takes
    CHILDREN   id, ids                                      the tasks that a task has submitted
    QUEUED     h, time, ids, attempt                        waits on a node
    LEASED     h, time, ids, attempt, worker, pid           an executor has it
    RUNNING    h, time, ids, attempt, worker, pid           it has begun
    IN_GET     h, time, ids, attempt, worker, pid           it waits in `get` for results of others
    IN_WAIT    h, time, ids, attempt, worker, pid           the same in `wait`
    DONE       h, queued, leased, since, ids, times, attempts, worker, pid
                                                            it has ended; `times`: for each (end, duration) from `since`
    FAILED     h, time, ids, attempt, error, text, worker, pid
                                                            and it ended with an error
    WORKER     time, worker, pid, job, actor, reason        a worker process was started (reason ""), or has ended
    JOB        time, job, facts                             what is known of a job
"""

from __future__ import annotations

import time
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from rabbitry_broker.environment import switch
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import TASK_BYTES
from rabbitry_broker.messages import MalformedMessage, Task
from rabbitry_broker.signing import Signer

VERSION: Final = 1

SUBMITTED: Final = 0
PARKED: Final = 1
NEEDS: Final = 2
CHILDREN: Final = 3
QUEUED: Final = 4
LEASED: Final = 5
RUNNING: Final = 6
IN_GET: Final = 7
DONE: Final = 8
FAILED: Final = 9
WORKER: Final = 10
JOB: Final = 11
IN_WAIT: Final = 12

_WITH_HEADER: Final = frozenset((SUBMITTED, PARKED, QUEUED, LEASED, RUNNING, IN_GET, IN_WAIT, DONE, FAILED))

SWITCH: Final = "RABBITRY_TASK_EVENTS"
RING_BYTES: Final = 8 << 20
"""What a process keeps at most until it is sent: about a quarter of a million tasks."""
BATCH_BYTES: Final = 256 << 10
"""Of one entry in the store, before it is compressed; about."""
SEND_SECONDS: Final = 1.0
NEEDS_MAX: Final = 32
"""Of the tasks that a task needs, so many are told."""
TEXT_CHARACTERS: Final = 2000
"""Of an error's text, its end."""

FAILURES_MAX: Final = 1000
"""Of one commit: of more than that nobody reads the texts."""

_MARK_BYTES: Final = 200  # what a mark takes besides its ids, about
_CONTEXT: Final = b"events"
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[int, dict[str, Any], list[bytes], list[list[Any]], int]).decode

Mark = tuple[Any, ...]


class Batch(NamedTuple):
    """What one process sent at once.

    Attributes:
        who: which process: `id`, `pid`, `host`, `node` (b"" if it is on none) and what else it says of itself.
        headers: encoded task headers.
        marks: see the head of the module.
        dropped: tasks of which marks were dropped before it.
    """

    who: dict[str, Any]
    headers: list[bytes]
    marks: list[list[Any]]
    dropped: int


def are_on(environment: Any = None) -> bool:
    """Return False if the environment switches events off.

    Raises:
        ValueError: the variable is neither on nor off.
    """
    return switch(SWITCH, environment)


class Recorder:
    """The marks of this process that were not sent yet. Any thread may call anything.

    Args:
        on: False to record nothing.
        limit: bytes that may wait, about.
        clock: returns the time.

    Attributes:
        on: False if nothing is recorded.
        dropped: tasks of which a mark was dropped since the start.
    """

    def __init__(self, *, on: bool = True, limit: int = RING_BYTES, clock: Callable[[], float] = time.time) -> None:
        self.on = on
        self.dropped = 0
        self._told = 0
        self._limit = limit
        self._clock = clock
        self._marks: deque[tuple[int, Mark]] = deque()
        self._bytes = 0
        self._children: dict[bytes, list[bytes]] = {}

    def __bool__(self) -> bool:
        """True if something is to be sent."""
        return bool(self._marks or self._children)

    def add(self, mark: Mark, tasks: int, extra: int = 0) -> None:
        """Note a mark. HOT PATH.

        Args:
            mark: with the encoded header in the place of its number.
            tasks: of how many tasks.
            extra: bytes in it besides their ids.
        """
        if not self.on:
            return
        size = _MARK_BYTES + TASK_BYTES * tasks + extra
        if self._bytes + size > self._limit:
            self.dropped += tasks
            return
        self._bytes += size  # an update that is lost does no harm
        self._marks.append((size, mark))

    def sent(self, header: bytes, tasks: Sequence[Task], queue: str, *, parked: bool = False) -> None:
        """Tasks with this header were sent to a queue, or parked until they can be. HOT PATH."""
        word = PARKED if parked else SUBMITTED
        self.add((word, header, self._clock(), b"".join([task[0] for task in tasks]), queue), len(tasks))
        for task in tasks:
            if task[3]:
                makers = b"".join([key[:TASK_BYTES] for key in task[3][:NEEDS_MAX]])
                self.add((NEEDS, task[0], makers), 1, len(makers))

    def child(self, parent: bytes, task_id: bytes) -> None:
        """A task that runs here has submitted another one."""
        children = self._children.get(parent)
        if children is None:
            children = self._children[parent] = []
        children.append(task_id)

    def failed(self, header: bytes, task_id: bytes, attempt: int, error: str, text: str) -> None:
        """A task has ended with an error, without an executor."""
        text = text[-TEXT_CHARACTERS:]
        self.add((FAILED, header, self._clock(), task_id, attempt, error, text, b"", 0), 1, len(text))

    def take(self) -> Iterator[tuple[list[Mark], int]]:
        """Yield all that waits, in parts that make one batch each, with the tasks dropped before it."""
        children, self._children = self._children, {}
        for parent, made in children.items():
            self.add((CHILDREN, parent, b"".join(made)), len(made))
        marks = self._marks
        left = len(marks)  # not what comes meanwhile: this must end
        while left:
            part: list[Mark] = []
            size = 0
            while left and size < BATCH_BYTES:
                each, mark = marks.popleft()
                left -= 1
                size += each
                part.append(mark)
            self._bytes = max(0, self._bytes - size) if marks else 0
            dropped, self._told = self.dropped - self._told, self.dropped
            yield part, dropped

    def lost(self, marks: Iterable[Mark]) -> None:
        """Marks that were taken could not be sent."""
        self.dropped += sum(tasks_in(mark) for mark in marks)


def tasks_in(mark: Sequence[Any]) -> int:
    """Return of how many tasks a mark is."""
    if mark[0] in (WORKER, JOB):
        return 0
    ids = mark[5] if mark[0] == DONE else mark[3] if mark[0] in _WITH_HEADER else mark[1]
    return len(ids) // TASK_BYTES


def pack(signer: Signer, who: dict[str, Any], marks: Sequence[Mark], dropped: int) -> bytes:
    """Return a batch as it stands in the store."""
    numbers: dict[bytes, int] = {}
    numbered: list[Mark] = []
    for mark in marks:
        if mark[0] in _WITH_HEADER:
            numbered.append((mark[0], numbers.setdefault(mark[1], len(numbers)), *mark[2:]))
        else:
            numbered.append(mark)
    return signer.seal(_CONTEXT, zlib.compress(_encode((VERSION, who, list(numbers), numbered, dropped)), 1))


def unpack(signer: Signer, data: bytes) -> Batch:
    """Return the batch in an entry of the store.

    Raises:
        MalformedMessage: not signed with one of our secrets, or not a batch of this version.
    """
    try:
        version, who, headers, marks, dropped = _decode(zlib.decompress(signer.open(_CONTEXT, data)))
    except (msgspec.MsgspecError, zlib.error, RabbitryBrokerError) as error:
        raise MalformedMessage(f"events: {error}") from error
    if version != VERSION:
        raise MalformedMessage(f"events of version {version}, this rabbitry reads {VERSION}")
    return Batch(who, headers, marks, dropped)


def split(ids: bytes) -> list[bytes]:
    """Return the task ids that stand one behind the other.

    Example:
        >>> split(b"a" * 24 + b"b" * 24)[1][:3]
        b'bbb'
    """
    return [ids[at : at + TASK_BYTES] for at in range(0, len(ids), TASK_BYTES)]


class RunTimes:
    """When the tasks ended that an executor has run since it last told of it, and how long each took.

    HOT PATH: `note`, once for each task, by the thread that holds the committer's lock.

    Attributes:
        failures: (task id, attempt, kind of error, text) of those that failed.
    """

    __slots__ = ("_numbers", "_since", "failures")

    def __init__(self) -> None:
        self._numbers: list[float] = []
        self._since = 0.0
        self.failures: list[tuple[bytes, int, str, str]] = []

    def note(self, end: float, duration: float) -> None:
        """A task has ended (by `perf_counter`) that took so many seconds."""
        numbers = self._numbers
        if not numbers:
            self._since = end - duration
        numbers += (end - self._since, duration)

    def failed(self, task_id: bytes, attempt: int, error: str, text: str) -> None:
        """A task fails. Any thread; what is noted just when the rest is taken may be lost."""
        if len(self.failures) < FAILURES_MAX:
            self.failures.append((task_id, attempt, error, text[-TEXT_CHARACTERS:]))

    def take(self) -> tuple[float, bytes, list[tuple[bytes, int, str, str]]]:
        """Return (since when, in seconds since 1970; the numbers; failures), and begin anew."""
        numbers, self._numbers = self._numbers, []
        failures, self.failures = self.failures, []
        since = time.time() - (time.perf_counter() - self._since) if numbers else time.time()
        return since, array("f", numbers).tobytes(), failures


def times_of(since: float, numbers: bytes) -> list[tuple[float, float]]:
    """Return (start, end) of each task, from what `RunTimes.take` returned.

    Example:
        >>> times_of(100.0, array("f", [2.0, 0.5]).tobytes())
        [(101.5, 102.0)]
    """
    pairs = array("f")
    pairs.frombytes(numbers)
    return [(since + end - took, since + end) for end, took in zip(pairs[::2], pairs[1::2], strict=True)]
