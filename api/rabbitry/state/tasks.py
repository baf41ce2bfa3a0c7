"""What became of tasks: events put together, task by task and attempt by attempt.

Marks of one task come from several processes, in any order: the state of an attempt is that of its latest mark, and an
end is an end. Whoever asks again reads only what came since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from rabbitry import error_types
from rabbitry_broker import events
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.events import Batch, split, times_of
from rabbitry_broker.messages import TaskHeader, decode_header
from rabbitry_broker.store.events import EventReader

TASKS_KEPT: Final = 100_000
"""Of so many tasks a reader knows what became of them. Those that have ended go first, the oldest before others."""
WORKERS_KEPT: Final = 10_000
JOBS_KEPT: Final = 10_000

LATE_SECONDS: Final = 1.0  # clocks of machines may differ by more: then times stay as they were told

PARKED: Final = "PENDING_ARGS_AVAIL"
QUEUED: Final = "PENDING_NODE_ASSIGNMENT"
LEASED: Final = "SUBMITTED_TO_WORKER"
IN_HOST: Final = "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY"
RUNNING: Final = "RUNNING"
IN_GET: Final = "RUNNING_IN_RAY_GET"
IN_WAIT: Final = "RUNNING_IN_RAY_WAIT"
FINISHED: Final = "FINISHED"
FAILED: Final = "FAILED"
ENDS: Final = frozenset((FINISHED, FAILED))

_STATES: Final = {
    events.QUEUED: QUEUED,
    events.LEASED: LEASED,
    events.RUNNING: RUNNING,
    events.IN_GET: IN_GET,
    events.IN_WAIT: IN_WAIT,
}
# Of marks with the same time, the later state counts.
_RANK: Final = {PARKED: 0, QUEUED: 1, LEASED: 2, RUNNING: 3, IN_GET: 4, IN_WAIT: 4}


class Attempt:
    """One run of a task, or the wait for it. Times are seconds since 1970, 0.0 for what has not come.

    Attributes:
        number: 0 for the first.
        state: as Ray calls it.
        at: since when.
        queued: when a node got it.
        leased: when an executor got it.
        started: when it began.
        ended: when it ended.
        node: id of the node; b"" if none has it.
        worker: id of the worker process, which is that of the client in it.
        pid: of that process.
        error: kind of the error; "" without one.
        text: what the error says.
    """

    __slots__ = (
        "at",
        "ended",
        "error",
        "leased",
        "node",
        "number",
        "pid",
        "queued",
        "started",
        "state",
        "text",
        "worker",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.state = QUEUED
        self.at = self.queued = self.leased = self.started = self.ended = 0.0
        self.node: bytes = b""
        self.worker: bytes = b""
        self.pid = 0
        self.error = self.text = ""


class Task:
    """One task. Times are seconds since 1970, 0.0 for what has not come.

    Attributes:
        id: its 24 bytes.
        header: what all tasks of its function and options share; None if no mark with it has come.
        queue: the queue that it was sent to, or will be.
        created: when it was sent.
        parked: since when it waits for results of others in the store; 0.0 if it does not.
        parent: the task that submitted it; b"" for a driver.
        needs: the tasks whose results it takes.
        attempts: by number.
    """

    __slots__ = ("attempts", "created", "header", "id", "needs", "parent", "parked", "queue")

    def __init__(self, task_id: bytes) -> None:
        self.id = task_id
        self.header: TaskHeader | None = None
        self.queue = ""
        self.created = self.parked = 0.0
        self.parent: bytes = b""
        self.needs: tuple[bytes, ...] = ()
        self.attempts: dict[int, Attempt] = {}

    def was_there(self, at: float) -> None:
        """A node had it at this time. Whoever sent it looks at the clock afterwards, and may come to that late."""
        if 0.0 < self.created - at < LATE_SECONDS:
            self.created = at

    def attempt(self, number: int) -> Attempt:
        """Return one of its attempts."""
        found = self.attempts.get(number)
        if found is None:
            found = self.attempts[number] = Attempt(number)
        return found

    @property
    def last(self) -> Attempt | None:
        """The latest attempt, if a node has seen the task."""
        return self.attempts[max(self.attempts)] if self.attempts else None

    @property
    def has_ended(self) -> bool:
        """True if its latest attempt has."""
        last = self.last
        return last is not None and last.state in ENDS


class Worker:
    """A worker process, as its node told of it.

    Attributes:
        id: of the client in it.
        pid: of the process.
        node: id of its node.
        job: that it works for.
        actor: that it hosts; b"" for none.
        started: seconds since 1970.
        ended: the same; 0.0 while it lives.
        reason: why it ended.
    """

    __slots__ = ("actor", "ended", "id", "job", "node", "pid", "reason", "started")

    def __init__(self, worker: bytes) -> None:
        self.id = worker
        self.pid = 0
        self.node: bytes = b""
        self.job: bytes = b""
        self.actor: bytes = b""
        self.started = self.ended = 0.0
        self.reason = ""


class TaskLog:
    """Tasks, workers and jobs, as far as their events are kept. For one thread.

    Args:
        reader: of the events.
        kept: tasks to know of at most.

    Attributes:
        tasks: by id, in the order in which they were first heard of.
        workers: by id.
        jobs: (time, facts) of each, by id.
        dropped: tasks of which marks were dropped by those who made them.
        forgotten: tasks that were let go of, there being too many.
        on_ended: told of the attempts that have ended since the last time.
        processes: what processes said of themselves, by id.
    """

    def __init__(self, reader: EventReader, *, kept: int = TASKS_KEPT) -> None:
        self._reader = reader
        self._kept = kept
        self.tasks: dict[bytes, Task] = {}
        self.workers: dict[bytes, Worker] = {}
        self.jobs: dict[bytes, tuple[float, dict[str, Any]]] = {}
        self.processes: dict[bytes, dict[str, Any]] = {}
        self.dropped = 0
        self.forgotten = 0
        self._ended: list[tuple[Task, Attempt]] = []
        self.on_ended: list[Callable[[list[tuple[Task, Attempt]]], object]] = []

    @property
    def unreadable(self) -> int:
        """Entries of the stream that nobody of this cluster wrote."""
        return self._reader.unreadable

    def refresh(self) -> None:
        """Read what came since the last time."""
        self._ended = []
        for _, batch in self._reader.fresh():
            self.take(batch)
            if len(self.tasks) > self._kept + self._kept // 10:
                self._forget()
        for tell in self.on_ended if self._ended else ():
            tell(self._ended)

    def take(self, batch: Batch) -> None:
        """Take what one process told. What makes no sense in it is left out."""
        self.dropped += batch.dropped
        process = batch.who.get("id", b"")
        self.processes[process] = batch.who
        if len(self.processes) > WORKERS_KEPT:
            del self.processes[next(iter(self.processes))]
        headers: list[TaskHeader | None] = [_header(each) for each in batch.headers]
        node = batch.who.get("node", b"")
        for mark in batch.marks:
            try:
                self._take(mark, headers, node)
            except (TypeError, ValueError, IndexError, AttributeError):
                continue  # of another version, or nonsense

    def _take(self, mark: list[Any], headers: list[TaskHeader | None], node: bytes) -> None:
        word = mark[0]
        if word == events.DONE:
            self._done(mark, headers[mark[1]], node)
        elif word in (events.SUBMITTED, events.PARKED):
            _, number, at, ids, queue = mark
            header = headers[number]
            for task_id in split(ids):
                task = self._task(task_id, header)
                task.queue = queue
                task.created = min(at, task.created or at)
                first = task.attempts.get(0)
                if first is not None:
                    task.was_there(first.queued or first.started or at)
                if word == events.PARKED:
                    task.parked = at
        elif word in _STATES:
            self._moves(mark, headers[mark[1]], node)
        elif word == events.FAILED:
            self._failed(mark, headers[mark[1]], node)
        elif word == events.NEEDS:
            self._task(mark[1], None).needs = tuple(split(mark[2]))
        elif word == events.CHILDREN:
            for task_id in split(mark[2]):
                self._task(task_id, None).parent = mark[1]
        elif word == events.WORKER:
            self._worker(mark, node)
        elif word == events.JOB:
            _, at, job, facts = mark
            before = self.jobs.get(job)
            self.jobs[job] = (at, {**(before[1] if before else {}), **facts})
            if len(self.jobs) > JOBS_KEPT:
                del self.jobs[next(iter(self.jobs))]

    def _task(self, task_id: bytes, header: TaskHeader | None) -> Task:
        task = self.tasks.get(task_id)
        if task is None:
            task = self.tasks[task_id] = Task(task_id)
        if header is not None and task.header is None:
            task.header = header
        return task

    def _moves(self, mark: list[Any], header: TaskHeader | None, node: bytes) -> None:
        """A task waits on a node, is with an executor, runs, or waits for others."""
        word, _, at, ids, number, *executor = mark
        state = _STATES[word]
        for task_id in split(ids):
            attempt = self._task(task_id, header).attempt(number)
            if attempt.state in ENDS:
                continue
            if (at, _RANK[state]) >= (attempt.at, _RANK[attempt.state]):
                attempt.state, attempt.at, attempt.node = state, at, node
                if executor:
                    attempt.worker, attempt.pid = executor
            if state == QUEUED:
                attempt.queued = attempt.queued or at
                self.tasks[task_id].was_there(at)
            elif state == LEASED:
                attempt.leased = attempt.leased or at
            else:
                attempt.started = min(at, attempt.started or at)

    def _done(self, mark: list[Any], header: TaskHeader | None, node: bytes) -> None:
        """Tasks have ended: one mark for many. HOT PATH."""
        _, _, queued, leased, since, ids, times, attempts, worker, pid = mark
        spans = times_of(since, times) if times else None
        for at, task_id in enumerate(split(ids)):
            task = self._task(task_id, header)
            attempt = task.attempt(attempts[at] if attempts else 0)
            attempt.queued, attempt.leased = queued, leased
            if task.created > queued:
                task.was_there(queued)
            if spans is not None:
                attempt.started, attempt.ended = spans[at]
            else:
                attempt.started = attempt.started or leased
                attempt.ended = max(since, attempt.started)
            attempt.at = attempt.ended
            attempt.node, attempt.worker, attempt.pid = node, worker, pid
            if attempt.state not in ENDS:
                self._ended.append((task, attempt))
            attempt.state = FAILED if attempt.error else FINISHED

    def _failed(self, mark: list[Any], header: TaskHeader | None, node: bytes) -> None:
        _, _, at, ids, number, error, text, worker, pid = mark
        for task_id in split(ids):
            task = self._task(task_id, header)
            attempt = task.attempt(number)
            if attempt.state == FINISHED and error == error_types.TASK_CANCELLED and not worker:
                continue  # it had ended before somebody cancelled it
            attempt.error, attempt.text = error, text
            if attempt.state not in ENDS:
                self._ended.append((task, attempt))
            attempt.state, attempt.at = FAILED, at
            attempt.ended = attempt.ended or at
            if worker:
                attempt.node, attempt.worker, attempt.pid = node, worker, pid

    def _worker(self, mark: list[Any], node: bytes) -> None:
        _, at, worker_id, pid, job, actor, reason = mark
        worker = self.workers.get(worker_id)
        if worker is None:
            worker = self.workers[worker_id] = Worker(worker_id)
            if len(self.workers) > WORKERS_KEPT:
                ended = (each.id for each in self.workers.values() if each.ended)
                del self.workers[next(ended, next(iter(self.workers)))]
        worker.pid, worker.node, worker.job = pid, node, job
        worker.actor = actor or worker.actor
        if reason:
            worker.ended, worker.reason = at, reason
        else:
            worker.started = at

    def _forget(self) -> None:
        """Let go of the oldest tasks, of those that have ended first."""
        surplus = len(self.tasks) - self._kept
        ended = list(islice((each for each, task in self.tasks.items() if task.has_ended), surplus))
        for each in ended or list(islice(self.tasks, surplus)):
            del self.tasks[each]
            self.forgotten += 1

    def rows(self) -> Iterator[tuple[Task, Attempt | None]]:
        """Yield each task with each of its attempts, the latest task first; see `rows_of`."""
        return rows_of(list(self.tasks.values()))


def rows_of(tasks: Sequence[Task]) -> Iterator[tuple[Task, Attempt | None]]:
    """Yield each task with each of its attempts, the last task first; None for one that no node has seen."""
    for task in reversed(tasks):
        if task.header is None:
            continue  # only that it is somebody's child, say
        if not task.attempts:
            yield task, None
        for number in sorted(task.attempts):
            yield task, task.attempts[number]


def _header(encoded: bytes) -> TaskHeader | None:
    try:
        return decode_header(encoded) if encoded else None
    except RabbitryBrokerError:
        return None  # of a later version
