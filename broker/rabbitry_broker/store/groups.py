"""The records of placement groups: made by who asks for one, planned by one node at a time, confirmed by the others.

    PENDING --planned--> PREPARED --all nodes hold their bundles--> CREATED --a node is lost--> RESCHEDULING
       ^                  |    ^                                                                   |   ^
       '-- one cannot ----'    '------------------------- planned again ---------------------------'   |
                          '-- one cannot, of a group that was CREATED before --------------------------'

    any state --removed, or whoever made it has ended--> REMOVED

What is authoritative is the record, a hash that only the scripts `lua/group_*.lua` change; `group_move.lua` has the
table of moves and the one function that makes them. A plan has a token: a node's answer to a plan that was given up
changes nothing. Who plans has a fencing number (`planner_take.lua`): who was planner before can plan nothing any more.

Nodes hear of all this by control messages (`rabbitry_workers.node.peers.controls`), and may miss any of them: whoever
holds something looks at the record every few seconds, and the record counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import GROUP_BYTES, NODE_BYTES, OBJECT_BYTES
from rabbitry_broker.messages import MalformedMessage, encode
from rabbitry_broker.queue_names import bundle_queue
from rabbitry_broker.signing import ForgedMessage, Signer
from rabbitry_broker.store.actors import name_field, unhex
from rabbitry_broker.store.store import ObjectStore

PENDING: Final = "PENDING"
PREPARED: Final = "PREPARED"
CREATED: Final = "CREATED"
RESCHEDULING: Final = "RESCHEDULING"
REMOVED: Final = "REMOVED"

STALE, REFUSED, WAITS, FENCED = "STALE", "REFUSED", "WAITS", "FENCED"
"""No states, but answers: that plan is over; a node refused; there is no plan; another node plans by now."""

PACK, SPREAD, STRICT_PACK, STRICT_SPREAD = "PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"
STRATEGIES: Final = (PACK, SPREAD, STRICT_PACK, STRICT_SPREAD)


class GroupSpec(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What somebody asks for.

    Attributes:
        bundles: the resource class of each bundle.
        strategy: one of `STRATEGIES`.
        selectors: canonical text of the label selector of each bundle; none for no selectors.
        name: its name, "" for none.
        namespace: where the name counts.
        detached: it lives until it is removed.
        job: of who made it; the group goes with it.
        actor: that made it, b"" for none; the group goes with it too.
        outlives_job: that actor is detached: the group does not go with the job.
        target: the node to prefer, b"" for none.
        topology: label that must have the same value on all its nodes, "" for none.
    """

    bundles: list[str]
    strategy: str = PACK
    selectors: list[str] = []
    name: str = ""
    namespace: str = ""
    detached: bool = False
    job: bytes = b""
    actor: bytes = b""
    outlives_job: bool = False
    target: bytes = b""
    topology: str = ""

    def selector(self, index: int) -> str:
        """Return the label selector of a bundle, "" for none."""
        return self.selectors[index] if self.selectors else ""


class Group(NamedTuple):
    """A record as it stands.

    Attributes:
        id: of the group.
        state: where it stands.
        spec: what was asked for.
        token: of the plan made last.
        why: what planning came to, in Ray's words (`FINISHED`, `NO_RESOURCES`, `INFEASIBLE`, ...).
        attempts: plans that were tried.
        created: when it was asked for, by the clock of Redis.
        placed: when it stood for the first time, 0.0 if it never did.
        held: node of each bundle that one holds for good, by index.
        asked: node of each bundle that one is asked to hold, or holds for a plan.
    """

    id: bytes
    state: str
    spec: GroupSpec
    token: bytes
    why: str
    attempts: int
    created: float
    placed: float
    held: dict[int, bytes]
    asked: dict[int, bytes]

    @property
    def missing(self) -> list[int]:
        """The bundles that no node holds for good."""
        return [index for index in range(len(self.spec.bundles)) if index not in self.held]


_decode_spec: Final = msgspec.msgpack.Decoder(GroupSpec).decode


