"""The store of objects, functions and what is known of clients: every command on Redis that both sides share.

HOT PATH (`commit`, `fetch`, `put_records`, `drop`; watched by all of `benchmarks/`). One connection under one lock;
threads that block (the inbox, the node's loop) open connections of their own with `open_connection`.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from warren_broker import records
from warren_broker.endpoint import Endpoint
from warren_broker.errors import ConnectError, ConnectionLost, StoreError
from warren_broker.ids import CLIENT_BYTES, NODE_BYTES
from warren_broker.queues.names import is_exclusive, parse
from warren_broker.serialization import Packed
from warren_broker.signing import ForgedMessage, Signer
from warren_broker.store import scripts
from warren_broker.store.connection import Connection, Script
from warren_broker.store.keys import Keys
from warren_broker.store.large import LargeObjects
from warren_broker.store.lives import Lives
from warren_broker.store.room import PATIENCE_SECONDS, Room

CLIENT_LEASE_SECONDS = 30.0  # after which a client that gave no sign of life counts as dead
PUT_ASIDE_KEPT = 1000
FETCH_AT_ONCE = 1000
FULL_RETRY_SECONDS = 0.05
PUT_ASIDE_BYTES = 4096
TAGS_KEPT = 10_000
SERVER_PATIENCE_SECONDS = 60.0
EMBEDDED_PATIENCE_SECONDS = 2.0  # an embedded server that is away has ended, with the session
OUTAGE_SECONDS = 0.5  # a server that was away for longer may have let leases end that their holders would have renewed

_NO_WRITES = ("MISCONF ", "NOREPLICAS ", "BUSY Redis")  # how such answers to a write begin
_PRIORITIES = frozenset(b"%d" % each for each in range(10))

# (actor key, epoch, state, calls it contains) of a commit that belongs to no durable actor
NOT_DURABLE = (b"", b"", b"", b"")

# What one dependant needs to be published: (spec key, frame, queue, priority, tag, suffix of the object)
NO_CONTINUATION = (b"", b"", b"")
Dependant = tuple[bytes, bytes, str, int, bytes, bytes]


def is_full(error: BaseException) -> bool:
    """Return True for Redis' answer to a write at `maxmemory`; Redis 6 wraps what a script is told into more text."""
    return "OOM command not allowed" in str(error)


def takes_no_writes(error: BaseException) -> bool:
    """Return True for Redis' answer to a write that it will take later: its disk is full, its replicas are away.

    Or a script of somebody else does not end.
    """
    text = str(error)  # what a script is told is in the middle of it, with Redis 6
    return any(each in text for each in _NO_WRITES)


def _destination(queue: bytes, priority: bytes) -> tuple[str, int]:
    """Return where a parked task goes, and how urgent it is.

    Raises:
        ValueError: that is no queue, or no priority: nobody signs them.
    """
    place = queue.decode("utf-8", "replace")
    parse(place)
    if priority not in _PRIORITIES:
        raise ValueError(f"{priority!r} is no priority")
    return place, int(priority)


