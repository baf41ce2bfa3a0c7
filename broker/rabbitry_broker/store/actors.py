"""The records of actors: registered by who creates them, kept by the nodes that run them.

    PENDING --start--> ALIVE --process ends--> RESTARTING --start--> ALIVE
       |                 |                         |
       '------ kill, restarts used up, owner gone -+--> DEAD

A record is a hash: state, class, facts (sealed), owner, job, name (`namespace NUL name`), detached, max_restarts,
restarts, epoch (counts processes; fences the commits of old ones), node, pid, frame and queue (to create it again),
keeper (the node that sees to the restart, or to the burial, and may have nothing but its own memory to do it from),
lost ("1": its last process was lost with its node, which may still have calls), cause (sealed: an error is a pickle),
function and creation (of a detached one: the hashes of its class and of what its environment needs, and the task that
creates it: what they left in the store goes with it).
"""

from __future__ import annotations

from typing import Any

from rabbitry_broker.functions import HASH_BYTES
from rabbitry_broker.ids import FIRST_INDEX, INDEX_ARGUMENTS, TASK_BYTES
from rabbitry_broker.messages import decode, encode
from rabbitry_broker.signing import ForgedMessage
from rabbitry_broker.store.store import ObjectStore

PENDING, ALIVE, RESTARTING, DEAD = "PENDING", "ALIVE", "RESTARTING", "DEAD"
STALE = "STALE"  # no state, but what `end` answers when a later process has begun


def name_field(namespace: str, name: str) -> bytes:
    """Return the field of an actor's name in the names hash."""
    return namespace.encode() + b"\0" + name.encode()


def unhex(digits: bytes) -> bytes | None:
    """Return the bytes of hexadecimal digits; None for anything else, since nobody signs them."""
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return None


