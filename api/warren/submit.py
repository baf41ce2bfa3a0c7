"""The outbox: from `f.remote()` to the queues, in batches.

HOT PATH (`benchmarks/`: `async_*`, `sync`). A `Plan` is what all calls of one remote function with one set of options
share: encoded header, queue, priority. `Outbox.add` is microseconds: it appends to the plan's list. Who sends:

- the calling thread, at once, when the client has nothing in flight (a lone `get(f.remote())` pays for no batching),
- the calling thread again when enough waits (`FLUSH_AT`), and at the start of every `get` and `wait`,
- else the client's service thread, about a millisecond later.

Batch size follows the mean run time that completions report (design, section 6).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from warren_broker.messages import Task, TaskHeader, encode_frame, encode_header
from warren_broker.shared_memory import ObjectStoreFull

if TYPE_CHECKING:
    from warren.client import Client

log = logging.getLogger("warren")

FLUSH_AT = 200  # tasks waiting: then the caller sends them itself
BATCH_TASKS_MAX = 200  # measured: beyond this nothing is gained (design, section 6)
BATCH_SECONDS = 0.010  # of work in one batch
BATCH_UNSEEN = 16  # tasks in a batch of a function whose run time is not known yet
BATCH_BYTES_MAX = 4 * 1024 * 1024


class Route(Protocol):
    """Decides where each message of a plan goes."""

    def next_queue(self) -> str:
        """Return the queue of the next message."""


class Plan:
    """What all calls of one function with one set of options share."""

    __slots__ = (
        "function",
        "header",
        "header_bytes",
        "line",
        "mean",
        "pending",
        "priority",
        "queue",
        "route",
        "single",
    )

    def __init__(self, header: TaskHeader, queue: str, *, single: bool = False, route: Route | None = None) -> None:
        self.header = header
        self.header_bytes = encode_header(header)
        self.function = header.function
        self.queue = queue
        self.priority = header.priority
        self.single = single
        self.route = route
        self.pending: list[Task] = []
        self.mean: float | None = None
        self.line: Line | None = None

    def next_queue(self) -> str:
        """Return the queue of the next message."""
        return self.queue if self.route is None else self.route.next_queue()


class Line:
    """The calls of this client to one actor that were not sent yet, in order."""

    __slots__ = ("pending", "position", "queue")

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.pending: list[tuple[Plan, Task]] = []
        self.position = 0


class Outbox:
    """Groups tasks by plan and publishes them. Any thread may call anything."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._flush_lock = threading.RLock()
        self._dirty: list[Plan] = []
        self._lines: list[Line] = []
        self._parked: list[tuple[Plan, Task]] = []
        self._waiting = 0

    def add(self, plan: Plan, task: Task) -> None:
        """Take a task. Sends now if the client is idle or much is waiting."""
        client = self._client
        with self._lock:
            if not plan.pending:
                self._dirty.append(plan)
            plan.pending.append(task)
            self._waiting += 1
            waiting = self._waiting
            client.in_flight += 1
            idle = client.in_flight == 1
        if idle or waiting >= FLUSH_AT:
            self._send_with(task[0])
        elif waiting == 1:
            client.kick()

    def add_call(self, plan: Plan, task: Task) -> None:
        """Take an actor call; it keeps its place in the actor's line whatever its dependencies. HOT PATH."""
        client = self._client
        line = plan.line
        assert line is not None
        with self._lock:
            if not line.pending:
                self._lines.append(line)
            line.position += 1
            line.pending.append((plan, (*task[:5], line.position)))
            self._waiting += 1
            waiting = self._waiting
            client.in_flight += 1
            idle = client.in_flight == 1
        if idle or waiting >= FLUSH_AT:
            self._send_with(task[0])
        elif waiting == 1:
            client.kick()

    def add_parked(self, plan: Plan, task: Task) -> None:
        """Take a task whose dependencies may not be there yet."""
        with self._lock:
            self._parked.append((plan, task))
            self._waiting += 1
            waiting = self._waiting
            self._client.in_flight += 1
        if waiting >= FLUSH_AT:
            self._send_with(task[0])
        elif waiting == 1:
            self._client.kick()

    def _send_with(self, task_id: bytes) -> None:
        """Flush; if that fails, whoever submits this task is told, unless it was sent. All others are kept."""
        try:
            self.flush()
        except Exception as error:
            if self.withdraw(task_id):
                with self._lock:
                    self._client.in_flight -= 1
                raise
            log.debug("what waits is sent later: %s", error)

    def withdraw(self, task_id: bytes) -> bool:
        """Take a task back that was not sent yet (`cancel`)."""
        with self._lock:
            for plan in self._dirty:
                for at, task in enumerate(plan.pending):
                    if task[0] == task_id:
                        del plan.pending[at]
                        self._waiting -= 1
                        return True
            for line in self._lines:
                for at, (_, task) in enumerate(line.pending):
                    if task[0] == task_id:
                        del line.pending[at]
                        self._waiting -= 1
                        return True
            for at, (_, task) in enumerate(self._parked):
                if task[0] == task_id:
                    del self._parked[at]
                    self._waiting -= 1
                    return True
        return False

    @property
    def waiting(self) -> int:
        """Tasks not yet sent."""
        return self._waiting

    def flush(self) -> None:
        """Send all that waits, from this thread. Returns when it is handed to the connection, not confirmed.

        What cannot be sent is kept, in its order, for the next time: it was accepted.

        Raises:
            ObjectStoreFull: Redis is full.
            WarrenBrokerError: a server stayed away for too long.
        """
        if not self._waiting and not self._client.unsent_puts:
            return
        self._client.register()
        with self._flush_lock:
            try:
                self._client.flush_puts(wait=False)
            except ObjectStoreFull as error:
                # They are kept. Nothing that is sent here refers to them: who passes a ref on sends its value first.
                log.debug("small puts wait for room: %s", error)
            with self._lock:
                batches = [(plan, plan.pending) for plan in self._dirty]
                for plan in self._dirty:
                    plan.pending = []
                lines = [(line, line.pending) for line in self._lines]
                for line in self._lines:
                    line.pending = []
                self._lines = []
                parked, self._parked = self._parked, []
                self._dirty = []
                self._waiting = 0
            try:
                for plan, tasks in batches:
                    self._publish(plan, tasks)
                for line, calls in lines:
                    self._publish_calls(line, calls)
                if parked:
                    self._park(parked)
            except BaseException:
                self._keep(batches, lines, parked)
                raise

    def _keep(
        self,
        batches: list[tuple[Plan, list[Task]]],
        lines: list[tuple[Line, list[tuple[Plan, Task]]]],
        parked: list[tuple[Plan, Task]],
    ) -> None:
        """Put what was not sent before what came meanwhile. What is sent and unconfirmed, the publisher keeps."""
        with self._lock:
            for plan, tasks in batches:
                if tasks and not plan.pending:
                    self._dirty.append(plan)
                plan.pending = tasks + plan.pending
                self._waiting += len(tasks)
            for line, calls in lines:
                if calls and not line.pending:
                    self._lines.append(line)
                line.pending = calls + line.pending
                self._waiting += len(calls)
            self._parked = parked + self._parked
            self._waiting += len(parked)

    def _publish(self, plan: Plan, tasks: list[Task]) -> None:
        """Publish tasks, and take what is published out of the list."""
        client = self._client
        publish, signer = client.publisher.publish, client.signer
        size = self.batch_size(plan, len(tasks))
        while tasks:
            batch = tasks[:size]
            if size > 1 and sum([len(task[1]) for task in batch]) > BATCH_BYTES_MAX:
                for task in batch:
                    publish(plan.next_queue(), encode_frame(signer, plan.header_bytes, [task]), priority=plan.priority)
            else:
                publish(plan.next_queue(), encode_frame(signer, plan.header_bytes, batch), priority=plan.priority)
            del tasks[:size]

    def _publish_calls(self, line: Line, calls: list[tuple[Plan, Task]]) -> None:
        """One message for up to `BATCH_TASKS_MAX` calls: a frame for each run of calls under one plan.

        What is published is taken out of the list.
        """
        client = self._client
        signer = client.signer
        while calls:
            frames: list[bytes] = []
            run: list[Task] = []
            size = 0
            current: Plan | None = None
            for plan, task in calls[:BATCH_TASKS_MAX]:
                if current is not None and (plan is not current or size > BATCH_BYTES_MAX):
                    frames.append(encode_frame(signer, current.header_bytes, run))
                    run = []
                    size = 0
                current = plan
                run.append(task)
                size += len(task[1])
            if current is not None:
                frames.append(encode_frame(signer, current.header_bytes, run))
            client.publisher.publish(line.queue, b"".join(frames))
            del calls[:BATCH_TASKS_MAX]

    def batch_size(self, plan: Plan, waiting: int) -> int:
        """Return how many tasks of `plan` go into one message."""
        if plan.single or waiting == 1:
            return 1
        mean = plan.mean
        wanted = BATCH_UNSEEN if mean is None else min(BATCH_TASKS_MAX, int(BATCH_SECONDS / max(mean, 1e-6)))
        fair = self._client.in_flight // (4 * self._client.slots)
        return max(1, min(wanted, fair))

    def _park(self, parked: list[tuple[Plan, Task]]) -> None:
        client = self._client
        frames = [encode_frame(client.signer, plan.header_bytes, [task]) for plan, task in parked]
        ready = client.store.park(
            [
                (task[0], frame, plan.queue, plan.priority, task[3])
                for (plan, task), frame in zip(parked, frames, strict=True)
            ]
        )
        # If one of these fails, all are parked again: that does no harm, the first result of each stands.
        for (plan, _), frame, now in zip(parked, frames, ready, strict=True):
            if now:
                client.publisher.publish(plan.queue, frame, priority=plan.priority)


PlanFactory = Callable[["Client"], Plan]
