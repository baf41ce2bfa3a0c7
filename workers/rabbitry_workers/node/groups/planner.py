"""The planner: one node of the cluster plans placement groups for all.

Which node that is says a lease with a fencing number (`GroupRecords.take_planning`): a planner that was stopped for
longer than its lease can write no plan down any more. What it knows of rooms are the records of nodes, less what it
has planned that they do not show yet; a node that has less refuses, and the group is planned anew.

| when | what |
|---|---|
| a group is asked for, room may have come | all groups that wait are planned, the oldest first |
| every `LOOK_SECONDS` | the records are read: nothing depends on messages |
| nodes do not answer for `ANSWER_SECONDS` | the plan is given up |
| a node is gone | its bundles are planned anew |
| who made a group has ended | the group is removed |
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.implicit import NODE_ID_LABEL
from rabbitry_broker.resources import GPU, ResourceRequest
from rabbitry_broker.store.groups import (
    CREATED,
    FENCED,
    PENDING,
    PREPARED,
    REMOVED,
    RESCHEDULING,
    Group,
    GroupRecords,
)
from rabbitry_workers.node.groups.keeping import Keeping
from rabbitry_workers.node.groups.planning import LASTING_SECONDS, Plan, Room, Wanted, plan_all
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.peers.others import OtherNode, Others

LEASE_SECONDS: Final = 4.0
LOOK_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 3.0
PLANNED_SECONDS: Final = 10.0  # so long a node's record may take to show what it was asked for
WAITING_SECONDS: Final = 3.0  # so long nodes tell of room at once after they were asked to
ROOM_SECONDS: Final = 0.02  # between two tellings
KEPT_AGAIN_SECONDS: Final = 0.9  # between two requests to keep room for a group
STARTED: Final = "SCHEDULING_STARTED"
"""What the table says of a group that has a plan, in Ray's words."""

FRESH_SECONDS: Final = 0.05  # so old may be what is known of other nodes when groups are planned
PAUSE_SECONDS_MAX: Final = 0.1  # between two plannings, however long one takes

log = logging.getLogger("rabbitry.node")


class OwnRoom(Protocol):
    """What this node has free."""

    def for_others(self) -> dict[str, float]:
        """Return what is free for any task: not what blocked tasks lend."""

    def gpus(self) -> list[int]:
        """Return what is free of each GPU, in units of 1/10000."""

    def totals(self) -> ResourceRequest:
        """Return what there is in all."""


class Beats(Protocol):
    """This node's sign of life."""

    sealed: bytes

    def run_once(self) -> None:
        """Write it."""

    def look_at_all(self) -> None:
        """Read all that changed of others."""

    def may_plan(self) -> bool:
        """True if no other node plans placement groups, as far as is known."""


class Asked:
    """A plan of which not all nodes' records tell yet."""

    __slots__ = ("at", "nodes", "token", "wanted")

    def __init__(self, token: bytes, nodes: Plan, wanted: Mapping[int, ResourceRequest]) -> None:
        self.token = token
        self.nodes = nodes
        self.wanted = wanted
        self.at = time.monotonic()