class ActorRecords:
    """Reads and moves actors' records. Any thread may call anything."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._keys = store.keys

    def create(
        self, actor_id: bytes, *, name: bytes, fields: dict[str, Any], holds: bytes = b""
    ) -> tuple[bytes, bytes] | None:
        """Register an actor; None if that was done, (id, facts) of the living one if the name is taken.

        `holds`: if it is detached, the hashes of its class and of what its environment needs, one after the other: what
        stays in the store as long as it lives.

        Raises:
            ObjectStoreFull: no room.
        """
        flat: list[Any] = ["state", PENDING, "name", name]
        for field, value in fields.items():
            flat += (field, value)
        arguments = (self._keys.prefix, self._keys.names, name)
        record = (self._keys.actor(actor_id), actor_id.hex(), holds.hex(" ", HASH_BYTES), *flat)
        reply = self._store.when_room(lambda: self._store.script("actor_create", *arguments, *record))
        if reply[0] == b"":
            return None
        return bytes.fromhex(reply[0].decode()), reply[1]

    def set_frame(self, actor_id: bytes, frame: bytes, queue: str) -> None:
        """Keep what creates the actor again."""
        fields = ("frame", frame, "queue", queue)
        self._store.when_room(lambda: self._store.call(b"HSET", self._keys.actor(actor_id), *fields), size=len(frame))

    def start(self, actor_id: bytes, node_id: bytes) -> tuple[str, int, int, bytes, bool]:
        """A node starts its process: (state before, epoch, restarts so far, owner, last one lost with its node)."""
        state, epoch, restarts, owner, lost = self._store.script(
            "actor_start", self._keys.actor(actor_id), node_id, self._keys.prefix + b"n:"
        )
        return state.decode(), epoch, restarts, owner, lost == b"1"

    def alive(self, actor_id: bytes, epoch: int, pid: int) -> None:
        """The constructor of its process succeeded. Changes nothing if the actor is dead, or has a later process."""
        self._store.script("actor_alive", self._keys.actor(actor_id), epoch, pid)

    def end(
        self, actor_id: bytes, *, final: bool, cause: bytes, epoch: int | None, keeper: bytes, lost: bool = False
    ) -> tuple[str, bytes, str]:
        """Its process ended: ("RESTARTING", frame, queue), ("DEAD", b"", "") or ("STALE", b"", "").

        If it is to be restarted, the node `keeper` sees to that. When that node is gone before the actor is started,
        another one calls this again for the same epoch. `lost`: its node is gone with it, as far as can be seen.
        """
        reply = self._store.script(
            "actor_end",
            self._keys.prefix,
            self._keys.actor(actor_id),
            actor_id.hex(),
            b"1" if final else b"0",
            self._seal_cause(actor_id, cause),
            b"" if epoch is None else epoch,
            keeper,
            b"1" if lost else b"",
        )
        if reply[0] == b"RESTARTING":
            return RESTARTING, reply[1] or b"", (reply[2] or b"").decode()
        return reply[0].decode(), b"", ""

    def kill(self, actor_id: bytes, *, no_restart: bool, cause: bytes) -> str:
        """Mark it killed, tell the nodes; returns the state it was in ("" if unknown)."""
        state = self._store.script(
            "actor_kill",
            self._keys.prefix,
            self._keys.actor(actor_id),
            actor_id.hex(),
            b"1" if no_restart else b"0",
            self._seal_cause(actor_id, cause),
        )
        message = encode(["kill-actor", actor_id, no_restart, cause])
        self._store.call(b"PUBLISH", self._keys.control_channel, self._store.signer.seal(b"control", message))
        return str(state.decode())

    def leaving(self, actor_id: bytes) -> None:
        """It ends by itself, without a restart: its name is free."""
        self._store.script("actor_kill", self._keys.prefix, self._keys.actor(actor_id), actor_id.hex(), b"1", b"")

    def by_name(self, namespace: str, name: str) -> bytes | None:
        """Return the id of the living actor of that name."""
        found = self._store.call(b"HGET", self._keys.names, name_field(namespace, name))
        return unhex(found) if found else None

    def holder(
        self, namespace: str, name: str, *fields: str, likely: bytes | None = None
    ) -> tuple[bytes | None, list[bytes | None]]:
        """Return the id of the living actor of that name, and fields of its record.

        In one round trip instead of two, if it is the `likely` one.
        """
        lookup = (b"HGET", self._keys.names, name_field(namespace, name))
        if likely is None:
            found, values = self._store.call(*lookup), None
        else:
            found, values = self._store.pipeline([lookup, (b"HMGET", self._keys.actor(likely), *fields)])
        actor_id = unhex(found) if found else None
        if actor_id is None:
            return None, [None] * len(fields)
        if actor_id != likely or values is None:
            values = self.fields(actor_id, *fields)
        return actor_id, values

    def names(self) -> list[tuple[str, str]]:
        """Return (namespace, name) of every named living actor."""
        fields = self._store.call(b"HKEYS", self._keys.names)
        texts = [each.decode("utf-8", "replace").partition("\0") for each in fields]
        return [(namespace, name) for namespace, _, name in texts]

    def fields(self, actor_id: bytes, *names: str) -> list[bytes | None]:
        """Return fields of a record, as they stand there; for the cause of an end there is `cause`."""
        reply: list[bytes | None] = self._store.call(b"HMGET", self._keys.actor(actor_id), *names)
        return reply

    def cause(self, actor_id: bytes) -> bytes:
        """Return the stored error that says why an actor is dead; b"" if none is known."""
        (sealed,) = self.fields(actor_id, "cause")
        return self._open_cause(actor_id, sealed)

    def kills(self, actor_ids: list[bytes]) -> list[tuple[bytes, bool, bytes]]:
        """Return of each (epoch in which it was killed last or b"", whether it is not to restart, the stored error)."""
        replies = self._store.pipeline(
            [(b"HMGET", self._keys.actor(actor_id), "killed", "no_restart", "kill_cause") for actor_id in actor_ids]
        )
        return [
            (epoch or b"", no_restart == b"1", self._open_cause(actor_id, cause))
            for actor_id, (epoch, no_restart, cause) in zip(actor_ids, replies, strict=True)
        ]

    def states(self, actor_ids: list[bytes]) -> list[tuple[str, bytes]]:
        """Return (state, cause) of each; state "" if there is no such actor."""
        replies = self._store.pipeline(
            [(b"HMGET", self._keys.actor(actor_id), "state", "cause") for actor_id in actor_ids]
        )
        return [
            ((state or b"").decode("utf-8", "replace"), self._open_cause(actor_id, cause))
            for actor_id, (state, cause) in zip(actor_ids, replies, strict=True)
        ]

    def _seal_cause(self, actor_id: bytes, cause: bytes) -> bytes:
        return self._store.signer.seal(b"cause" + actor_id, cause)

    def _open_cause(self, actor_id: bytes, sealed: bytes | None) -> bytes:
        if not sealed:
            return b""
        try:
            return self._store.signer.open(b"cause" + actor_id, sealed)
        except ForgedMessage as error:
            self._store.put_aside(f"actor {actor_id.hex()}", sealed, str(error))
            return b""

    def ids(self) -> list[bytes]:
        """Return the ids of all actors that are not dead."""
        found = [unhex(each) for each in self._store.call(b"SMEMBERS", self._keys.prefix + b"actors")]
        return [each for each in found if each is not None]

    def burials(self) -> list[bytes]:
        """Return the ids of dead actors whose queues are not deleted yet."""
        found = [unhex(each) for each in self._store.call(b"SMEMBERS", self._keys.burials)]
        return [each for each in found if each is not None]

    def to_bury(self, actor_id: bytes, keeper: bytes) -> None:
        """A node sees to the queue of a dead actor from now on."""
        name = actor_id.hex()
        self._store.pipeline(
            [
                (b"SADD", self._keys.burials, name),
                (b"HSET", self._keys.actor(actor_id), "keeper", keeper),
                (b"SREM", self._keys.prefix + b"actors", name),
            ]
        )

    def buried(self, actor_ids: list[bytes]) -> None:
        """The queues of dead actors are deleted: what created detached ones, and its arguments, go too."""
        if actor_ids:
            tasks = self._store.pipeline([(b"HGET", self._keys.actor(each), "creation") for each in actor_ids])
            created = [each for each in tasks if each and len(each) == TASK_BYTES]
            self._store.lives.drop([each + index for each in created for index in (FIRST_INDEX, INDEX_ARGUMENTS)])
            self._store.call(b"SREM", self._keys.burials, *[each.hex() for each in actor_ids])

    def forget(self, actor_id: bytes) -> None:
        """Its record is gone: it is none of those that are not dead."""
        self._store.call(b"SREM", self._keys.prefix + b"actors", actor_id.hex())

    def applied(self, actor_id: bytes) -> dict[bytes, list[int]]:
        """Return which calls a durable actor's state contains: bounds of their positions, by caller."""
        _, sealed = self.state(actor_id)
        return {} if sealed is None else self.open_applied(actor_id, sealed)

    def open_applied(self, actor_id: bytes, sealed: bytes) -> dict[bytes, list[int]]:
        """Return the calls in `sealed`.

        Raises:
            ForgedMessage: nobody who knows the secret wrote that.
        """
        calls: dict[bytes, list[int]] = decode(self._store.signer.open(b"state" + actor_id + b"applied", sealed))
        return calls

    def state(self, actor_id: bytes) -> tuple[bytes | None, bytes | None]:
        """Return a durable actor's committed (state, calls it contains), both sealed; None if there is none yet."""
        key = self._keys.actor(actor_id)
        state, applied = self._store.call(b"MGET", key + b":state", key + b":applied")
        return state, applied
