"""Intake: takes messages apart into tasks, and tells for each header which part they are for. HOT PATH.

Delivery --decode--> owner known? --> header in order? --+-- call to an actor -----> its host
|                |             +-- comes again -----> redelivery
later again        refused          '-- else ------------> admission
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

from rabbitry.exceptions import TaskUnschedulableError
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.messages import (
    KIND_ACTOR_CALL,
    MalformedMessage,
    Task,
    TaskHeader,
    decode_batches,
)
from rabbitry_broker.queues.protocol import Delivery
from rabbitry_broker.signing import ForgedMessage
from rabbitry_workers.node.intake.headers import fault_of, is_answerable
from rabbitry_workers.node.intake.owners import Owners
from rabbitry_workers.node.intake.sources import Sources
from rabbitry_workers.node.model.life import Life
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Admit, Fails
from rabbitry_workers.node.model.work import Held
from rabbitry_workers.node.outcome.settling import Settling

OWNER_AGAIN_SECONDS: Final = 0.5  # until the next look whether there is an owner of a message
AGAIN_SECONDS: Final = 1.0  # until a message comes again that could not be looked at, since Redis was away

LASTING: Final = (MalformedMessage, ForgedMessage)
"""Errors that lie in what was read: a message that came again would meet them again."""

log = logging.getLogger("rabbitry.node")


class TakesCalls(Protocol):
    """Hands calls to actors' hosts."""

    def redelivered(self, held: Held, header: TaskHeader, tasks: list[Task]) -> list[Task]:
        """Calls that come again: return those that are to be delivered."""

    def deliver(self, held: Held, header_bytes: bytes, header: TaskHeader, tasks: list[Task]) -> None:
        """Hand calls to the actor's host."""


class Watches(Protocol):
    """The node's custody."""

    def watch(self, held: Held) -> None:
        """A delivery was taken."""

    def forget(self, held: Held) -> None:
        """A delivery is given up."""


class Intake:
    """Loop thread only.

    Args:
        node: which takes them.
        life: of the node.
        sources: from which they come.
        owners: knows whose work may be taken.
        settling: of deliveries.
        custody: of those that last long.
        failing: of what no node could run.
        calls: to actors.
        take_later: takes tasks of a message that came again.
        admit: takes all other tasks.
        release: gives a delivery back to its queue.
    """

    def __init__(
        self,
        node: Node,
        life: Life,
        sources: Sources,
        owners: Owners,
        settling: Settling,
        custody: Watches,
        failing: Fails,
        calls: TakesCalls,
        take_later: Admit,
        admit: Admit,
        release: Callable[[Delivery], object],
    ) -> None:
        self._node = node
        self._life = life
        self._sources = sources
        self._owners = owners
        self._settling = settling
        self._custody = custody
        self._failing = failing
        self._calls = calls
        self._take_later = take_later
        self._admit = admit
        self._release = release

    def on_delivery(self, delivery: Delivery) -> None:
        """Take a message apart into pieces of work. HOT PATH."""
        held = Held(delivery)
        self._sources.taken(held)
        self._take(held, delivery)

    def _take(self, held: Held, delivery: Delivery) -> None:
        try:
            try:
                self._take_apart(held, delivery)
            except RabbitryBrokerError:
                raise
            except Exception as error:
                # Left unsettled it would take up room in the window for good.
                log.exception("a message on %s cannot be taken", delivery.queue)
                self._put_aside(held, delivery, repr(error))
        except RabbitryBrokerError as error:
            self._on_trouble(held, delivery, error)

    def _put_aside(self, held: Held, delivery: Delivery, why: str) -> None:
        self._node.store.put_aside(delivery.queue, delivery.body, why)
        self._settling.acknowledge(held)

    def _on_trouble(self, held: Held, delivery: Delivery, error: RabbitryBrokerError) -> None:
        log.warning("cannot take a message on %s now: %s", delivery.queue, error)
        self._node.loop.call_later(AGAIN_SECONDS, lambda: self._give_up(held, delivery))

    def _give_up(self, held: Held, delivery: Delivery) -> None:
        """A message could not be looked at to its end: it comes again, and what was taken of it is recognised then."""
        self._custody.forget(held)
        self._release(delivery)
        self._sources.settled(held)

    def _take_apart(self, held: Held, delivery: Delivery) -> None:
        try:
            batches = decode_batches(self._node.signer, delivery.body)
        except (MalformedMessage, RecursionError) as error:
            log.warning("put aside a message on %s: %s", delivery.queue, error)
            self._put_aside(held, delivery, str(error))
            return
        faults = [fault_of(header_bytes, delivery.queue) for header_bytes, _, _ in batches]
        if not all(
            fault or header.kind == KIND_ACTOR_CALL or self._owners.has_met(header)
            for fault, (_, header, _) in zip(faults, batches, strict=True)
        ):
            again = self._give_up if self._life.draining else self._take
            self._node.loop.call_later(OWNER_AGAIN_SECONDS, lambda: again(held, delivery))
            return
        held.outstanding += 1  # until the whole message is looked at
        nobody_told = ""
        for fault, (header_bytes, header, tasks) in zip(faults, batches, strict=True):
            before = held.outstanding
            try:
                if not fault:
                    self._take_tasks(held, delivery, header_bytes, header, tasks)
            except Exception as error:
                if isinstance(error, RabbitryBrokerError) and not isinstance(error, LASTING):
                    raise
                # A message that was kept would take up room here for good, and then at the next node.
                log.exception("tasks on %s cannot be taken", delivery.queue)
                held.outstanding = before
                fault = repr(error)
            if fault and not self._refuse(held, delivery, header, tasks, fault):
                nobody_told = nobody_told or fault
        if nobody_told:
            self._node.store.put_aside(delivery.queue, delivery.body, nobody_told)  # once, whatever is in it
        self._custody.watch(held)
        self._settling.settle(held, 1)

    def _take_tasks(
        self, held: Held, delivery: Delivery, header_bytes: bytes, header: TaskHeader, tasks: list[Task]
    ) -> None:
        if header.kind == KIND_ACTOR_CALL:
            if delivery.redelivered:
                tasks = self._calls.redelivered(held, header, tasks)
            if tasks:
                self._calls.deliver(held, header_bytes, header, tasks)
        elif delivery.redelivered:
            self._take_later(held, header_bytes, header, tasks)
        else:
            self._admit(held, header_bytes, header, tasks)

    def _refuse(self, held: Held, delivery: Delivery, header: TaskHeader, tasks: list[Task], fault: str) -> bool:
        """No node could act on these tasks: they fail. Returns False if there is nobody to be told."""
        log.warning("refused tasks on %s: %s", delivery.queue, fault)
        if not is_answerable(header):
            return False
        held.outstanding += len(tasks)
        self._failing.fail_tasks(held, header, tasks, TaskUnschedulableError(f"No node can run it: {fault}."))
        return True
