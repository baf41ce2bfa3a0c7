"""What a node does for placement groups that hold bundles here: it sets them aside, confirms, and lets go.

group-planned --> set aside --confirm--+-- the last one --> the group stands: who waits for it is told
                       |               '-- others are missing: group-stands says when it does
                       '-- no room: refused

What a message would have said, the record says too: every `LOOK_SECONDS` what is here is compared with it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rabbitry.core.failures import death_record
from rabbitry.exceptions import TaskPlacementGroupRemoved, store_error
from rabbitry_broker import records as record_kinds
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.queue_names import QueueName
from rabbitry_broker.resources import ResourceRequest
from rabbitry_broker.store.groups import CREATED, PREPARED, REMOVED, Group, GroupRecords
from rabbitry_workers.node.groups.bundles import Bundle, Bundles, BundleState
from rabbitry_workers.node.model.lanes import Executor
from rabbitry_workers.node.model.node import Node

LOOK_SECONDS: Final = 2.0
CLOSING_SECONDS: Final = 0.02  # between two looks whether what ran in a closing bundle has ended
LIVING_SECONDS: Final = 10.0  # that a group is taken to be there whose end was not told
GONE_KEPT: Final = 10_000

log = logging.getLogger("rabbitry.node")


class Keeping:
    """Service on the agent's loop: `start`, `run_once`.

    Args:
        node: this one.
        bundles: that are here.
        records: of groups.
        executors: all that are alive, by the process's number.
        commit: stores a record where somebody waits for it: (object id, record).
        kill_actor: ends an actor's process: (actor id, without a restart, stored error that says why).

    Attributes:
        keep: keeps room on this node for a group.
        drop: keeps none any more.
        on_change: called with a group whose bundles have come or gone here.
        on_room: called when resources became free.
        clear_lanes: sees to what waits for bundles that are not here any more.
    """

    keep: Callable[[bytes, Sequence[ResourceRequest]], None]
    drop: Callable[[bytes], None]
    on_change: Callable[[bytes], None]
    on_room: Callable[[], None]
    clear_lanes: Callable[[], None]

    def __init__(
        self,
        node: Node,
        bundles: Bundles,
        records: GroupRecords,
        executors: Mapping[int, Executor],
        commit: Callable[[bytes, bytes], None],
        kill_actor: Callable[[bytes, bool, bytes], None],
    ) -> None:
        self._node = node
        self._bundles = bundles
        self._records = records
        self._executors = executors
        self._commit = commit
        self._kill_actor = kill_actor
        self._gone: dict[bytes, None] = {}
        self._living: dict[bytes, float] = {}  # groups whose queues this node met, and until when that is believed
        self._waits = False
        self._leaving = False

    def start(self) -> None:
        """Look after bundles from now on."""
        self._node.periodic.every(LOOK_SECONDS, self.run_once, "cannot look after placement groups")

    # -- what others ask ---------------------------------------------------------------------------------------------

    def serves(self, place: QueueName) -> bool:
        """True if work for this bundle can run here, now or as soon as its group stands."""
        return self._bundles.serves(place)

    def has_room(self, place: QueueName) -> bool:
        """True if there is something free in a bundle here that this queue is for."""
        return self._bundles.has_room(place)

    def slots(self, place: QueueName) -> int:
        """Return how many tasks may run at a time in the bundles here that this queue is for, about."""
        return self._bundles.slots(place)

    def is_gone(self, group: bytes) -> bool:
        """True if that group was removed, or never was."""
        if group in self._gone:
            return True
        now = time.monotonic()
        if self._living.get(group, 0.0) > now:
            return False
        if self._records.state(group) not in ("", REMOVED):
            self._living[group] = now + LIVING_SECONDS
            return False
        self._is_gone(group)
        return True

    def _is_gone(self, group: bytes) -> None:
        self._living.pop(group, None)
        self._gone[group] = None
        while len(self._gone) > GONE_KEPT:
            del self._gone[next(iter(self._gone))]

    # -- plans -------------------------------------------------------------------------------------------------------

    def on_planned(self, group: bytes, token: bytes, wanted: Sequence[tuple[bytes, Sequence[tuple[int, str]]]]) -> None:
        """A plan was made; this node may be in it."""
        for node, asked in wanted:
            if node == self._node.id:
                self._confirm(group, token, {index: ResourceRequest.parse(each) for index, each in asked})

    def on_kept(self, group: bytes, wanted: Sequence[tuple[bytes, Sequence[tuple[int, str]]]]) -> None:
        """A group waits for long: what it needs here is to be kept for it as it becomes free."""
        for node, asked in wanted:
            if node == self._node.id and not self._leaving:
                self.keep(group, [ResourceRequest.parse(each) for _, each in asked])

    def _confirm(self, group: bytes, token: bytes, wanted: Mapping[int, ResourceRequest]) -> None:
        held = not self._leaving and self.reserve(group, token, wanted)
        try:
            answer, ready = self._records.confirm(group, token, self._node.id, list(wanted), held=held)
        except RabbitryBrokerError as error:
            log.warning("cannot confirm bundles of placement group %s now: %s", group.hex(), error)
            return  # the planner gives this plan up, and the next look here finds that it has
        if answer == CREATED:
            self.stands(group, ready)
        elif answer != PREPARED:
            self.on_dropped(group, token)

    def reserve(self, group: bytes, token: bytes, wanted: Mapping[int, ResourceRequest]) -> bool:
        """Set bundles aside: all of them, or none."""
        stale = [bundle for bundle in self._bundles.of(group) if bundle.index in wanted and bundle.token != token]
        if stale:
            self._close(group, stale, removed=False)
        reserved = self._bundles.reserve(group, token, wanted)
        if reserved:
            self.drop(group)
        return reserved

    def on_dropped(self, group: bytes, token: bytes) -> None:
        """A plan comes to nothing."""
        asked = [
            bundle
            for bundle in self._bundles.of(group)
            if bundle.token == token and bundle.state is BundleState.RESERVED
        ]
        if asked:
            self._close(group, asked, removed=False)

    def stands(self, group: bytes, ready: Sequence[tuple[bytes, bytes]]) -> None:
        """A group stands: what runs inside may begin, and who waits for it is told."""
        self.on_stands(group)
        self.tell(group, ready)

    def on_stands(self, group: bytes) -> None:
        """A group stands."""
        if self._bundles.hold(group):
            self.on_change(group)
            self.on_room()

    def tell(self, group: bytes, ready: Sequence[tuple[bytes, bytes]]) -> None:
        """Give objects the records that they wait for; what is left undone the planner does."""
        for object_id, record in ready:
            self._commit(object_id, record)
        self._records.told(group, [object_id for object_id, _ in ready])

    def tell_of_end(self, group: bytes) -> None:
        """Who waits for a group that was removed is told so."""
        gone = record_kinds.ERROR + store_error(TaskPlacementGroupRemoved())
        self.tell(group, [(object_id, gone) for object_id, _ in self._records.waiters(group)])
        self._records.all_told(group)

    # -- ends --------------------------------------------------------------------------------------------------------

    def on_ended(self, group: bytes) -> None:
        """A group was removed: what runs inside ends, what waits fails."""
        self._is_gone(group)
        self.drop(group)
        self._close(group, self._bundles.of(group), removed=True)
        self.on_change(group)

    def _close(self, group: bytes, bundles: Sequence[Bundle], *, removed: bool) -> None:
        closing = self._bundles.close(bundles)
        for bundle in closing:
            self._end_inside(bundle, removed=removed)
        if bundles:
            self.on_change(group)
            if len(closing) < len(bundles):
                self.on_room()
        self._look_at_closing()

    def _end_inside(self, bundle: Bundle, *, removed: bool) -> None:
        for executor in list(self._executors.values()):
            if executor.grant is None or executor.grant.ledger is not bundle.ledger:
                continue
            if executor.actor:
                why = "Its placement group was removed." if removed else "Its bundle is not on this node any more."
                cause = death_record(executor.last_name, executor.actor, why, pid=executor.pid)
                self._kill_actor(executor.actor, removed, cause)
            elif executor.chunks:
                executor.dismissed = "its placement group was removed"
                executor.kill()

    def _look_at_closing(self) -> None:
        """Give back what closing bundles have as soon as nothing runs inside; see to what waited for them."""
        self.clear_lanes()
        if self._bundles.release_idle():
            self.on_room()
        if self._bundles.any_closing and not self._waits:
            self._waits = True
            self._node.loop.call_later(CLOSING_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._waits = False
        try:
            for bundle in self._bundles:
                if bundle.state is BundleState.CLOSING:
                    # An executor may have been on its way when the bundle was closed.
                    self._end_inside(bundle, removed=bundle.group in self._gone)
            self._look_at_closing()
        except RabbitryBrokerError as error:
            log.warning("cannot clear up after a placement group now: %s", error)  # the next look does

    # -- looks -------------------------------------------------------------------------------------------------------

    def run_once(self) -> None:
        """Compare what is here with the records."""
        now = time.monotonic()
        self._living = {group: until for group, until in self._living.items() if until > now}
        self._look_at_closing()
        groups = [] if self._leaving else self._bundles.groups()
        for group_id, group in zip(groups, self._records.read(groups), strict=True):
            if group is None or group.state == REMOVED:
                self.on_ended(group_id)
            else:
                self._compare(group)

    def _compare(self, group: Group) -> None:
        me = self._node.id
        if group.state == CREATED:
            self.on_stands(group.id)
        stale = [
            bundle
            for bundle in self._bundles.of(group.id)
            if group.held.get(bundle.index) != me
            and not (group.asked.get(bundle.index) == me and bundle.token == group.token)
        ]
        if stale:
            log.warning("%d bundles of placement group %s are not this node's any more", len(stale), group.id.hex())
            self._close(group.id, stale, removed=False)

    def leave(self) -> None:
        """This node takes no more work: its bundles are planned elsewhere; what runs inside goes on to its end."""
        self._leaving = True
        for group in self._bundles.groups():
            token = self._bundles.of(group)[0].token
            self._records.lost(group, token, [self._node.id])