def _checked(replies: list[Any]) -> list[Any]:
    """Return replies of which none is an error; raise the first that is."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


class ObjectStore:
    """Objects and their lives, in Redis. Every method may be called from any thread.

    Args:
        endpoint: the cluster.
        signer: authenticates every record.
        ttl: seconds after which an object is deleted whoever holds it; 0 for never.
        session: name of the shared-memory session of this host and cluster.
        host: id of this host.
        spill_url: where large values go that the store has no room for; "" for nowhere.
        memory_limit: bytes that the session's shared memory may take; None for what there is.

    Attributes:
        patience: seconds that a call waits for a server that is away.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        signer: Signer,
        *,
        ttl: float = 0.0,
        session: str = "",
        host: bytes = b"",
        spill_url: str = "",
        memory_limit: int | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.keys = Keys.of(endpoint)
        self.signer = signer
        self.ttl_milliseconds = int(ttl * 1000)
        self._ttl = str(self.ttl_milliseconds).encode()
        self._lock = threading.RLock()
        self._connection: Connection | None = None
        self._prefix = self.keys.prefix
        self._tags: dict[bytes, bytes] = {}
        self._here = b"1" if endpoint.embedded else b"0"
        self.patience = EMBEDDED_PATIENCE_SECONDS if endpoint.embedded else SERVER_PATIENCE_SECONDS
        self.room = Room(self)
        self.large = LargeObjects(self, session=session, host=host, spill_url=spill_url, limit_bytes=memory_limit)
        self.lives = Lives(self)
        self._closed = False
        self._met = False
        self.waits_for_room = False
        """Whether a full server is waited for like one that is away: for a node, which has nobody to tell."""
        self._outage_ended = -math.inf
        self._scripts: dict[str, Script] = {}
        self.on_full: Callable[[], None] = lambda: None  # what may make room is done before a full store is asked again

    # -- connection --------------------------------------------------------------------------------------------------

    def open_connection(self, name: str, *, at: tuple[str, int] | None = None) -> Connection:
        """Open one more connection, for a caller that blocks on it; `at` see `Connection.open`."""
        return Connection.open(self.endpoint, name=f"warren-{name}", at=at)

    @property
    def connection(self) -> Connection:
        """The shared connection; hold the lock while using it."""
        if self._connection is None or self._connection.closed:
            self._connection = self.open_connection("store")
            self._met = True
        return self._connection

    def call(self, *args: Any) -> Any:
        """Run one command that may safely run twice, and return its reply.

        A broken connection is opened again and the command repeated; a server that is away is waited for, and so is one
        that takes no writes just now (see `takes_no_writes`).

        Raises:
            ConnectionLost: the server stayed away for `patience` seconds.
            ConnectError: so it did, or it was never reached.
            StoreError: the server answered with an error.
        """
        with self._lock:
            try:
                return self.connection.call(*args)
            except (StoreError, ConnectError) as error:
                lost = self._passing(error)
        return self._again(lost, lambda: self.connection.call(*args))

    def pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run commands that may safely run twice in one round trip; error replies are raised. See `call`."""
        if not commands:
            return []
        with self._lock:
            try:
                return _checked(self.connection.pipeline(commands))
            except (StoreError, ConnectError) as error:
                lost = self._passing(error)
        return list(self._again(lost, lambda: _checked(self.connection.pipeline(commands))))

    def script(self, name: str, *args: Any) -> Any:
        """Run one of our scripts (all of them may safely run twice). See `call`."""
        with self._lock:
            try:
                return self._script(name)((), args)
            except (StoreError, ConnectError) as error:
                lost = self._passing(error)
        return self._again(lost, lambda: self._script(name)((), args))

    def pipeline_of_scripts(
        self, calls: Sequence[tuple[str, tuple[Any, ...]]], before: Sequence[tuple[Any, ...]] = ()
    ) -> list[Any]:
        """Run commands and then scripts (name, arguments) in one round trip; returns the scripts' replies.

        All of them may safely run twice. Error replies are raised.
        """
        if not calls and not before:
            return []
        with self._lock:
            try:
                return _checked(self._run_scripts(calls, before))[len(before) :]
            except (StoreError, ConnectError) as error:
                lost = self._passing(error)
        return list(self._again(lost, lambda: _checked(self._run_scripts(calls, before)))[len(before) :])

    def _run_scripts(
        self, calls: Sequence[tuple[str, tuple[Any, ...]]], before: Sequence[tuple[Any, ...]]
    ) -> list[Any]:
        commands = [*before, *[self._script(name).command((), arguments) for name, arguments in calls]]
        return self.connection.pipeline(commands)

    def when_room(self, action: Callable[[], Any], *, patience: float = PATIENCE_SECONDS, size: int = 0) -> Any:
        """Run `action` (which may safely run twice); while Redis is at `maxmemory`, wait and run it again.

        Args:
            action: what writes.
            patience: seconds to wait.
            size: bytes it wants to store, for the error.

        Raises:
            ObjectStoreFull: no room within `patience`.
        """
        deadline = 0.0
        while True:
            try:
                return action()
            except StoreError as error:
                if not is_full(error):
                    raise
                now = time.monotonic()
                deadline = deadline or now + patience
                if now >= deadline:
                    raise self.room.refused(size) from error
            self.on_full()
            time.sleep(FULL_RETRY_SECONDS)

    def _script(self, name: str) -> Script:
        connection = self.connection
        script = self._scripts.get(name)
        if script is None or script._connection is not connection:
            script = self._scripts[name] = connection.script(scripts.source_of(name))
        return script

    def _passing(self, error: StoreError | ConnectError) -> StoreError | ConnectError:
        """Return an error that may be over soon; raise any other."""
        if isinstance(error, (ConnectionLost, ConnectError)) or takes_no_writes(error):
            return error
        if self.waits_for_room and is_full(error):
            return error
        raise error

    def _again(self, lost: StoreError | ConnectError, run: Callable[[], Any]) -> Any:
        """Repeat what was interrupted until the server is back.

        Waiting happens here and nowhere else: whoever calls the store would otherwise have to undo half of what it
        was doing, at a hundred places. A server that was never reached is the user's mistake, and not waited for.
        """
        started = time.monotonic()
        delay = 0.0
        while True:
            full = is_full(lost)
            away = isinstance(lost, (ConnectionLost, ConnectError))
            patience = self.patience if away else SERVER_PATIENCE_SECONDS
            if not self._met or self._closed or time.monotonic() - started > patience:
                raise lost
            if full:
                self.on_full()
            time.sleep(delay)
            delay = min(0.25, delay * 2 + 0.01)
            try:
                with self._lock:
                    result = run()
            except (StoreError, ConnectError) as error:
                lost = self._passing(error)
                continue
            if time.monotonic() - started > OUTAGE_SECONDS:
                self._outage_ended = time.monotonic()
            return result

    def expect_server(self) -> None:
        """The address is known to be right: wait for the server from the first command on."""
        self._met = True

    def trusts_leases(self, lease: float) -> bool:
        """True if leases in the store can be judged: the server has not been away within the last `lease` seconds.

        Nobody could renew a lease while it was away, so one that has ended proves nothing yet.
        """
        return time.monotonic() - self._outage_ended > lease

    def wait_for_server(self, error: Exception) -> None:
        """Wait until the server answers again.

        Raises:
            StoreError: it stayed away for `patience` seconds.
        """
        if self._closed:
            return
        try:
            self.call(b"PING")
        except (StoreError, ConnectionError) as again:
            raise StoreError(f"Redis does not answer: {again}") from error

    def tag(self, client: bytes) -> bytes:
        """Return the hash tag part of a client's keys (remembered)."""
        tag = self._tags.get(client)
        if tag is None:
            if len(self._tags) >= TAGS_KEPT:
                self._tags.clear()
            tag = self._tags[client] = self.keys.tag(client)
        return tag

    def _pairs(self, object_ids: Sequence[bytes]) -> list[bytes]:
        pairs: list[bytes] = []
        for object_id in object_ids:
            pairs += (self.tag(object_id[:CLIENT_BYTES]), object_id[CLIENT_BYTES:])
        return pairs

    # -- records -----------------------------------------------------------------------------------------------------

    def seal(self, object_id: bytes, record: bytes) -> bytes:
        """Return the record as it stands under the object's key."""
        return self.signer.seal(object_id, record)

    def unseal(self, object_id: bytes, stored: bytes | None) -> bytes | None:
        """Return the record of a stored value; None if there is none, or a forged one (treated as absent)."""
        if stored is None:
            return None
        try:
            return self.signer.open(object_id, stored)
        except ForgedMessage as error:
            self.put_aside(f"object {object_id.hex()}", stored, str(error))
            return None

    def put_records(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Store small objects, in one round trip."""
        key, seal = self.keys.object, self.signer.seal
        if self._ttl == b"0":
            commands: list[tuple[Any, ...]] = [(b"SET", key(oid), seal(oid, record)) for oid, record in items]
        else:
            commands = [(b"SET", key(oid), seal(oid, record), b"PX", self._ttl) for oid, record in items]
        self.pipeline(commands)

    def put_packed(self, object_id: bytes, packed: Packed) -> bytes:
        """Store a value of any size; return its record."""
        if not packed.buffers and len(packed.data) <= records.INLINE_LIMIT_BYTES:
            record = records.containing(packed.refs, packed.data) if packed.refs else records.plain(packed.data)
        else:
            record = self.large.write(object_id, packed)
        self.room.require(len(record))
        self.when_room(lambda: self.put_records([(object_id, record)]), size=len(record))
        return record

    def read_large(self, object_id: bytes, manifest: records.Manifest) -> Any:
        """Return the value that a manifest describes; see `large`."""
        return self.large.read(object_id, manifest)

    def fetch(self, object_ids: Sequence[bytes]) -> list[bytes | None]:
        """Return the records of objects, None for those that are not there."""
        if not object_ids:
            return []
        key = self.keys.object
        if len(object_ids) <= FETCH_AT_ONCE:
            stored = self.call(b"MGET", *[key(object_id) for object_id in object_ids])
        else:
            # In parts, so that Redis serves others in between; still one round trip.
            names = [key(object_id) for object_id in object_ids]
            parts = [(b"MGET", *names[at : at + FETCH_AT_ONCE]) for at in range(0, len(names), FETCH_AT_ONCE)]
            stored = [value for part in self.pipeline(parts) for value in part]
        return [self.unseal(oid, value) for oid, value in zip(object_ids, stored, strict=True)]

    def subscribe(self, client: bytes, object_ids: Sequence[bytes]) -> tuple[list[bytes | None], list[bytes]]:
        """Like `fetch`, and have the client told on its inbox of those that are not there yet.

        Returns:
            The records, None for those to come; the ids of those that will never come: their owner is gone.
        """
        parts = [object_ids[at : at + FETCH_AT_ONCE] for at in range(0, len(object_ids), FETCH_AT_ONCE)]
        calls = [("subscribe", (self._prefix, client, *self._pairs(part))) for part in parts]
        try:
            replies = self.pipeline_of_scripts(calls)
        except StoreError as error:
            if not is_full(error):
                raise
            return self.fetch(object_ids), []  # nobody is told, but whoever waits looks again by itself
        found: list[bytes | None] = []
        orphans: list[bytes] = []
        for object_id, stored in zip(object_ids, [each for reply in replies for each in reply], strict=True):
            if stored == 0:
                orphans.append(object_id)
                found.append(None)
            else:
                found.append(self.unseal(object_id, stored))
        return found, orphans

    def commit_arguments(
        self,
        owner: bytes,
        items: Sequence[bytes],
        entry: bytes,
        *,
        require_owner: bool,
        durable: tuple[bytes, bytes, bytes, bytes] = NOT_DURABLE,
        preparer: bytes = b"",
        to_run: str = "",
        continuations: bytes = b"",
        ends: tuple[bytes, bytes, bytes] = NO_CONTINUATION,
        publish: bool = True,
    ) -> list[bytes]:
        """Return the arguments of `commit.lua` for results of `owner`'s tasks (id, record, id, record, ...).

        Args:
            owner: whose tasks they are of.
            items: the results.
            entry: what the owner's inbox gets, b"" for nothing.
            require_owner: commit nothing if the owner is gone.
            durable: of the durable actor that made them.
            preparer: the client that prepared them (see `Lives.prepare`), which must be alive; b"" for none.
            to_run: a queue of which one released task is to be handed over instead of being published; "" for none.
            continuations: the key where it is noted then, and where `ends` is.
            ends: (spec, tag, suffix) of the continuation whose result this is.
            publish: on the embedded engine, publish what is released; False to have it returned.
        """
        arguments = [
            self._prefix, self.tag(owner), entry, self._ttl, b"1" if require_owner else b"0",
            self._here if publish else b"0", *durable,
            self.keys.client(preparer) if preparer else b"", to_run.encode(), continuations, *ends,
        ]  # fmt: skip
        seal = self.signer.seal
        for at in range(0, len(items), 2):
            object_id = items[at]
            arguments += (object_id[CLIENT_BYTES:], seal(object_id, items[at + 1]))
        return arguments

    def commit(
        self, owner: bytes, items: Sequence[bytes], entry: bytes, *, require_owner: bool, publish: bool = True
    ) -> list[Any]:
        """Commit results; returns what `commit.lua` leaves to do."""
        arguments = self.commit_arguments(owner, items, entry, require_owner=require_owner, publish=publish)
        reply: list[Any] = self.script("commit", *arguments)
        return reply

    def dependants(self, owner: bytes, left: Sequence[Any]) -> tuple[list[Dependant], list[tuple[bytes, bytes]]]:
        """Read what `commit` left to do: (specs to publish, (client, suffix) pairs to tell)."""
        publish, tell, *_ = self.left_to_do(owner, left)
        return publish, tell

    def left_to_do(
        self, owner: bytes, left: Sequence[Any]
    ) -> tuple[list[Dependant], list[tuple[bytes, bytes]], list[bytes], Dependant | None]:
        """Read what `commit` left to do.

        Returns:
            (specs to publish, (client, suffix) pairs to tell, ids of the results that found another in their place,
            the task handed over to be run).
        """
        publish: list[Dependant] = []
        tell: list[tuple[bytes, bytes]] = []
        lost: list[bytes] = []
        to_run: Dependant | None = None
        at = 0
        tag = self.tag(owner)
        while at < len(left):
            if left[at] == b"c":
                tell.append((left[at + 1], left[at + 2]))
                at += 3
            elif left[at] == b"x":
                lost.append(owner + left[at + 1])
                at += 2
            else:
                kind, spec, frame, queue, priority, suffix = left[at : at + 6]
                at += 6
                try:
                    place, urgency = _destination(queue, priority)
                except ValueError as error:
                    self.put_aside("parked task", frame, str(error))
                    self.launched([(spec, frame, "", 0, tag, suffix)])
                    continue
                dependant = (spec, frame, place, urgency, tag, suffix)
                if kind == b"r":
                    to_run = dependant
                else:
                    publish.append(dependant)
        return publish, tell, lost, to_run

    def park(self, specs: Sequence[tuple[bytes, bytes, str, int, Sequence[bytes]]]) -> list[bool]:
        """Keep specs (task id, frame, queue, priority, dependencies) until their dependencies are there.

        Returns:
            True for each spec that waits for nothing: it is not kept, the caller publishes it.
        """
        arguments: list[tuple[Any, ...]] = [
            (self._prefix, self.keys.spec(task_id), frame, queue, priority, *self._pairs(dependencies))
            for task_id, frame, queue, priority, dependencies in specs
        ]

        def run() -> list[Any]:
            with self._lock:
                script = self._script("park")
                return self.pipeline([script.command((), each) for each in arguments])

        replies = self.when_room(run)
        return [reply == 1 for reply in replies]

    def start_once(self, node: bytes, task_ids: Sequence[bytes], token: bytes = b"") -> list[bytes]:
        """Mark tasks of one client, which may run once only, as started by a node.

        Args:
            node: which.
            task_ids: the tasks.
            token: 8 bytes; who calls again after an error, with the same ones, may start what the first call marked.

        Returns:
            For each task: b"" if it may start now, else the node that started it before.
        """
        # The script runs again if its reply is lost: what it marked the first time must not look like an older mark.
        mark = node + (token or secrets.token_bytes(8))
        before = self.script("start_once", self._prefix, self.tag(task_ids[0][:CLIENT_BYTES]), mark, *task_ids)
        return [each[:NODE_BYTES] for each in before]

    def started_by(self, task_id: bytes) -> bytes | None:
        """Return the node that marked a task with `start_once`; None if none did, or it took the mark back."""
        mark = self.call(b"HGET", self.keys.starts(task_id[:CLIENT_BYTES]), task_id)
        return None if mark is None else mark[:NODE_BYTES]

    def count_attempts(self, task_ids: Sequence[bytes]) -> list[int]:
        """Count one more attempt of each of these tasks of one client; return the counts."""
        rest = [task_id[CLIENT_BYTES:] for task_id in task_ids]
        counts: list[int] = self.script("count_attempts", self._prefix, self.tag(task_ids[0][:CLIENT_BYTES]), *rest)
        return counts

    def launched(self, dependants: Sequence[Dependant]) -> None:
        """Dependants are on their queues for certain: forget their specs."""
        arguments: list[bytes] = []
        for spec, _, _, _, tag, suffix in dependants:
            arguments += (tag, suffix, spec)
        self.script("launched", self._prefix, *arguments)

    # -- functions ---------------------------------------------------------------------------------------------------

    def put_function(self, digest: bytes, pickled: bytes) -> None:
        """Store a pickled function under its content hash."""
        # Over one that is there: it is the same function, but may be signed with a secret that is being replaced.
        sealed = self.signer.seal(b"function" + digest, pickled)
        self.when_room(lambda: self.call(b"SET", self.keys.function(digest), sealed), size=len(pickled))

    def get_function(self, digest: bytes) -> bytes:
        """Return a pickled function.

        Raises:
            StoreError: it is not there.
            ForgedMessage: it is not signed with one of our secrets.
        """
        stored = self.call(b"GET", self.keys.function(digest))
        if stored is None:
            raise StoreError(f"function {digest.hex()} is not in the store; was Redis emptied while work ran?")
        try:
            return self.signer.open(b"function" + digest, stored)
        except ForgedMessage as error:
            self.put_aside(f"function {digest.hex()}", stored, str(error))
            raise

    # -- clients, jobs, nodes ----------------------------------------------------------------------------------------

    def time(self) -> float:
        """Return the time by the clock of Redis, in seconds: clocks of nodes and drivers may be hours apart."""
        seconds, microseconds = self.call(b"TIME")
        return int(seconds) + int(microseconds) / 1e6

    def register_client(self, client: bytes, lease: float) -> None:
        """Give a client a sign of life for `lease` seconds."""
        self.script("renew", *self._renewal(client, lease), b"1")

    def renew_client(self, client: bytes, lease: float) -> bool:
        """Keep a client's sign of life for `lease` seconds more; False if it counts as dead and is cleared away."""
        return bool(self.script("renew", *self._renewal(client, lease), b"0") == 1)

    def keep_clients(self, clients: Sequence[bytes], lease: float) -> None:
        """Keep the signs of life of those clients that have one."""
        self.pipeline_of_scripts([("renew", (*self._renewal(each, lease), b"0")) for each in clients])

    def _renewal(self, client: bytes, lease: float) -> tuple[Any, ...]:
        return self.keys.client(client), self.keys.clients, client, int(lease * 1000)

    def is_alive(self, client: bytes) -> bool:
        """True until somebody clears up after a client (its lease may have ended while Redis was away)."""
        sign, score = self.pipeline([(b"EXISTS", self.keys.client(client)), (b"ZSCORE", self.keys.clients, client)])
        return bool(sign) or (score is not None and score != b"-inf")

    def registered(self, clients: Sequence[bytes]) -> list[bytes]:
        """Return those clients that are on record as living and have not said goodbye."""
        scores = self.pipeline([(b"ZSCORE", self.keys.clients, each) for each in clients])
        return [each for each, score in zip(clients, scores, strict=True) if score is not None]

    def end_job(self, job: bytes) -> None:
        """A driver leaves: its record goes, nodes let its executors end."""
        from warren_broker.messages import encode

        self.pipeline(
            [
                (b"DEL", self.keys.job(job)),
                (b"PUBLISH", self.keys.control_channel, self.signer.seal(b"control", encode(["job-ended", job]))),
            ]
        )

    def tell(self, client: bytes, entry: bytes) -> None:
        """Put an entry on a client's inbox, if the client lives."""
        self.script("tell", self.keys.client(client), self.keys.inbox(client), entry)

    def announce_cancel(self, keys: Keys, task_id: bytes, client: bytes, *, force: bool, recursive: bool) -> None:
        """Tell every node that a task is cancelled; late ones find it in the list for an hour."""
        from warren_broker.messages import encode

        message = self.signer.seal(b"control", encode(["cancel", task_id, client, force, recursive]))
        self.pipeline(
            [
                (b"ZADD", keys.cancelled, self.time() + 3600, task_id),
                (b"PUBLISH", keys.control_channel, message),
            ]
        )

    def announce_queue(self, queue: str) -> None:
        """Tell every node of a queue that is published to for the first time (an actor's host needs no telling)."""
        if is_exclusive(queue):
            return
        self._announce(self.keys.queues, queue)

    def announce_priorities(self, queue: str) -> None:
        """Tell every node that the tasks of a queue have priorities: what is most urgent must not wait on a node."""
        self._announce(self.keys.prioritized, queue)

    def _announce(self, among: bytes, queue: str) -> None:
        commands = [(b"SADD", among, queue), (b"PUBLISH", self.keys.queues_channel, queue)]
        self.when_room(lambda: self.pipeline(commands))

    def cluster_slots(self) -> int:
        """Return how many one-CPU tasks the living nodes can run at once; 0 if unknown."""
        values = self.call(b"HVALS", self.keys.nodes + b":slots")
        return sum(int(value) for value in values or ())

    @property
    def closed(self) -> bool:
        """True once `close` was called."""
        return self._closed

    def put_aside(self, where: str, data: bytes, reason: str) -> None:
        """Keep something unreadable for the operator (the last `PUT_ASIDE_KEPT` of them), and count it."""
        told = f"{time.time():.3f} {where}: {reason}".encode() + b"\0" + data[:PUT_ASIDE_BYTES]
        try:
            self.pipeline(
                [
                    (b"LPUSH", self.keys.put_aside, told),
                    (b"LTRIM", self.keys.put_aside, 0, PUT_ASIDE_KEPT - 1),
                    (b"INCR", self.keys.put_aside + b":count"),
                ]
            )
        except StoreError:
            return  # the record of a bad message is not worth failing good work for

    def close(self) -> None:
        """Close the shared connection."""
        self._closed = True
        self.large.close()
        with self._lock:
            if self._connection is not None:
                self._connection.close()