class Planner:
    """Service on the agent's loop: `start`, `run_once`.

    Args:
        node: this one.
        records: of groups.
        keeping: holds bundles here, and tells who waits.
        others: the other nodes.
        room: says what is free here.
        is_draining: True if this node takes no more work.

    Attributes:
        heartbeat: tells others of room here.
    """

    heartbeat: Beats

    def __init__(
        self,
        node: Node,
        records: GroupRecords,
        keeping: Keeping,
        others: Others,
        room: OwnRoom,
        is_draining: Callable[[], bool],
    ) -> None:
        self._node = node
        self._records = records
        self._keeping = keeping
        self._others = others
        self._room = room
        self._is_draining = is_draining
        self._fence = 0
        self._pending: dict[bytes, Group] = {}
        self._standing: dict[bytes, Group] = {}  # as the last look found them
        self._asked: dict[bytes, Asked] = {}
        self._why: dict[bytes, str] = {}  # as it stands in the records of those that wait
        self._kept_at: dict[bytes, float] = {}
        self._soon = False
        self._asked_for_room = 0.0
        self._tells_until = 0.0
        self._told_at = 0.0
        self._tells_soon = False
        self._plan_from = 0.0
        self._read_at = 0.0
        self._clock = 0.0  # of Redis, less our monotonic one

    def start(self) -> None:
        """Plan from now on, if no other node does."""
        self._node.periodic.every(LOOK_SECONDS, self.run_once, "cannot plan placement groups")

    # -- what is heard -----------------------------------------------------------------------------------------------

    def on_asked(self, group_id: bytes) -> None:
        """A group is to be planned."""
        if not self._fence:
            return
        (group,) = self._records.read([group_id])
        if group is not None and group.state in (PENDING, RESCHEDULING):
            self._pending[group_id] = group
            self.plan_soon()

    def on_dropped(self, group_id: bytes, token: bytes) -> None:
        """A plan came to nothing: the group waits again."""
        asked = self._asked.get(group_id)
        if asked is not None and asked.token == token:
            del self._asked[group_id]
        self.on_asked(group_id)

    def on_stands(self, group_id: bytes) -> None:
        """A group stands."""
        self._pending.pop(group_id, None)
        self._why.pop(group_id, None)

    def on_ended(self, group_id: bytes) -> None:
        """A group was removed; its room will be there soon, and whoever waited for it is to be told."""
        for table in (self._pending, self._standing, self._asked, self._why):
            table.pop(group_id, None)
        if self._fence:
            self._keeping.tell_of_end(group_id)

    def on_job_ended(self) -> None:
        """A driver has left: its groups go with it."""
        if self._fence:
            self._node.loop.add_callback(self._look_now)

    def look_soon(self) -> None:
        """Nobody plans: whoever comes first does."""
        if not self._is_draining():
            self._node.loop.add_callback(self._look_now)

    def _look_now(self) -> None:
        try:
            self.run_once()
        except RabbitryBrokerError as error:
            log.warning("cannot look at placement groups now: %s", error)

    def on_room(self) -> None:
        """Room may have come here. HOT PATH while no group waits."""
        if self._pending:
            self.plan_soon()
        elif self._tells_until and not self._tells_soon:
            self._tell_soon()

    def on_room_elsewhere(self, node: bytes, record: bytes) -> None:
        """Another node says what it has free."""
        self._others.take(node, record)
        if self._pending:
            self.plan_soon()

    def on_waiting(self, _: bytes) -> None:
        """Groups wait for room: whoever gets some tells at once."""
        self._tells_until = time.monotonic() + WAITING_SECONDS

    def _tell_soon(self) -> None:
        now = time.monotonic()
        if now > self._tells_until:
            self._tells_until = 0.0
            return
        self._tells_soon = True
        self._node.loop.call_later(max(0.0, self._told_at + ROOM_SECONDS - now), self._tell)

    def _tell(self) -> None:
        self._tells_soon = False
        self._told_at = time.monotonic()
        try:
            self.heartbeat.run_once()
            self._records.tell("node-room", self._node.id, self.heartbeat.sealed)
        except RabbitryBrokerError as error:
            log.warning("cannot tell of room now: %s", error)

    # -- looks -------------------------------------------------------------------------------------------------------

    def run_once(self) -> None:
        """Plan for the next while, unless another node does; read the records, and do what is due."""
        if self._is_draining():
            if self._fence:
                self._fence = 0
                self._records.leave_planning(self._node.id)
            return
        if not self._fence and not self.heartbeat.may_plan():
            return
        fence = self._records.take_planning(self._node.id, LEASE_SECONDS)
        if fence != self._fence:
            self._fence = fence
            for table in (self._pending, self._standing, self._asked, self._why):
                table.clear()
        if fence:
            self._look()

    def _now(self) -> float:
        """Return the time by the clock of Redis, as far as it was known at the last look."""
        return time.monotonic() + self._clock

    def _look(self) -> None:
        now = time.monotonic()
        self._clock = self._node.store.time() - now
        ids = self._records.ids()
        groups = [group for group in self._records.read(ids) if group is not None and group.state != REMOVED]
        groups = self._remove_ended(groups)
        groups = self._notice_lost(groups)
        self._pending = {group.id: group for group in groups if group.state in (PENDING, RESCHEDULING)}
        self._standing = {group.id: group for group in groups if group.held}
        for group in groups:
            asked = self._asked.get(group.id)
            if group.state == PREPARED and (asked is None or asked.token != group.token):
                # Another planner asked. Its nodes get the time to answer.
                self._asked[group.id] = Asked(group.token, group.asked, _wanted_of(group))
            elif group.state == PREPARED and asked is not None and now - asked.at > ANSWER_SECONDS:
                log.info("nodes do not answer to the plan of placement group %s", group.id.hex())
                self._asked.pop(group.id)
                self._records.give_up(group.id, group.token, fence=self._fence)
        for group_id, asked in list(self._asked.items()):
            if now - asked.at > PLANNED_SECONDS:
                del self._asked[group_id]
        for group_id in self._records.with_waiters([group.id for group in groups if group.state == CREATED]):
            self._keeping.tell(group_id, self._records.waiters(group_id))
        for group_id in self._records.untold():
            self._keeping.tell_of_end(group_id)
        if self._pending:
            self._look_at_others()
            self.plan()

    def _remove_ended(self, groups: list[Group]) -> list[Group]:
        if not groups or not self._node.store.trusts_leases(self._node.config.client_lease):
            return groups
        living = self._records.living({group.id: group.spec for group in groups})
        for group in groups:
            if group.id not in living:
                log.info("placement group %s ends with who made it", group.id.hex())
                self._records.remove(group.id)
        return [group for group in groups if group.id in living]

    def _notice_lost(self, groups: list[Group]) -> list[Group]:
        """Bundles of nodes that are gone are planned anew."""
        if not self._node.store.trusts_leases(self._node.config.lease):
            return groups
        known = {self._node.id, *self._others.alive()}
        named = {node for group in groups for node in (*group.held.values(), *group.asked.values())}
        gone = {node for node in named - known if not self._others.is_alive(node)}
        lost = [group.id for group in groups if not gone.isdisjoint((*group.held.values(), *group.asked.values()))]
        if not lost:
            return groups
        tokens = {group.id: group.token for group in groups}
        for group_id in lost:
            self._asked.pop(group_id, None)
            self._records.lost(group_id, tokens[group_id], gone)
        again = dict(zip(lost, self._records.read(lost), strict=True))
        found = [again.get(group.id, group) for group in groups]
        return [group for group in found if group is not None and group.state != REMOVED]

    # -- planning ----------------------------------------------------------------------------------------------------

    def plan_soon(self) -> None:
        """Plan in the loop's next round: what comes together is planned together."""
        if self._fence and not self._soon:
            self._soon = True
            self._node.loop.call_later(max(0.0, self._plan_from - time.monotonic()), self._plan_now)

    def _plan_now(self) -> None:
        """Plan. While groups go on waiting, that takes a fifth of the loop's time at most, however many they are."""
        self._soon = False
        began = time.monotonic()
        try:
            self._look_at_others()
            self.plan()
        except RabbitryBrokerError as error:
            log.warning("cannot plan placement groups now: %s", error)
        ended = time.monotonic()
        self._plan_from = ended + min(4 * (ended - began), PAUSE_SECONDS_MAX) if self._pending else 0.0

    def _look_at_others(self) -> None:
        """See what other nodes have, also those that joined since: whoever asked for the group may know them."""
        now = time.monotonic()
        if now - self._read_at > FRESH_SECONDS:
            self.heartbeat.look_at_all()
            self._read_at = now

    def plan(self) -> None:
        """Plan all groups that wait."""
        if not self._fence or not self._pending:
            return
        wanted = {group.id: _wanted(group) for group in self._pending.values()}
        rooms, ever = self._rooms(), self._ever()
        plans, reasons, kept = plan_all(
            wanted.values(),
            rooms,
            self._now(),
            ever=ever,
            lasting=lambda one: self._lasting(one, ever),
        )
        for group_id, plan in plans.items():
            if set(plan.values()) == {self._node.id}:
                self._take(group_id, plan, wanted[group_id])
            else:
                self._ask(group_id, plan, wanted[group_id])
        self._have_kept(kept, wanted)
        fresh = {group_id: why for group_id, why in reasons.items() if self._why.get(group_id) != why}
        if fresh and self._fence:
            self._write([(group_id, b"", why, {}) for group_id, why in fresh.items()], {}, here=False)
            self._why.update(fresh)
        if reasons and time.monotonic() - self._asked_for_room > WAITING_SECONDS / 3 and self._others.has_others:
            self._asked_for_room = time.monotonic()
            self._records.tell("groups-wait", self._node.id)

    def _have_kept(self, kept: Mapping[bytes, Plan], wanted: Mapping[bytes, Wanted]) -> None:
        """Have nodes keep room for groups that wait for long from the tasks that would take it bit by bit."""
        now = time.monotonic()
        for group_id, plan in kept.items():
            if now - self._kept_at.get(group_id, 0.0) < KEPT_AGAIN_SECONDS:
                continue
            self._kept_at[group_id] = now
            by_node: dict[bytes, list[tuple[int, str]]] = {}
            for index, node in plan.items():
                by_node.setdefault(node, []).append((index, wanted[group_id].bundles[index].class_name))
            own = by_node.pop(self._node.id, None)
            if own is not None:
                self._keeping.on_kept(group_id, [(self._node.id, own)])
            if by_node:
                self._records.tell("group-kept", group_id, list(by_node.items()))
        for group_id in self._kept_at.keys() - self._pending.keys():
            del self._kept_at[group_id]

    def _take(self, group_id: bytes, plan: Plan, wanted: Wanted) -> None:
        """All of a group comes to this node: no other one has to be asked."""
        token = secrets.token_bytes(8)
        if not self._keeping.reserve(group_id, token, wanted.bundles):
            return  # what blocked tasks lend, say; it is planned again when there is room
        try:
            ((answer, ready),) = self._write([(group_id, token, STARTED, plan)], {}, here=True)
        except RabbitryBrokerError:
            # It may have been written: the next look tells, here and there.
            self._pending.pop(group_id, None)
            raise
        if answer == CREATED:
            self.on_stands(group_id)
            self._keeping.stands(group_id, ready)
        else:
            self._keeping.on_dropped(group_id, token)
            self._pending.pop(group_id, None)

    def _ask(self, group_id: bytes, plan: Plan, wanted: Wanted) -> None:
        token = secrets.token_bytes(8)
        classes = {group_id: self._pending.pop(group_id).spec.bundles}
        ((answer, _),) = self._write([(group_id, token, STARTED, plan)], classes, here=False)
        if answer == PREPARED:
            self._asked[group_id] = Asked(token, plan, wanted.bundles)

    def _write(
        self, plans: Sequence[tuple[bytes, bytes, str, Plan]], classes: Mapping[bytes, Sequence[str]], *, here: bool
    ) -> list[tuple[str, list[tuple[bytes, bytes]]]]:
        for group_id, *_ in plans:
            self._why.pop(group_id, None)
        answers = self._records.plan(plans, classes, fence=self._fence, here=here)
        if any(answer == FENCED for answer, _ in answers):
            log.warning("another node plans placement groups by now")
            self._fence = 0
        return answers

    # -- what there is -----------------------------------------------------------------------------------------------

    def _rooms(self) -> list[Room]:
        rooms = [self._other_room(node, other) for node, other in self._others.alive().items() if not other.draining]
        own = ResourceRequest.free(self._room.for_others()).to_units()
        own.pop(GPU, None)
        return [Room(self._node.id, own, self._room.gpus(), self._labels()), *rooms]

    def _labels(self) -> dict[str, str]:
        return {NODE_ID_LABEL: self._node.id.hex(), **self._node.config.labels}

    def _other_room(self, node: bytes, other: OtherNode) -> Room:
        free = other.available.to_units()
        free.pop(GPU, None)
        room = Room(node, free, list(other.gpus), other.labels)
        for group_id, asked in self._asked.items():
            if (group_id, asked.token) not in other.bundles:
                for index, at in asked.nodes.items():
                    if at == node and index in asked.wanted:
                        room.take(asked.wanted[index])
        return room

    def _ever(self) -> list[Room]:
        others = [
            Room.whole(node, other.totals, other.labels)
            for node, other in self._others.alive().items()
            if not other.draining
        ]
        return [Room.whole(self._node.id, self._room.totals(), self._labels()), *others]

    def _lasting(self, wanted: Wanted, ever: Sequence[Room]) -> list[Room]:
        """Return rooms with nothing in them but the groups that were there before, or have been for long."""
        now = self._now()
        rooms = {room.node: room.copy() for room in ever}
        for group in self._standing.values():
            if group.id == wanted.id or group.created < wanted.created or now - group.placed > LASTING_SECONDS:
                for index, node in group.held.items():
                    if node in rooms:
                        rooms[node].take(ResourceRequest.parse(group.spec.bundles[index]))
        return list(rooms.values())


def _wanted_of(group: Group) -> dict[int, ResourceRequest]:
    return {index: ResourceRequest.parse(group.spec.bundles[index]) for index in group.missing}


def _wanted(group: Group) -> Wanted:
    spec = group.spec
    return Wanted(
        id=group.id,
        bundles=_wanted_of(group),
        strategy=spec.strategy,
        selectors=dict(enumerate(spec.selectors)),
        target=spec.target,
        topology=spec.topology,
        taken=frozenset(group.held.values()),
        created=group.created,
    )
