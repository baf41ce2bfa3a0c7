"""Calls to the actors of a node: handed to their hosts, kept while an actor is restarted, answered when it is dead.

HOT PATH: `deliver`, `done`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from rabbitry.core.failures import handles_gone_cause
from rabbitry.core.submit.plans import END_METHOD
from rabbitry.exceptions import ActorUnavailableError, store_error
from rabbitry_broker import queue_names as names
from rabbitry_broker import records
from rabbitry_broker.loop import Loop
from rabbitry_broker.messages import Task, TaskHeader
from rabbitry_broker.queues.protocol import Consumer
from rabbitry_broker.store.actors import ActorRecords
from rabbitry_workers.channel import CANCEL, RUN
from rabbitry_workers.node.actors.call_order import Call
from rabbitry_workers.node.actors.hosted import PREFETCH, ActorTable, Hosted, unavailable
from rabbitry_workers.node.model.lanes import Executor
from rabbitry_workers.node.model.ports import (
    Cancels,
    Commits,
    Fails,
    Publishes,
    Rechecks,
    Settle,
    Shadows,
    TellsEnds,
)
from rabbitry_workers.node.model.work import Chunk, Held, Piece
from rabbitry_workers.positions import Positions

LOOK_SECONDS: Final = 0.01  # until it is looked at whether an actor that has many messages has enough calls
LOOK_AGAIN_SECONDS: Final = 0.1  # if it has, or gets them anyway


class ActorCalls:
    """Loop thread only.

    Args:
        table: the actors of this node.
        records: what is authoritative about actors.
        graves: dead actors that this node answers for: the record that their calls get, and since when.
        settle: of deliveries.
        commits: of results and errors.
        publishing: of what results released.
        failing: of calls of the dead.
        cancelling: knows what was cancelled.
        shadows: know what this node has in hand.
        rechecks: tell what has ended.
        lost_a_node: True if a node was lost lately.
        refuse: ends an actor for a cause.
        consumer: of actors' queues.
        loop: of the node.
        events: records what ended; None for nothing.
    """

    def __init__(
        self,
        table: ActorTable,
        records: ActorRecords,
        graves: Mapping[bytes, tuple[bytes, float]],
        settle: Settle,
        commits: Commits,
        publishing: Publishes,
        failing: Fails,
        cancelling: Cancels,
        shadows: Shadows,
        rechecks: Rechecks,
        lost_a_node: Callable[[], bool],
        refuse: Callable[[bytes, bytes], None],
        consumer: Consumer,
        loop: Loop,
        events: TellsEnds | None = None,
    ) -> None:
        self._events = events
        self._table = table
        self._records = records
        self._graves = graves
        self._settle = settle
        self._commits = commits
        self._publishing = publishing
        self._failing = failing
        self._cancelling = cancelling
        self._shadows = shadows
        self._rechecks = rechecks
        self._lost_a_node = lost_a_node
        self._refuse = refuse
        self._consumer = consumer
        self._loop = loop

    def deliver(self, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task]) -> None:
        """Hand calls to the actor's host. HOT PATH."""
        actor_id = header.actor
        held.outstanding += len(tasks)
        if self._cancelling.known:
            tasks = self._cancelling.without_cancelled(held, header, tasks, outstanding=True)
        if self._table.restarting and actor_id in self._table.restarting:
            tasks = self._not_seen(held, header, tasks)
            if not tasks or self._refuses(held, header, tasks):
                return
        hosted = self._table.hosted.get(actor_id)
        if hosted is not None:
            self.send(hosted, held, header_bytes, header, self.first_copies(hosted, held, header, tasks))
        elif actor_id in self._graves:
            record = self._graves[actor_id][0]
            self._failing.add((held, header, task, record) for task in tasks)
        else:
            if actor_id in self._table.seen:
                tasks = self._not_seen(held, header, tasks)
            waiting = self._table.waiting.setdefault(actor_id, deque())
            waiting.extend((held, header_bytes, header, task) for task in tasks)

    def _refuses(self, held: Held, header: TaskHeader, tasks: list[Task]) -> bool:
        """True if calls came to nothing, since their actor is being restarted."""
        actor_id = header.actor
        if header.method == END_METHOD:
            if self._table.hosted.get(actor_id) is not None or self._table.waiting.get(actor_id):
                return False
            # Nobody has a handle, nothing waits for the next process: and its constructor may never end well.
            self._refuse(actor_id, handles_gone_cause(actor_id))
            self._settle(held, len(tasks))
            return True
        if header.max_retries or not self._table.restarting[actor_id]:
            return False
        record = unavailable(actor_id)
        seen = self._table.seen_of(actor_id).setdefault(header.owner, Positions())
        for task in tasks:
            self._commits.commit_record(held, header, task, record, outstanding=True)
            seen.add(task[5])  # it has its answer, whatever copy of it comes
        return True

    def _not_seen(self, held: Held, header: TaskHeader, tasks: list[Task]) -> list[Task]:
        """Calls to an actor whose process has ended that none of its processes here was handed."""
        seen = self._table.seen_of(header.actor).get(header.owner, ())
        first = [task for task in tasks if task[5] not in seen]
        self._settle(held, len(tasks) - len(first))
        return first

    def first_copies(self, hosted: Hosted, held: Held, header: TaskHeader, tasks: list[Task]) -> list[Task]:
        """Calls that this process of the actor has not got yet, nor one before it here. HOT PATH.

        A publisher whose connection breaks before the confirm sends again, and RabbitMQ marks neither copy as
        redelivered. The first one answers, and is acknowledged by itself.
        """
        caller, order = header.owner, hosted.order
        seen = hosted.seen.get(caller, ())
        if order is None and not (seen and any(task[5] in seen for task in tasks)):
            return tasks
        early = order.is_early if order is not None else lambda *_: False
        first = [task for task in tasks if not (task[5] in seen or early(caller, task[5]))]
        self._settle(held, len(tasks) - len(first))
        return first

    def send(self, hosted: Hosted, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task]) -> None:
        """Hand calls to the process, but for those that are early. HOT PATH."""
        if hosted.order is None:
            self._send_now(hosted, held, header_bytes, header, tasks)
            return
        for task in tasks:
            call = (held, header_bytes, header, task)
            for each in hosted.order.in_turn(call):
                if each is call:
                    self._send_now(hosted, held, header_bytes, header, [task])
                else:
                    self.send_early(hosted, each)

    def send_early(self, hosted: Hosted, call: Call) -> None:
        """Hand over a call that was early, unless it was cancelled meanwhile."""
        held, header_bytes, header, task = call
        left = self._cancelling.without_cancelled(held, header, [task], outstanding=True)
        self._send_now(hosted, held, header_bytes, header, left)

    def _send_now(self, hosted: Hosted, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task]) -> None:
        if not tasks:
            return
        seen = hosted.seen.get(header.owner)
        if seen is None:
            seen = hosted.seen[header.owner] = Positions()
        for task in tasks:
            seen.add(task[5])
        executor = hosted.executor
        chunk = Chunk(Piece(held, header_bytes, header, deque()), executor.next_sequence, tasks)
        executor.next_sequence = chunk.end
        executor.chunks.append(chunk)
        executor.send([RUN, chunk.first, header_bytes, tasks, None])
        if len(executor.chunks) >= PREFETCH and not hosted.looks:
            self._look_soon(hosted)

    def _look_soon(self, hosted: Hosted, seconds: float = LOOK_SECONDS) -> None:
        """The window of its queue is full, perhaps. If all in it runs, and waits, there must be more."""
        hosted.looks = True
        self._loop.call_later(seconds, lambda: self._look(hosted))

    def _look(self, hosted: Hosted) -> None:
        hosted.looks = False
        actor_id = hosted.header.actor
        if self._table.hosted.get(actor_id) is not hosted or len(hosted.executor.chunks) < PREFETCH:
            return
        allowed = not hosted.has_enough() and self._consumer.allow_more(names.actor_queue(actor_id))
        # Also later: what comes again over another connection takes up the window, though it is in hand.
        self._look_soon(hosted, LOOK_SECONDS if allowed else LOOK_AGAIN_SECONDS)

    def redelivered(self, held: Held, header: TaskHeader, tasks: list[Task]) -> list[Task]:
        """Calls that come again: skip what is done or under way here; the rest follows its retries."""
        hosted = self._table.hosted.get(header.actor)
        if hosted is not None and hosted.spec.durable:
            return self._shadows.not_held_here(held, header, tasks)  # its process knows which took effect
        fresh = self._shadows.not_held_here(held, header, tasks)
        if hosted is not None:
            seen = hosted.seen.get(header.owner)
            fresh = [task for task in fresh if seen is None or task[5] not in seen]
        (durable,) = self._records.fields(header.actor, "durable")
        if not durable:
            fresh = self._rechecks.recheck(held, header, fresh)
            if hosted is not None and hosted.epoch > 1 and self._lost_a_node():
                # The node of an earlier process died with them: they may have run.
                return self._without_lost(held, header, fresh)
        return fresh

    def _without_lost(self, held: Held, header: TaskHeader, tasks: list[Task]) -> list[Task]:
        if header.max_retries != 0:
            return tasks
        error = ActorUnavailableError("it lost its node while it had this call", header.actor)
        record = records.ERROR + store_error(error)
        self._commits.commit_records([(held, header, task, record) for task in tasks])
        return []

    def on_done(
        self,
        executor: Executor,
        sequences: list[int],
        tasks: int,
        busy: float,
        retries: list[Any],
        dependants: list[Any],
        since: float = 0.0,
        times: bytes = b"",
        failures: list[Any] | None = None,
    ) -> None:
        """These calls are committed. HOT PATH.

        Args:
            executor: which says so.
            sequences: their numbers.
            tasks: how many they are; of no interest for calls, as is the next.
            busy: seconds that they took together.
            retries: (sequence number, task) of those that are to be tried again.
            dependants: what their results released.
            since: what `times` counts from.
            times: when those calls ended whose events are recorded, and how long each took.
            failures: which of them failed, and how.
        """
        if self._events is not None:
            self._tell(executor, sequences, since, times, failures or [])
        chunks = executor.chunks
        again = {sequence: tuple(task) for sequence, task in retries}
        settled: dict[int, tuple[Held, int]] = {}
        resend: list[tuple[Chunk, Task]] = []
        for sequence in sequences:
            for chunk in chunks:
                if chunk.first <= sequence < chunk.end:
                    chunk.done.add(sequence)
                    if sequence in again:
                        resend.append((chunk, again[sequence]))
                    else:
                        held, count = settled.get(id(chunk.held), (chunk.held, 0))
                        settled[id(held)] = (held, count + 1)
                    break
        while chunks and len(chunks[0].done) == chunks[0].end - chunks[0].first:
            chunks.popleft()
        if len(chunks) > PREFETCH:
            executor.chunks = deque(chunk for chunk in chunks if len(chunk.done) < chunk.end - chunk.first)
        if dependants:
            self._publishing.publish_dependants(
                [held for held, _ in settled.values()], [tuple(each) for each in dependants]
            )
        for held, count in settled.values():
            self._settle(held, count)
        hosted = self._table.hosted.get(executor.actor)
        for chunk, task in resend:
            if hosted is not None:
                self.send(hosted, chunk.held, chunk.header_bytes, chunk.header, [task])

    def _tell(self, executor: Executor, sequences: list[int], since: float, times: bytes, failures: list[Any]) -> None:
        """Record which calls ended: one mark for those that are of one chunk and ended together. HOT PATH."""
        assert self._events is not None
        at = 0
        of: Chunk | None = None
        ended: list[Task] = []
        for sequence in sequences:
            if of is None or not of.first <= sequence < of.end:
                if of is not None and of.header.events:
                    self._events.done(executor, of, ended, since, times[at : at + 8 * len(ended)])
                    at += 8 * len(ended)
                ended = []
                of = next((chunk for chunk in executor.chunks if chunk.first <= sequence < chunk.end), None)
            if of is not None:
                ended.append(of.tasks[sequence - of.first])
        if of is not None and of.header.events:
            self._events.done(executor, of, ended, since, times[at : at + 8 * len(ended)])
        if failures:
            self._events.failed_there(executor, failures)

    def cancel(self, executor: Executor, task_id: bytes) -> None:
        """Cancel a call that its host has."""
        executor.progress.cancel(task_id)
        executor.send([CANCEL, task_id])

    def take_waiting(self, wanted: Collection[bytes]) -> list[tuple[Held, TaskHeader, Task]]:
        """Take out the calls with these ids that wait for their actor's next process."""
        taken: list[tuple[Held, TaskHeader, Task]] = []
        for waiting in self._table.waiting.values() if wanted else ():
            found = [call for call in waiting if call[3][0] in wanted]
            if found:
                taken += [(held, header, task) for held, _, header, task in found]
                kept = [call for call in waiting if call[3][0] not in wanted]
                waiting.clear()
                waiting.extend(kept)
        return taken
