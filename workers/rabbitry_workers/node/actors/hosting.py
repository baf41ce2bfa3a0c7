"""Hosting: an executor becomes the process of an actor.

What is authoritative: the actor's record in Redis (`rabbitry_broker.store.actors`). A node may trust its own memory of
an actor as long as the actor's process lives and its epoch is current; everything else is asked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from rabbitry.core.failures import death_record
from rabbitry_broker import queue_names as names
from rabbitry_broker import records
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.messages import Task
from rabbitry_broker.queues.protocol import Consumer
from rabbitry_broker.resources import ResourceRequest
from rabbitry_broker.signing import ForgedMessage
from rabbitry_broker.store.actors import DEAD, PENDING, RESTARTING, ActorRecords
from rabbitry_workers.channel import ACTOR
from rabbitry_workers.node.actors.burials import Burials
from rabbitry_workers.node.actors.call_order import CallOrder
from rabbitry_workers.node.actors.calls import ActorCalls
from rabbitry_workers.node.actors.ends import Ends
from rabbitry_workers.node.actors.hosted import PREFETCH, ActorTable, Hosted, together
from rabbitry_workers.node.model.lanes import Executor, State
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Cancels, Settle
from rabbitry_workers.node.model.work import Piece

AGAIN_SECONDS: Final = 1.0  # until the next try to say that an actor is alive
PREFETCH_WHILE_LOST: Final = 1000  # of an actor whose last process was lost with its node

log = logging.getLogger("rabbitry.node")


class Hosting:
    """Loop thread only.

    Args:
        node: this one.
        table: the actors of this node.
        records: what is authoritative about actors.
        burials: of the dead.
        consumer: of actors' queues.
        settle: of deliveries.
        cancelling: knows what was cancelled.
        calls: to actors.
        ends: of actors that are not to be hosted.
        on_room: called when resources became free.
    """

    def __init__(
        self,
        node: Node,
        table: ActorTable,
        records: ActorRecords,
        burials: Burials,
        consumer: Consumer,
        settle: Settle,
        cancelling: Cancels,
        calls: ActorCalls,
        ends: Ends,
        on_room: Callable[[], None],
    ) -> None:
        self._node = node
        self._table = table
        self._records = records
        self._burials = burials
        self._consumer = consumer
        self._settle = settle
        self._cancelling = cancelling
        self._calls = calls
        self._ends = ends
        self._on_room = on_room
        self.on_creation: Callable[[Hosted, bytes | None], object] = self._untold
        self.on_named: Callable[[Executor], object] = lambda _: None

    def _untold(self, hosted: Hosted, error: bytes | None) -> None:
        """Nobody wants to know."""

    def host(self, executor: Executor, piece: Piece, task: Task) -> bool:
        """Make `executor` the host of the actor that `task` creates; False if there is nothing to host."""
        header = piece.header
        actor_id = header.actor
        if actor_id in self._table.hosted:
            self._second_copy(piece, task, answered=self._table.hosted[actor_id].epoch == 1)
            return False
        state, epoch, restarts, owner, lost = self._records.start(actor_id, self._node.id)
        if state in (DEAD, "", "DUPLICATE"):
            if state == "DUPLICATE":
                self._second_copy(piece, task, answered=False)
                self._ends.give_up(actor_id, self._table.waiting.pop(actor_id, ()))
            else:
                cause = self._records.cause(actor_id)
                record = records.ERROR + (
                    cause or death_record("", actor_id, "The actor is dead because it was killed before it started.")
                )
                self._ends.answer_creation(piece.held, header, task, record)
                self._ends.fail_waiting(actor_id, record)
                if actor_id not in self._burials.graves:
                    self._consumer.abandon(names.actor_queue(actor_id))  # what comes is another node's to answer
            return False
        hosted = Hosted(executor, header, task, piece.held, epoch, owner)
        if lost and hosted.spec.durable and not hosted.spec.out_of_order:
            self._keep_order(actor_id, hosted)
        self._table.hosted[actor_id] = hosted
        if restarts:
            self._table.restarting[actor_id] = hosted.fails_while_restarting()
        executor.actor = actor_id
        executor.last_name = hosted.spec.short_name
        executor.creation = (task[0], hosted.spec.short_name)
        executor.move(State.ACTOR)
        gpus = list(executor.grant.gpu_ids) if executor.grant is not None else []
        executor.send([ACTOR, piece.header_bytes, task, gpus, epoch, restarts])
        self.on_creation(hosted, None)
        for held, header_bytes, call_header, calls in together(self._table.waiting.pop(actor_id, ())):
            left = self._calls.first_copies(hosted, held, call_header, calls)
            cancelled: list[Task] = []
            if self._cancelling.known:
                try:
                    left = self._cancelling.without_cancelled(held, call_header, left, outstanding=True)
                except RabbitryBrokerError as error:
                    # These have been taken out of where they waited: the process is told, and answers for them.
                    log.warning("calls of actor %s are cancelled by its process: %s", actor_id.hex(), error)
                    cancelled = [call for call in left if call[0] in self._cancelling.known]
            self._calls.send(hosted, held, header_bytes, call_header, left)
            for call in cancelled:
                self._calls.cancel(executor, call[0])
        # Behind those that waited: they were handed out before, and are to run.
        hosted.saw_before(self._table.seen.pop(actor_id, {}))
        queue = names.actor_queue(actor_id)
        self._burials.graves.pop(actor_id, None)
        # Early calls are not acknowledged, and what they wait for must come all the same.
        prefetch = PREFETCH if hosted.order is None else PREFETCH_WHILE_LOST
        self._consumer.subscribe(queue, prefetch=prefetch, exclusive=True)
        return True

    def _second_copy(self, piece: Piece, task: Task, *, answered: bool) -> None:
        """The message that creates an actor came once more: the actor has a process.

        Args:
            piece: of the message.
            task: the creation.
            answered: that process, or this node at its end, tells who created the actor. One that was started again
                does not, and the node that has it, or had it, may be gone with the first.
        """
        if answered:
            self._settle(piece.held, 1)
        else:
            self._ends.answer_creation(piece.held, piece.header, task, records.ACTOR + piece.header.actor)

    def _keep_order(self, actor_id: bytes, hosted: Hosted) -> None:
        try:
            hosted.order = CallOrder(self._records.applied(actor_id))
        except ForgedMessage:
            return  # the process will find out, and say so

        def end() -> None:
            order, hosted.order = hosted.order, None
            if order is not None and self._table.hosted.get(actor_id) is hosted:
                for call in order.clear():
                    self._calls.send_early(hosted, call)

        self._node.loop.call_later(self._node.endpoint.traits.lost_come_back, end)

    def on_created(self, executor: Executor, error: bytes, label: str) -> None:
        """The constructor ended; what the process prints is marked with a label from now on, if it has one."""
        executor.last_name = label or executor.last_name
        self.on_named(executor)
        self.created(executor, error)

    def created(self, executor: Executor, error: bytes) -> None:
        """The constructor ended."""
        hosted = self._table.hosted.get(executor.actor)
        if hosted is None:
            return
        self.on_creation(hosted, error)
        if hosted.creation is not None:
            self._settle(hosted.creation, 1)
            hosted.creation = None
        if error:
            hosted.cause = error
            hosted.final = True  # a constructor that raised would raise again: no restart, as in Ray
            return
        hosted.alive = True
        self._table.restarting.pop(executor.actor, None)
        self._alive(hosted)
        running = ResourceRequest.parse(hosted.spec.running)
        if executor.grant is not None and running != executor.grant.request:
            ledger = executor.grant.ledger
            ledger.release(executor.grant)
            executor.grant = ledger.force_acquire(running)
            self._on_room()

    def _alive(self, hosted: Hosted) -> None:
        executor = hosted.executor
        if self._table.hosted.get(executor.actor) is not hosted:
            return
        try:
            self._records.alive(executor.actor, hosted.epoch, executor.pid)
        except RabbitryBrokerError as error:
            log.warning("cannot yet tell that actor %s is alive: %s", executor.actor.hex(), error)
            self._node.loop.call_later(AGAIN_SECONDS, lambda: self._alive(hosted))

    def awaits_creation(self, actor_id: bytes) -> bool:
        """True if the actor has no process now, and is to get one."""
        ((state, _),) = self._records.states([actor_id])
        return state in (PENDING, RESTARTING)

    def drain(self) -> None:
        """The node leaves: hosted actors finish the calls that they have, and get no more."""
        for actor_id in [*self._table.hosted, *self._table.waiting]:
            self._consumer.unsubscribe(names.actor_queue(actor_id))
