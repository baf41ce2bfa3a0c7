"""Looks after actors every few seconds: those whose owner is gone, those of dead nodes, the queues of the dead."""

from __future__ import annotations

import logging
import time
from typing import Final

from rabbitry.core.failures import death_record, owner_gone_cause
from rabbitry_broker import records
from rabbitry_broker.errors import ConnectionLost, RabbitryBrokerError, StoreError, is_wrong_type
from rabbitry_broker.store.actors import DEAD, RESTARTING, ActorRecords
from rabbitry_workers.node.actors.burials import Burials
from rabbitry_workers.node.actors.ends import Ends
from rabbitry_workers.node.actors.hosted import ActorTable
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Publishes
from rabbitry_workers.node.services.turns import actors_turn, takes_turn

DOUBT_SECONDS: Final = 20.0  # after a silence: whoever found our lease ended before we spoke again has acted by then
WATCH_SECONDS: Final = 2.0
SLICE_SECONDS: Final = 0.02  # of the loop's time for each step of a look; what is left is done `MORE_SECONDS` later
MORE_SECONDS: Final = 0.05
CALLERS_SECONDS: Final = 60.0
AGAIN_SECONDS: Final = 1.0  # until the next try to take over an actor of a dead node

log = logging.getLogger("rabbitry.node")