def open_group(signer: Signer, group_id: bytes, fields: Mapping[bytes, bytes]) -> Group:
    """Return the record that these fields make.

    Raises:
        RabbitryBrokerError: nobody of this cluster wrote it.
        LookupError: a field is missing.
        ValueError: a field is of a wrong form.
    """
    spec = _decode_spec(signer.open(b"group" + group_id, fields[b"spec"]))
    held: dict[int, bytes] = {}
    asked: dict[int, bytes] = {}
    for name, value in fields.items():
        if name[1:].isdigit() and len(value) == NODE_BYTES:
            (held if name[:1] == b"b" else asked)[int(name[1:])] = value
    return Group(
        id=group_id,
        state=fields[b"state"].decode(),
        spec=spec,
        token=fields.get(b"token", b""),
        why=fields.get(b"why", b"").decode("utf-8", "replace"),
        attempts=int(fields.get(b"attempt", 0)),
        created=float(fields.get(b"created", 0)),
        placed=float(fields.get(b"placed", 0)),
        held=held,
        asked=asked,
    )


class GroupRecords:
    """Reads and moves the records of placement groups. Any thread may call anything."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._keys = store.keys

    # -- what anybody may do -----------------------------------------------------------------------------------------

    def create(self, group_id: bytes, spec: GroupSpec) -> bytes | None:
        """Register a group; return the id of the living one that has its name already, None if none has.

        Raises:
            ObjectStoreFull: no room.
        """
        name = name_field(spec.namespace, spec.name) if spec.name else b""
        sealed = self._store.signer.seal(b"group" + group_id, encode(spec))
        arguments: tuple[Any, ...] = (
            self._keys.prefix, self._keys.group(group_id), group_id.hex(), name, self._control("group-asked", group_id),
            "state", PENDING, "spec", sealed, "name", name, "size", len(spec.bundles), "why", "QUEUED",
            "attempt", 0,
        )  # fmt: skip
        taken = self._store.when_room(lambda: self._store.script("group_create", *arguments))
        return unhex(taken) if taken else None

    def remove(self, group_id: bytes) -> str:
        """Remove a group; return the state it was in, "" if there is none."""
        state = self._store.script(
            "group_remove",
            self._keys.prefix,
            self._keys.group(group_id),
            group_id.hex(),
            _stem(group_id),
            self._control("group-ended", group_id),
        )
        return str(state.decode())

    def wait(self, group_id: bytes, object_id: bytes, record: bytes) -> str:
        """Have an object get a record once the group stands, if that is to come; return the state it is in.

        Raises:
            ObjectStoreFull: no room.
        """
        sealed = self._store.signer.seal(b"ready" + object_id, record)
        key = self._keys.group(group_id)
        state = self._store.when_room(lambda: self._store.script("group_wait", key, object_id, sealed))
        return str(state.decode())

    def state(self, group_id: bytes) -> str:
        """Return the state of a group, "" if there is none."""
        state = self._store.call(b"HGET", self._keys.group(group_id), "state")
        return (state or b"").decode("utf-8", "replace")

    def states(self, group_ids: Sequence[bytes]) -> list[str]:
        """Return the state of each group, "" where there is none."""
        replies = self._store.pipeline([(b"HGET", self._keys.group(each), "state") for each in group_ids])
        return [(state or b"").decode("utf-8", "replace") for state in replies]

    def by_name(self, namespace: str, name: str) -> bytes | None:
        """Return the id of the living group of that name."""
        found = self._store.call(b"HGET", self._keys.groups + b":names", name_field(namespace, name))
        return unhex(found) if found else None

    def ids(self) -> list[bytes]:
        """Return the ids of all groups that are not removed."""
        return _ids(self._store.call(b"SMEMBERS", self._keys.groups))

    def removed(self) -> list[bytes]:
        """Return the ids of those that were removed lately, the earliest first."""
        return _ids(self._store.call(b"ZRANGE", self._keys.groups + b":removed", 0, -1))

    def read(self, group_ids: Sequence[bytes]) -> list[Group | None]:
        """Return records; None for each that is not there, or that nobody of this cluster wrote."""
        replies = self._store.pipeline([(b"HGETALL", self._keys.group(each)) for each in group_ids])
        groups: list[Group | None] = []
        for group_id, flat in zip(group_ids, replies, strict=True):
            try:
                fields = dict(zip(flat[::2], flat[1::2], strict=True))
                groups.append(open_group(self._store.signer, group_id, fields) if fields else None)
            except (RabbitryBrokerError, msgspec.MsgspecError, ValueError, TypeError, KeyError) as error:
                self._store.put_aside(f"placement group {group_id.hex()}", repr(flat)[:1000].encode(), str(error))
                groups.append(None)
        return groups

    # -- what nodes do -----------------------------------------------------------------------------------------------

    def take_planning(self, node: bytes, seconds: float) -> int:
        """A node would plan for the next while: return its fencing number, 0 if another one does that."""
        return int(self._store.script("planner_take", self._keys.prefix, node, int(seconds * 1000)))

    def leave_planning(self, node: bytes) -> None:
        """The planner leaves: the next one need not wait for its lease to end."""
        if self._store.call(b"GET", self._keys.planner) == node:
            self._store.call(b"DEL", self._keys.planner)

    def plan(
        self,
        plans: Sequence[tuple[bytes, bytes, str, Mapping[int, bytes]]],
        classes: Mapping[bytes, Sequence[str]],
        *,
        fence: int,
        here: bool = False,
    ) -> list[tuple[str, list[tuple[bytes, bytes]]]]:
        """Write plans down, or why there are none.

        Args:
            plans: (group, token, why there is none, node of each bundle) for each.
            classes: the resource classes of their bundles, by group.
            fence: of the planner.
            here: all of them are held already, by the planner.

        Returns:
            For each: an answer or state, and with CREATED those who wait for it, as `ready` reads them.
        """
        calls: list[tuple[str, tuple[Any, ...]]] = []
        for group_id, token, why, nodes in plans:
            message = b"" if here else self._plan_message(group_id, token, nodes, classes.get(group_id, ()))
            place = (self._keys.prefix, self._keys.group(group_id), _stem(group_id))
            facts = (fence, token, why, b"1" if here else b"0", message)
            calls.append(("group_plan", (*place, *facts, *_flat(nodes))))
        replies = self._store.pipeline_of_scripts(calls)
        return [(reply[0].decode(), self._ready(reply[1:])) for reply in replies]

    def confirm(
        self, node: bytes, answers: Sequence[tuple[bytes, bytes, Sequence[int], bool]]
    ) -> list[tuple[str, list[tuple[bytes, bytes]]]]:
        """A node that was asked to hold bundles does, or cannot; return what came of that, as `plan` does.

        Args:
            node: that was asked.
            answers: (group, token, indices of the bundles, whether it holds them) for each.
        """
        calls: list[tuple[str, tuple[Any, ...]]] = []
        for group_id, token, indices, held in answers:
            place = (self._keys.prefix, self._keys.group(group_id), _stem(group_id))
            messages = (self._control("group-stands", group_id), self._control("group-dropped", group_id, token))
            calls.append(("group_confirm", (*place, token, node, b"1" if held else b"0", *messages, *indices)))
        replies = self._store.pipeline_of_scripts(calls)
        return [(reply[0].decode(), self._ready(reply[1:])) for reply in replies]

    def give_up(self, group_id: bytes, token: bytes, *, fence: int) -> str:
        """Nodes do not answer to a plan: it is over. Returns the state the group is in now."""
        message = self._control("group-dropped", group_id, token)
        state = self._store.script("group_back", self._keys.prefix, self._keys.group(group_id), fence, token, message)
        return str(state.decode())

    def lost(self, group_id: bytes, token: bytes, nodes: Iterable[bytes]) -> str:
        """These nodes hold no bundles any more; `token` of the plan. Returns the state the group is in now."""
        state = self._store.script(
            "group_lost",
            self._keys.prefix,
            self._keys.group(group_id),
            self._control("group-dropped", group_id, token),
            self._control("group-asked", group_id),
            *nodes,
        )
        return str(state.decode())

    def waiters(self, group_id: bytes) -> list[tuple[bytes, bytes]]:
        """Return the objects that are to tell of a group's creation, with their records."""
        return self._ready(self._store.call(b"HGETALL", self._keys.group(group_id) + b":ready"))

    def with_waiters(self, group_ids: Sequence[bytes]) -> list[bytes]:
        """Return those of some groups for which somebody waits."""
        replies = self._store.pipeline([(b"EXISTS", self._keys.group(each) + b":ready") for each in group_ids])
        return [group_id for group_id, found in zip(group_ids, replies, strict=True) if found]

    def told(self, objects: Iterable[tuple[bytes, Sequence[bytes]]]) -> None:
        """These objects, by group, have their records."""
        commands = [(b"HDEL", self._keys.group(group_id) + b":ready", *ids) for group_id, ids in objects if ids]
        if commands:
            self._store.pipeline(commands)

    def untold(self) -> list[bytes]:
        """Return the ids of removed groups of whose end somebody is still to be told."""
        return _ids(self._store.call(b"SMEMBERS", self._keys.groups + b":untold"))

    def all_told(self, group_id: bytes) -> None:
        """Nobody is to be told of the end of this group any more."""
        self._store.call(b"SREM", self._keys.groups + b":untold", group_id.hex())

    def tell(self, word: str, *fields: Any) -> None:
        """Tell all nodes."""
        self._store.call(b"PUBLISH", self._keys.control_channel, self._control(word, *fields))

    def living(self, specs: Mapping[bytes, GroupSpec]) -> set[bytes]:
        """Return those groups whose makers have not ended; detached ones always."""
        bound = [(group_id, spec) for group_id, spec in specs.items() if not spec.detached]
        replies = iter(
            self._store.pipeline(
                [
                    command
                    for _, spec in bound
                    for command in (
                        (b"EXISTS", self._keys.job(spec.job)),
                        (b"HGET", self._keys.actor(spec.actor), "state"),
                    )
                ]
            )
        )
        living = set(specs).difference([group_id for group_id, _ in bound])
        for group_id, spec in bound:
            job, actor = next(replies), next(replies)
            if (job or spec.outlives_job) and (not spec.actor or actor not in (None, b"DEAD")):
                living.add(group_id)
        return living

    # -- messages ----------------------------------------------------------------------------------------------------

    def _control(self, word: str, *fields: Any) -> bytes:
        return self._store.signer.seal(b"control", encode([word, *fields]))

    def _plan_message(self, group_id: bytes, token: bytes, nodes: Mapping[int, bytes], classes: Sequence[str]) -> bytes:
        wanted: dict[bytes, list[tuple[int, str]]] = {}
        for index, node in nodes.items():
            wanted.setdefault(node, []).append((index, classes[index]))
        return self._control("group-planned", group_id, token, list(wanted.items())) if nodes else b""

    def _ready(self, flat: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        ready = []
        for object_id, sealed in zip(flat[::2], flat[1::2], strict=True):
            try:
                if len(object_id) != OBJECT_BYTES:
                    raise MalformedMessage("not the id of an object")
                ready.append((object_id, self._store.signer.open(b"ready" + object_id, sealed)))
            except (ForgedMessage, MalformedMessage) as error:
                self._store.put_aside("placement group", sealed, str(error))
        return ready


def _stem(group_id: bytes) -> str:
    """Return what the names of a group's queues begin with."""
    return bundle_queue(group_id, 0)[:-1]


def _flat(nodes: Mapping[int, bytes]) -> list[Any]:
    return [each for pair in nodes.items() for each in pair]


def _ids(members: Iterable[bytes]) -> list[bytes]:
    found = [unhex(each) for each in members]
    return [each for each in found if each is not None and len(each) == GROUP_BYTES]
