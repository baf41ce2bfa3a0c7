"""The ends of actors' processes: restarted, buried, or left to another node that has taken the actor over.

process ends --> record says --+-- RESTARTING: what may be tried again waits, the rest fails; created again
+-- DEAD -----: all of it fails with the cause; buried (see `burials`)
'-- STALE ----: another node has it: what may be tried again goes there
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from rabbitry.core.failures import death_record, handles_gone_cause, process_ended
from rabbitry.core.submit.plans import END_METHOD
from rabbitry.exceptions import ActorUnavailableError, store_error
from rabbitry_broker import queue_names as names
from rabbitry_broker import records
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import FIRST_INDEX
from rabbitry_broker.messages import (
    KIND_ACTOR_CREATION,
    MalformedMessage,
    Task,
    TaskHeader,
    decode_frames,
    decode_header,
    encode_frame,
)
from rabbitry_broker.queues.protocol import Consumer
from rabbitry_broker.store.actors import DEAD, RESTARTING, STALE, ActorRecords
from rabbitry_workers.executor.calls import result_ids
from rabbitry_workers.node.actors.burials import Burials
from rabbitry_workers.node.actors.call_order import Call
from rabbitry_workers.node.actors.hosted import ActorTable, Hosted, attempts_after, together, unavailable
from rabbitry_workers.node.model.lanes import Executor
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Commits, Failed, Fails, Publishes, Settle
from rabbitry_workers.node.model.work import Chunk, Held, Piece

AGAIN_SECONDS: Final = 1.0  # until the next try to take in the end of an actor's process
GRACEFUL: Final = frozenset(("exit_actor", "sys.exit"))

LostCall = tuple[Chunk, Task, bool, bool]
"""A call that a process had when it ended, with: it had begun, it was running."""

log = logging.getLogger("rabbitry.node")


class Ends:
    """Loop thread only.

    Args:
        node: this one.
        table: the actors of this node.
        records: what is authoritative about actors.
        burials: of the dead.
        consumer: of actors' queues.
        settle: of deliveries.
        commits: of results and errors.
        publishing: of what goes back to queues.
        failing: of calls.
        enqueue: takes a creation as work for this node.
        forget_custody: of a delivery whose queue takes it back.
        last_words: returns what an error quotes of a process's output.
    """

    def __init__(
        self,
        node: Node,
        table: ActorTable,
        records: ActorRecords,
        burials: Burials,
        consumer: Consumer,
        settle: Settle,
        commits: Commits,
        publishing: Publishes,
        failing: Fails,
        enqueue: Callable[[Piece], None],
        forget_custody: Callable[[Held], None],
        last_words: Callable[[Executor], str],
    ) -> None:
        self._node = node
        self._table = table
        self._records = records
        self._burials = burials
        self._consumer = consumer
        self._settle = settle
        self._commits = commits
        self._publishing = publishing
        self._failing = failing
        self._enqueue = enqueue
        self._forget_custody = forget_custody
        self._last_words = last_words

    def kill(self, actor_id: bytes, *, no_restart: bool, cause: bytes) -> None:
        """Somebody called `kill`."""
        hosted = self._table.hosted.get(actor_id)
        if hosted is None:
            return
        hosted.final = hosted.final or no_restart
        hosted.cause = hosted.cause or cause
        hosted.executor.dismissed = "its actor was ended"
        hosted.executor.kill()

    def gone(self, executor: Executor) -> None:
        """An actor's process ended: what now?"""
        actor_id = executor.actor
        hosted = self._table.hosted.pop(actor_id)
        reason = executor.leaving
        graceful = reason in GRACEFUL
        cause = hosted.cause or death_record(
            hosted.spec.class_name,
            actor_id,
            process_ended(
                "It exited by itself."
                if graceful
                else f"It ended unexpectedly ({reason or 'crashed'}).{self._last_words(executor)}",
                intended=graceful,
            ),
            pid=executor.pid,
            name=hosted.spec.name,
            node_id=self._node.id.hex(),
        )
        hosted.final = hosted.final or graceful
        started = executor.progress.started[0]
        lost = deque(
            (chunk, task, sequence < started, sequence == started - 1)
            for chunk in executor.chunks
            for sequence, task in chunk.left()
        )
        if hosted.order is not None:
            for held, header_bytes, header, task in hosted.order.clear():
                piece = Piece(held, header_bytes, header, deque())
                lost.append((Chunk(piece, executor.next_sequence, [task]), task, False, False))
        executor.chunks.clear()
        if not hosted.spec.durable:  # else its next process knows which took effect
            self._table.seen[actor_id] = hosted.seen
        self._take_in_end(actor_id, hosted, cause, lost)

    def _take_in_end(self, actor_id: bytes, hosted: Hosted, cause: bytes, lost: deque[LostCall]) -> None:
        """Restart it or bury it, as its record says. Until that can be read, calls wait as for one that restarts."""
        try:
            self._go_on(actor_id, hosted, cause, lost)
        except RabbitryBrokerError as error:
            log.warning("cannot yet tell what becomes of actor %s: %s", actor_id.hex(), error)
            self._node.loop.call_later(AGAIN_SECONDS, lambda: self._take_in_end(actor_id, hosted, cause, lost))

    def _go_on(self, actor_id: bytes, hosted: Hosted, cause: bytes, lost: deque[LostCall]) -> None:
        """What it does is done once, though it is called again after an error: `lost` is what is left of the calls."""
        still_lost = hosted.order is not None
        if lost and not hosted.final and all(chunk.header.method == END_METHOD for chunk, *_ in lost):
            hosted.final = True  # nobody has a handle, and nothing is left to do for the next process
            cause = hosted.cause = handles_gone_cause(actor_id)
        state, frame, queue = self.end(actor_id, final=hosted.final, cause=cause, epoch=hosted.epoch, lost=still_lost)
        if hosted.creation is not None:
            if state == STALE:
                self._settle(hosted.creation, 1)
            else:
                # The constructor did not end, so its process told nobody, and the next one will not.
                outcome = records.ERROR + cause if state == DEAD else records.ACTOR + actor_id
                self.answer_creation(hosted.creation, hosted.header, hosted.task, outcome)
            hosted.creation = None
        if state == RESTARTING:
            waiting = self._table.waiting.setdefault(actor_id, deque())
            refusal = unavailable(actor_id, hosted.executor.leaving)
            self._table.restarting[actor_id] = hosted.fails_while_restarting()
            stands = {} if hosted.spec.durable else self._results(lost)
            failed: list[Failed] = []
            while lost:
                chunk, task, begun, culprit = lost[0]
                header = chunk.header
                if task[0] in stands:
                    key, answer = stands[task[0]]
                    self._commits.commit(chunk.held, header, [key, answer], [task[0]], stands=True)
                    self._settle(chunk.held, 1)
                    lost.popleft()
                    continue
                # As in Ray, what had not begun is lost too: it was sent to this process.
                sent = hosted.alive and header.method != END_METHOD
                attempts = attempts_after(hosted, header, task, sent=sent, begun=begun, running=culprit)
                if attempts is not None:
                    again = (task[0], task[1], attempts, task[3], task[4], task[5])
                    waiting.append((chunk.held, chunk.header_bytes, header, again))
                else:
                    failed.append((chunk.held, header, task, refusal))
                lost.popleft()
            self._failing.add(failed)
            self._restart(actor_id, frame, queue)
        elif state == STALE:
            self._lose(actor_id, hosted, lost)
        else:
            record = records.ERROR + cause
            self._failing.add((chunk.held, chunk.header, task, record) for chunk, task, _, _ in lost)
            lost.clear()
            self.bury(actor_id, record)

    def answer_creation(self, held: Held, header: TaskHeader, task: Task, record: bytes) -> None:
        """Tell who created an actor what came of that, unless its process did before it ended."""
        (stands,) = self._node.store.fetch([task[0] + FIRST_INDEX])
        if stands is None:
            # Of a detached actor nobody would ever delete the object; its record says how it fares.
            self._commits.commit(held, header, [] if header.lifetime else [task[0] + FIRST_INDEX, record], [task[0]])
        self._settle(held, 1)

    def _results(self, lost: Iterable[LostCall]) -> dict[bytes, tuple[bytes, bytes]]:
        """Return (id, record) of the last result of those calls that were committed, by call.

        Their process died before it told. Whoever made them has the results: they must not be run again.
        """
        finals = {
            task[0]: ids[-1]
            for chunk, task, begun, _ in lost
            if begun and (ids := result_ids(task[0], chunk.header.num_returns))
        }
        found = zip(finals.items(), self._node.store.fetch(list(finals.values())), strict=True)
        return {task_id: (key, record) for (task_id, key), record in found if record is not None}

    def end(
        self, actor_id: bytes, *, final: bool, cause: bytes, epoch: int | None, lost: bool = False
    ) -> tuple[str, bytes, str]:
        """Record the end of an actor's process; returns the state it leads to, the creation's message and its queue."""
        keeper = self._node.id
        return self._records.end(actor_id, final=final, cause=cause, epoch=epoch, keeper=keeper, lost=lost)

    def _lose(self, actor_id: bytes, hosted: Hosted, lost: deque[LostCall]) -> None:
        """Another node has the actor: what may have begun here and may begin only once fails, the rest goes there."""
        record = records.ERROR + store_error(ActorUnavailableError("another node has taken it over", actor_id))
        left: list[Call] = []
        failed: list[Failed] = []
        for chunk, task, begun, _ in lost:
            if attempts_after(hosted, chunk.header, task, sent=begun, begun=begun, running=False) is None:
                failed.append((chunk.held, chunk.header, task, record))
            else:
                left.append((chunk.held, chunk.header_bytes, chunk.header, task))
        lost.clear()
        self._failing.add(failed)
        self.give_up(actor_id, left)

    def give_up(self, actor_id: bytes, calls: Iterable[Call]) -> None:
        """Another node has the actor: its queue takes back what it brought here, as if this node had died."""
        self._table.restarting.pop(actor_id, None)
        self._table.seen.pop(actor_id, None)
        queue = names.actor_queue(actor_id)
        for held, header_bytes, header, successive in together(calls):
            if held.custody or held.local:
                self._publish_again(queue, held, header_bytes, header, successive)
            else:
                self._forget_custody(held)
        self._consumer.abandon(queue)

    def publish_local(self) -> None:
        """This node leaves: calls that came without the broker and have not begun go to their actors' queues."""
        for actor_id, hosted in self._table.hosted.items():
            executor = hosted.executor
            started = executor.progress.started[0]
            left = [
                (chunk.held, chunk.header_bytes, chunk.header, task)
                for chunk in executor.chunks
                if chunk.held.local
                for sequence, task in chunk.left()
                if sequence >= started
            ]
            self._publish_all_again(names.actor_queue(actor_id), left)

    def _publish_all_again(self, queue: str, calls: Iterable[Call]) -> None:
        for held, header_bytes, header, successive in together(calls):
            self._publish_again(queue, held, header_bytes, header, successive)

    def _publish_again(
        self, queue: str, held: Held, header_bytes: bytes, header: TaskHeader, calls: list[Task]
    ) -> None:
        self._publishing.publish(
            queue,
            encode_frame(self._node.signer, header_bytes, calls),
            header.priority,
            lambda: self._node.loop.add_callback(lambda: self._settle(held, len(calls))),
        )

    def _restart(self, actor_id: bytes, frame: bytes, queue: str) -> None:
        """Put the creation back into this node's lane; if another node has room sooner, it goes there."""
        try:
            for header_bytes, tasks in decode_frames(self._node.signer, frame):
                header = decode_header(header_bytes)
                held = Held(None, queue)
                held.outstanding = len(tasks)
                self._enqueue(Piece(held, header_bytes, header, deque(tasks)))
        except MalformedMessage as error:
            self._node.store.put_aside(f"actor {actor_id.hex()}", frame, str(error))

    def moved_away(self, header: TaskHeader) -> None:
        """A creation was handed back to its queue: the calls kept for it go back too."""
        if header.kind != KIND_ACTOR_CREATION:
            return
        if header.actor in self._table.hosted or header.actor in self._burials.graves:
            return  # it was a second copy of the message: the queue's calls are answered here
        self._table.restarting.pop(header.actor, None)
        self._table.seen.pop(header.actor, None)
        queue = names.actor_queue(header.actor)
        self._consumer.unsubscribe(queue)
        self._publish_all_again(queue, self._table.waiting.pop(header.actor, ()))

    def refuse(self, actor_id: bytes, cause: bytes) -> None:
        """An actor cannot be placed, and never will: it is dead for this cause, and calls on it fail with it."""
        state, _, _ = self.end(actor_id, final=True, cause=cause, epoch=None)
        if state == DEAD:
            self.bury(actor_id, records.ERROR + cause)

    def refuse_creation(self, held: Held, header: TaskHeader, task: Task, cause: bytes) -> None:
        """An actor whose creation this node has cannot be placed; who made it is told, as of any end of a task."""
        self.refuse(header.actor, cause)
        self.answer_creation(held, header, task, records.ERROR + cause)

    def bury(self, actor_id: bytes, record: bytes) -> None:
        """An actor is dead: all calls on it get this record."""
        self._table.restarting.pop(actor_id, None)
        self.fail_waiting(actor_id, record)
        self._burials.add(actor_id, record)

    def fail_waiting(self, actor_id: bytes, record: bytes) -> None:
        """Fail the calls that wait for an actor's next process: there will be none."""
        self._table.seen.pop(actor_id, None)
        waiting = self._table.waiting.pop(actor_id, ())
        self._failing.add((held, header, task, record) for held, _, header, task in waiting)
