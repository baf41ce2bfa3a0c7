"""The outbox: what was submitted and waits to be sent, in batches.

HOT PATH (`benchmarks/`: `async_*`, `sync`). `Outbox.add` is microseconds: it appends to the plan's list. Who sends:

- the calling thread, at once, when the client has nothing in flight (a lone `get(f.remote())` pays for no batching),
- the calling thread, at once, with an actor call when nothing was sent for a millisecond: in programs that always have
  a call in flight (a long poll, a signal to wait for), each call would wait for another thread else,
- the calling thread again when enough waits (`FLUSH_AT`), and at the start of every `get` and `wait`,
- else the client's service thread, about a millisecond later.

Batch size follows the mean run time that completions report.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol

from rabbitry.core.flight import Flight
from rabbitry.core.identity import Identity, Job
from rabbitry.core.ports import FlushesPuts, Publishes
from rabbitry.core.submit.plan import Line, Plan
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.events import Recorder
from rabbitry_broker.messages import Task, encode_frame
from rabbitry_broker.shared_memory import ObjectStoreFull

log = logging.getLogger("rabbitry")

ALONE_SECONDS = 0.001  # since the last sending: then a call is not one of many
FLUSH_AT = 200  # tasks waiting: then the caller sends them itself
BATCH_TASKS_MAX = 200  # measured: beyond this nothing is gained
BATCH_SECONDS = 0.010  # of work in one batch
LEAST_SECONDS = 0.001  # of work in one: a message costs servers and node about that much, so less is not worth sharing
BATCH_UNSEEN = 16  # tasks in a batch of a function whose run time is not known yet
BATCH_BYTES_MAX = 4 * 1024 * 1024  # RabbitMQ 4 takes 16 MiB, and a batch ends with the task that goes beyond this


class ParkStore(Protocol):
    """What the store does for it; see `ObjectStore`."""

    def park(self, specs: Sequence[tuple[bytes, bytes, str, int, Sequence[bytes]]]) -> list[bool]:
        """Keep specs until their dependencies are there; True for each whose dependencies are."""

    def seconds_left(self) -> float:
        """Return how long this thread may wait for a lock; -1 for ever."""


class Outbox:
    """Groups tasks by plan and publishes them. Any thread may call anything.

    Args:
        identity: signs the messages.
        job: tells how much the cluster can run at once.
        flight: counts what is accepted here; its lock guards what waits.
        publisher: sends messages.
        store: keeps tasks whose dependencies are not there.
        unsent: small values that were kept back.
        flush_puts: sends them.
        register: makes the client known as alive: results of a dead owner are dropped.
        kick: has the service thread send what waits.
        events: notes what was sent; None for nothing.
    """

    def __init__(
        self,
        identity: Identity,
        job: Job,
        flight: Flight,
        *,
        publisher: Publishes,
        store: ParkStore,
        unsent: dict[bytes, bytes],
        flush_puts: FlushesPuts,
        register: Callable[[], None],
        kick: Callable[[], None],
        events: Recorder | None = None,
    ) -> None:
        self._sent = events.sent if events is not None and events.on else None
        self._signer = identity.signer
        self._job = job
        self._flight = flight
        self._lock = flight.lock
        self._publisher = publisher
        self._store = store
        self._unsent = unsent
        self._flush_puts = flush_puts
        self._register = register
        self._kick = kick
        self._flush_lock = threading.RLock()
        self._dirty: list[Plan] = []
        self._lines: list[Line] = []
        self._parked: list[tuple[Plan, Task]] = []
        self._waiting = 0
        self._sending = False
        self._sent_at = 0.0  # when something was sent last

    def add(self, plan: Plan, task: Task) -> None:
        """Take a task. Sends now if the client is idle or much is waiting."""
        flight = self._flight
        with self._lock:
            if not plan.pending:
                self._dirty.append(plan)
            plan.pending.append(task)
            self._waiting += 1
            waiting = self._waiting
            flight.count += 1
            idle = flight.count == 1
        if idle or waiting >= FLUSH_AT:
            self._send_with(task[0])
        elif waiting == 1:
            self._kick()

    def add_call(self, plan: Plan, task: Task) -> None:
        """Take an actor call; it keeps its place in the actor's line whatever its dependencies. HOT PATH."""
        flight = self._flight
        line = plan.line
        assert line is not None
        with self._lock:
            if not line.pending:
                self._lines.append(line)
            line.position += 1
            line.pending.append((plan, (*task[:5], line.position)))
            self._waiting += 1
            waiting = self._waiting
            flight.count += 1
            idle = flight.count == 1
            alone = waiting == 1 and not self._sending and monotonic() - self._sent_at > ALONE_SECONDS
        if idle or waiting >= FLUSH_AT:
            self._send_with(task[0])
        elif alone:
            self._send_now_or_later()
        elif waiting == 1:
            self._kick()

    def add_parked(self, plan: Plan, task: Task) -> None:
        """Take a task whose dependencies may not be there yet."""
        flight = self._flight
        with self._lock:
            self._parked.append((plan, task))
            self._waiting += 1
            waiting = self._waiting
            flight.count += 1
        if waiting >= FLUSH_AT:
            self._send_with(task[0])
        elif waiting == 1:
            self._kick()

    def _send_with(self, task_id: bytes) -> None:
        """Flush; if that fails, whoever submits this task is told, unless it was sent. All others are kept."""
        try:
            self.flush()
        except Exception as error:
            if self.withdraw(task_id):
                self._flight.ended(1)
                raise
            log.debug("what waits is sent later: %s", error)

    def _send_now_or_later(self) -> None:
        """Flush; if that fails, the service thread sees to it, as to all that is submitted beside other work."""
        try:
            self.flush()
        except RabbitryBrokerError as error:
            log.debug("what waits is sent later: %s", error)
            self._kick()

    def withdraw(self, task_id: bytes) -> bool:
        """Take a task back that was not sent yet; whoever does that tells of its end (`Flight.ended`)."""
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

        What cannot be sent is kept, in its order, for the next time: it was accepted. A thread with a deadline (see
        `ObjectStore.within`) leaves it to the one that is sending.

        Raises:
            ObjectStoreFull: Redis is full.
            RabbitryBrokerError: a server stayed away for too long.
        """
        if not self._waiting and not self._unsent:
            return
        self._register()
        if not self._flush_lock.acquire(timeout=self._store.seconds_left()):
            return
        self._sending = True
        try:
            try:
                self._flush_puts(wait=False)
            except ObjectStoreFull as error:
                # They are kept. Nothing that is sent here refers to them: who passes a ref on sends its value first.
                log.debug("small puts wait for room: %s", error)
            with self._lock:
                # Each list is replaced as it is read: what a `__del__` submits meanwhile, on this thread, is in one.
                dirty, self._dirty = self._dirty, []
                batches: list[tuple[Plan, list[Task]]] = []
                for plan in dirty:
                    tasks, plan.pending = plan.pending, []
                    self._waiting -= len(tasks)
                    batches.append((plan, tasks))
                waiting_lines, self._lines = self._lines, []
                lines: list[tuple[Line, list[tuple[Plan, Task]]]] = []
                for line in waiting_lines:
                    calls, line.pending = line.pending, []
                    self._waiting -= len(calls)
                    lines.append((line, calls))
                parked, self._parked = self._parked, []
                self._waiting -= len(parked)
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
        finally:
            self._sent_at = monotonic()
            self._sending = False
            self._flush_lock.release()

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
        publish, signer = self._publisher.publish, self._signer
        sent = self._sent if plan.header.events else None
        size = self.batch_size(plan, len(tasks))
        while tasks:
            batch = tasks[:size]
            if size > 1 and _bytes_of(batch) > BATCH_BYTES_MAX:
                for task in batch:
                    publish(plan.next_queue(), encode_frame(signer, plan.header_bytes, [task]), priority=plan.priority)
            else:
                publish(plan.next_queue(), encode_frame(signer, plan.header_bytes, batch), priority=plan.priority)
            if sent is not None:
                sent(plan.header_bytes, batch, plan.queue)
            del tasks[:size]

    def _publish_calls(self, line: Line, calls: list[tuple[Plan, Task]]) -> None:
        """`BATCH_TASKS_MAX` calls or `BATCH_BYTES_MAX` a message, with a frame for each run of calls under one plan.

        What is published is taken out of the list.
        """
        signer = self._signer
        while calls:
            frames: list[bytes] = []
            run: list[Task] = []
            count = size = 0
            current: Plan | None = None
            for plan, task in calls[:BATCH_TASKS_MAX]:
                if size > BATCH_BYTES_MAX:
                    break
                if plan is not current:
                    if current is not None:
                        frames.append(encode_frame(signer, current.header_bytes, run))
                        run = []
                    current = plan
                    size += len(plan.header_bytes)
                run.append(task)
                count += 1
                size += len(task[1])
                if task[4]:
                    size += sum([len(record) for record in task[4].values()])
            if current is not None:
                frames.append(encode_frame(signer, current.header_bytes, run))
            self._publisher.publish(line.queue, b"".join(frames))
            if self._sent is not None:
                self._note_calls(line.queue, calls[:count])
            del calls[:count]

    def _note_calls(self, queue: str, calls: list[tuple[Plan, Task]]) -> None:
        """These calls were sent: one mark for each run of calls under one plan. HOT PATH."""
        assert self._sent is not None
        run: list[Task] = []
        current: Plan | None = None
        for plan, task in calls:
            if plan is not current:
                if run and current is not None and current.header.events:
                    self._sent(current.header_bytes, run, queue)
                current, run = plan, []
            run.append(task)
        if run and current is not None and current.header.events:
            self._sent(current.header_bytes, run, queue)

    def batch_size(self, plan: Plan, waiting: int) -> int:
        """Return how many tasks of `plan` go into one message."""
        if plan.single or waiting == 1:
            return 1
        mean = plan.mean
        fair = self._flight.count // (4 * self._job.slots)
        if mean is None:
            return max(1, min(BATCH_UNSEEN, fair))
        mean = max(mean, 1e-6)
        fair = max(fair, int(LEAST_SECONDS / mean))
        return max(1, min(BATCH_TASKS_MAX, int(BATCH_SECONDS / mean), fair))

    def _park(self, parked: list[tuple[Plan, Task]]) -> None:
        frames = [encode_frame(self._signer, plan.header_bytes, [task]) for plan, task in parked]
        queues = [plan.next_queue() for plan, _ in parked]
        ready = self._store.park(
            [
                (task[0], frame, queue, plan.priority, task[3])
                for (plan, task), frame, queue in zip(parked, frames, queues, strict=True)
            ]
        )
        if self._sent is not None:
            for (plan, task), queue, now in zip(parked, queues, ready, strict=True):
                if plan.header.events:
                    self._sent(plan.header_bytes, [task], queue, parked=not now)
        # If one of these fails, all are parked again: that does no harm, the first result of each stands.
        for (plan, _), frame, queue, now in zip(parked, frames, queues, ready, strict=True):
            if now:
                self._publisher.publish(queue, frame, priority=plan.priority)


def _bytes_of(tasks: list[Task]) -> int:
    """Return what arguments and the values that come along weigh. HOT PATH."""
    size = sum([len(task[1]) for task in tasks])
    return size + sum([len(record) for task in tasks if task[4] for record in task[4].values()])