class Recovery:
    """Service on the agent's loop: `start`, `run_once`.

    Args:
        node: this one.
        table: the actors of this node.
        records: what is authoritative about actors.
        burials: of the dead.
        ends: of actors.
        publishing: of creations.
    """

    def __init__(
        self,
        node: Node,
        table: ActorTable,
        records: ActorRecords,
        burials: Burials,
        ends: Ends,
        publishing: Publishes,
    ) -> None:
        self._node = node
        self._table = table
        self._records = records
        self._burials = burials
        self._ends = ends
        self._publishing = publishing
        self._doubted_until = 0.0
        self._more_to_do = False  # the last look had no time for all
        self._callers_seen_at = 0.0

    def start(self) -> None:
        """Watch owners and dead nodes from now on."""
        self._node.loop.call_later(WATCH_SECONDS, self._tick)

    def _tick(self) -> None:
        try:
            self.run_once()
        except RabbitryBrokerError as error:
            log.warning("watching actors failed: %s", error)
        except Exception:
            log.exception("watching actors failed")
        finally:
            self._node.loop.call_later(
                MORE_SECONDS if self._more_to_do else self._node.periodic.pause(WATCH_SECONDS), self._tick
            )

    def doubt(self) -> None:
        """This node was silent for longer than its lease: others may be taking its actors over just now."""
        self._doubted_until = time.monotonic() + DOUBT_SECONDS
        self._end_taken_over()

    def listens_again(self) -> None:
        """This node may have missed that somebody killed an actor: end those of which the record says so."""
        mine = list(self._table.hosted.items())
        if not mine:
            return
        try:
            kills = self._records.kills([actor_id for actor_id, _ in mine])
        except RabbitryBrokerError as error:
            log.warning("cannot tell now which actors were killed meanwhile: %s", error)
            self._node.loop.call_later(AGAIN_SECONDS, self.listens_again)
            return
        for (actor_id, hosted), (epoch, no_restart, cause) in zip(mine, kills, strict=True):
            if epoch == b"%d" % hosted.epoch and not hosted.cause:
                self._ends.kill(actor_id, no_restart=no_restart, cause=cause)

    def _end_taken_over(self) -> None:
        """Kill the processes of actors that are no longer this node's, before they take more calls."""
        mine = list(self._table.hosted.items())
        keys = self._node.keys
        nodes = self._node.store.pipeline([(b"HGET", keys.actor(actor_id), "node") for actor_id, _ in mine])
        for (actor_id, hosted), node in zip(mine, nodes, strict=True):
            if node != self._node.id:
                log.warning("actor %s was taken over: its process here ends", actor_id.hex())
                hosted.executor.dismissed = "its actor was taken over by another node"
                hosted.executor.kill()

    def run_once(self) -> None:
        """End actors whose owner is gone; take over those of dead nodes; delete queues of the dead."""
        if time.monotonic() < self._doubted_until:
            self._end_taken_over()
        if self._node.store.trusts_leases(self._node.config.client_lease):
            self._end_orphans()
            self._forget_callers()
        if self._node.store.trusts_leases(self._node.config.lease):
            self._recover()
        self._burials.run_once()

    def _end_orphans(self) -> None:
        mine = [(actor_id, hosted) for actor_id, hosted in self._table.hosted.items() if not hosted.detached]
        if not mine:
            return
        owners = list({hosted.owner for _, hosted in mine})
        store, keys = self._node.store, self._node.keys
        alive = dict(zip(owners, store.pipeline([(b"EXISTS", keys.client(owner)) for owner in owners]), strict=True))
        for actor_id, hosted in mine:
            if not alive[hosted.owner]:
                self._ends.kill(actor_id, no_restart=True, cause=owner_gone_cause(actor_id))

    def _forget_callers(self) -> None:
        """Forget which calls came of callers that have been gone for two looks: a long life has many of them."""
        now = time.monotonic()
        if now - self._callers_seen_at < CALLERS_SECONDS:
            return
        self._callers_seen_at = now
        store, keys = self._node.store, self._node.keys
        for hosted in self._table.hosted.values():
            callers = list(hosted.seen)
            alive = store.pipeline([(b"EXISTS", keys.client(caller)) for caller in callers])
            absent = {caller for caller, lives in zip(callers, alive, strict=True) if not lives}
            for caller in absent & hosted.absent:
                del hosted.seen[caller]
            hosted.absent = absent

    def _recover(self) -> None:
        """Actors whose node's lease ended: restart them somewhere, or bury them here."""
        store, keys = self._node.store, self._node.keys
        goes_on, self._more_to_do = self._more_to_do, False
        if not goes_on and not takes_turn(store, actors_turn(keys), self._node.id, WATCH_SECONDS, self._node.turns):
            return
        self._take_over_burials()
        ids = [actor_id for actor_id in self._records.ids() if actor_id not in self._table.hosted]
        if not ids:
            return
        wanted = ("state", "node", "epoch", "class", "keeper", "owner", "detached")
        try:
            facts = store.pipeline([(b"HMGET", keys.actor(each), *wanted) for each in ids])
        except StoreError as error:
            if is_wrong_type(error):
                self._clear_wrong_types(ids)
            raise
        # RESTARTING, without a node: its creation was in the memory of the keeper, or is on a queue. Of two creations
        # the second one starts nothing.
        self._end_unborn(list(zip(ids, facts, strict=True)))
        nodes = list({node or keeper for _, node, _, _, keeper, *_ in facts} - {None, b"", self._node.id})
        living = store.pipeline([(b"EXISTS", keys.node(node)) for node in nodes])
        dead = {node for node, lives in zip(nodes, living, strict=True) if not lives}
        until = time.monotonic() + SLICE_SECONDS
        for actor_id, (state, node, epoch, class_name, keeper, *_) in zip(ids, facts, strict=True):
            if time.monotonic() > until:
                self._more_to_do = True
                return
            node = node or keeper
            if not state or state == DEAD.encode() or node not in dead:
                continue
            try:
                self._lost_its_node(actor_id, node, class_name or b"", epoch or b"0")
            except ValueError as error:  # a field that nobody signs is nonsense: the others are recovered
                self._node.store.put_aside(f"actor {actor_id.hex()}", b"", str(error))

    def _take_over_burials(self) -> None:
        """Bury the dead of nodes that are gone."""
        try:
            orphaned = self._burials.orphaned()
        except StoreError as error:
            if is_wrong_type(error):
                self._clear_wrong_types(self._records.burials())
            raise
        for actor_id, record in orphaned:
            self._ends.bury(actor_id, record)

    def _end_unborn(self, actors: list[tuple[bytes, list[bytes | None]]]) -> None:
        """Bury actors that were killed, or whose owner is gone, while they had no process.

        What was to create them may never arrive anywhere.
        """
        store, keys = self._node.store, self._node.keys
        for actor_id, (state, *_) in actors:
            if state == DEAD.encode():
                self._ends.bury(actor_id, self._burials.adopt(actor_id))
            elif not state:
                self._records.forget(actor_id)
        if not store.trusts_leases(self._node.config.client_lease):
            return
        unborn = [
            (actor_id, owner)
            for actor_id, (state, node, _, _, _, owner, detached) in actors
            if state and state != DEAD.encode() and not node and owner and detached != b"1"
        ]
        alive = store.pipeline([(b"EXISTS", keys.client(owner)) for _, owner in unborn])
        until = time.monotonic() + SLICE_SECONDS
        for (actor_id, _), lives in zip(unborn, alive, strict=True):
            if not lives:
                self._ends.refuse(actor_id, owner_gone_cause(actor_id))
                if time.monotonic() > until:
                    self._more_to_do = True  # there may be thousands, at some round trips each
                    return

    def _clear_wrong_types(self, actor_ids: list[bytes]) -> None:
        """Somebody else wrote in the place of an actor's record, in another type: it goes, and with it the actor."""
        store, keys = self._node.store, self._node.keys
        for actor_id in actor_ids:
            try:
                self._records.fields(actor_id, "state")
            except StoreError as error:
                if not is_wrong_type(error):
                    raise
                store.call(b"UNLINK", keys.actor(actor_id))
                self._records.forget(actor_id)
                store.put_aside(f"actor {actor_id.hex()}", b"", str(error))

    def _lost_its_node(self, actor_id: bytes, node: bytes, class_name: bytes, epoch: bytes) -> None:
        name = class_name.decode("utf-8", "replace")
        cause = death_record(name, actor_id, "The actor is dead because its node has died.", node_id=node.hex())
        try:
            now, frame, queue = self._ends.end(actor_id, final=False, cause=cause, epoch=int(epoch), lost=True)
        except ConnectionLost:
            # This node may be its keeper now, and no other would see to it.
            again = AGAIN_SECONDS
            self._node.loop.call_later(again, lambda: self._lost_its_node(actor_id, node, class_name, epoch))
            raise
        log.warning("actor %s lost its node: %s", actor_id.hex(), now)
        if now == RESTARTING:
            self._publishing.publish(queue, frame, 0)
        elif now == DEAD:
            self._ends.bury(actor_id, records.ERROR + cause)
