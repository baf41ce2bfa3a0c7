"""How long objects live: who holds them, and what happens when somebody lets go or dies.

The owner of an object is the client whose id begins the object's id. It counts its own handles in its own memory.
Redis knows of everybody else who holds the object, the *holders*:

    c<client>       a borrower: a process with a handle on an object that it does not own
    o<object id>    an object whose value contains a ref to this one
    s<actor id>     the committed state of a durable actor
    !               not a holder: the owner has let go

                     owner drops it, no holders
    object  -----------------------------------------------------------------------.
       |                                                                           v
       |  owner drops it, holders left            last holder lets go           deleted
       '-------------------------------> marked `!` ------------------------------>'
                                            |    the owner gets a handle again
                                            '--> unmarked (`reclaim`)

A deleted object may have buffers (chunks, files) and refs of its own. The script that deletes it moves its record
into the owner's *graves* in the same step; whoever ran the script lets buffers and refs go and then clears the grave.
If it dies in between, the owner (`finish_graves`) or the janitor does it again: everything here may run twice.

A client that stores a result prepares it first: its refs are held by the object, its buffers written, and both stand
in the client's *pending* hash until the commit is through. A result that lost (another run of the task was first), or
whose writer died, is undone by comparing with the record that stands.

What a dead client leaves is cleared by `leave`, which is also how a client says goodbye: what it borrowed or prepared
is let go, its objects are dropped like by itself. Those that others hold stay readable until the last of them lets
go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from rabbitry_broker import records
from rabbitry_broker.errors import StoreError, is_wrong_type
from rabbitry_broker.ids import CLIENT_BYTES, OBJECT_BYTES, SUFFIX_BYTES
from rabbitry_broker.serialization import Packed
from rabbitry_broker.shared_memory import ObjectStoreFull
from rabbitry_broker.store.aside import Aside
from rabbitry_broker.store.functions import Functions
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.large import LargeObjects
from rabbitry_broker.store.records import Records
from rabbitry_broker.store.room import Room
from rabbitry_broker.store.server import Server, is_full
from rabbitry_broker.store.tags import Tags

Command = tuple[Any, ...]

CHUNK: Final = 1000
"""Objects in one call of a script: Redis serves others in between, and Lua's stack holds no more than 8000."""

RECORDS: Final = 200
"""The same where the script moves records, which may have 64 KiB each."""

SCAN_COUNT: Final = 1000
ORPHAN_ERROR_MILLISECONDS: Final = 60_000
# Kinds of keys that are about objects: they go with these.
_OBJECT_KINDS: Final = frozenset((b"o", b"h", b"hg", b"r", b"x"))
_SPECIAL: Final = frozenset((records.CONTAINING_TAG, records.LARGE_TAG))


def is_special(record: bytes) -> bool:
    """True if the value has buffers or refs of its own to let go of."""
    return record[0] in _SPECIAL


class Lives:
    """Holds, releases and deletes objects in Redis. Any thread may call anything.

    Args:
        server: Redis.
        keys: of the cluster.
        tags: of clients.
        objects: their records.
        large: buffers of large values.
        functions: which clients hold.
        aside: for what cannot be read.
        room: what Redis has room for.

    Attributes:
        on_actor_released: hears of actors whose last handle went.
        on_gone: hears of clients that are cleared up after, once they count as dead.
    """

    def __init__(
        self,
        server: Server,
        keys: Keys,
        tags: Tags,
        objects: Records,
        large: LargeObjects,
        functions: Functions,
        aside: Aside,
        room: Room,
    ) -> None:
        self._server = server
        self._keys = keys
        self._prefix = keys.prefix
        self._tags = tags
        self._objects = objects
        self._large = large
        self._functions = functions
        self._aside = aside
        self._room = room
        self.on_actor_released: Callable[[bytes], None] | None = None
        self.on_gone: Callable[[Sequence[bytes]], None] | None = None

    # -- holding -----------------------------------------------------------------------------------------------------

    def hold(self, holder: bytes, object_ids: Sequence[bytes]) -> None:
        """Note that `holder` holds objects besides their owners."""
        self._server.pipeline_of_scripts(self._hold(holder, object_ids))

    def borrow(self, client: bytes, object_ids: Sequence[bytes]) -> None:
        """Note that a client holds foreign objects, so that they outlive their owner's handles."""
        # On record before it is held: if the client dies in between, releasing what is not held is harmless.
        key = self._keys.borrowed(client)
        commands: list[Command] = [(b"SADD", key, *part) for part in _parts(object_ids)]
        self._server.pipeline_of_scripts(self._hold(b"c" + client, object_ids), before=commands)

    def give_back(self, client: bytes, object_ids: Sequence[bytes]) -> None:
        """The client holds these foreign objects no more."""
        self.release(b"c" + client, object_ids)
        key = self._keys.borrowed(client)
        self._server.pipeline([(b"SREM", key, *part) for part in _parts(object_ids)])

    def reclaim(self, object_ids: Sequence[bytes]) -> None:
        """The owner, which had dropped these, has handles again. Something else must hold them meanwhile."""
        self._server.pipeline_of_scripts(
            [("reclaim", (self._prefix, self._tags.of(owner), *suffixes)) for owner, suffixes in _by_owner(object_ids)]
        )

    def _hold(self, holder: bytes, object_ids: Sequence[bytes]) -> list[tuple[str, Command]]:
        return [
            ("hold", (self._prefix, self._tags.of(owner), holder, *suffixes))
            for owner, suffixes in _by_owner(object_ids)
        ]

    # -- letting go --------------------------------------------------------------------------------------------------

    def release(self, holder: bytes, object_ids: Sequence[bytes]) -> None:
        """A holder lets go; what nobody holds any more is deleted, with what it held itself."""
        self._release([(holder, object_ids)])

    def _release(self, holdings: Sequence[tuple[bytes, Sequence[bytes]]], before: Sequence[Command] = ()) -> None:
        owners: list[bytes] = []
        calls: list[tuple[str, Command]] = []
        for holder, object_ids in holdings:
            for owner, suffixes in _by_owner(object_ids, RECORDS):
                owners.append(owner)
                calls.append(("release", (self._prefix, self._tags.of(owner), holder, *suffixes)))
        replies = self._server.pipeline_of_scripts(calls, before=before)
        self._bury(zip(owners, replies, strict=True))

    def drop(self, object_ids: Sequence[bytes], *, plain: bool = False) -> tuple[set[bytes], list[bytes]]:
        """Their owner lets go of objects: those that nobody else holds are deleted.

        Args:
            object_ids: of any owners.
            plain: True if none of them has buffers or refs of its own; saves looking.

        Returns:
            The ids of those that others hold and that stay; the ids of those that must be dropped again later, since
            Redis is full and could not note it.
        """
        owners: list[bytes] = []
        calls: list[tuple[str, Command]] = []
        for owner, suffixes in _by_owner(object_ids, CHUNK if plain else RECORDS):
            owners.append(owner)
            calls.append(("drop", (self._prefix, self._tags.of(owner), b"0" if plain else b"1", *suffixes)))
        kept: set[bytes] = set()
        failed: list[bytes] = []
        graves = []
        for owner, (stay, again, gone) in zip(owners, self._server.pipeline_of_scripts(calls), strict=True):
            kept.update([owner + suffix for suffix in stay])
            failed += [owner + suffix for suffix in again]
            graves.append((owner, gone))
        self._bury(graves)
        return kept, failed

    def free(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Delete values at once, whoever holds them; each leaves the given error record in its place."""
        owners: list[bytes] = []
        calls: list[tuple[str, Command]] = []
        errors = dict(items)
        for owner, suffixes in _by_owner([object_id for object_id, _ in items], RECORDS):
            arguments: list[bytes] = []
            for suffix in suffixes:
                arguments += (suffix, self._objects.seal(owner + suffix, errors[owner + suffix]))
            owners.append(owner)
            calls.append(("free", (self._prefix, self._tags.of(owner), *arguments)))
        self._bury(zip(owners, self._server.pipeline_of_scripts(calls), strict=True))

    def _bury(self, graves: Iterable[tuple[bytes, Sequence[bytes]]]) -> None:
        """Let go of what deleted objects had: buffers, refs, actors. One round trip for each level of nesting."""
        let_go: list[tuple[bytes, Sequence[bytes]]] = []
        chunks: list[bytes] = []
        done: dict[bytes, list[bytes]] = {}
        actors: list[bytes] = []
        for owner, flat in graves:
            for at in range(0, len(flat), 2):
                suffix = flat[at]
                object_id = owner + suffix
                done.setdefault(owner, []).append(suffix)
                record = self._objects.unseal(object_id, flat[at + 1])
                if record is None:
                    continue
                inner = records.contained(record)
                if inner:
                    let_go.append((b"o" + object_id, inner))
                if record[0] == records.LARGE_TAG:
                    chunks += self._large.forget_here(object_id, records.read_manifest(record))
                elif record[0] == records.ACTOR_TAG:
                    actors.append(record[1:])
        if not done:
            return
        commands = self._large.deletions(chunks)
        clear: list[Command] = [
            (b"HDEL", self._keys.graves(owner), *part) for owner, suffixes in done.items() for part in _parts(suffixes)
        ]
        if self.on_actor_released is not None:
            for actor in actors:
                self.on_actor_released(actor)
        if let_go:
            self._release(let_go, before=commands)
            self._server.pipeline(clear)
        else:
            self._server.pipeline(commands + clear)

    def finish_graves(self, client: bytes) -> None:
        """Let go of what others deleted of this client's and did not finish."""
        graves = self._server.call(b"HGETALL", self._keys.graves(client))
        if graves:
            self._bury([(client, graves)])

    # -- results -----------------------------------------------------------------------------------------------------

    def prepare(self, client: bytes, object_id: bytes, packed: Packed) -> bytes:
        """Store a result's buffers and note what it holds; return its record, for the commit.

        Args:
            client: who prepares it, and is looked after if it dies.
            object_id: the result.
            packed: its value.

        Raises:
            ObjectStoreFull: no room.
        """
        if packed.buffers or len(packed.data) > records.INLINE_LIMIT_BYTES:
            manifest = self._large.describe(packed)
            outline = records.without_data(records.large(manifest))
            marked = False

            def mark() -> None:
                nonlocal marked
                marked = True
                self._mark(client, object_id, outline, packed.refs)

            if packed.refs:
                mark()
            try:
                # Without refs, and on this host alone, there is nothing that its nodes would not find by themselves.
                return self._large.write(object_id, packed, manifest, before_sending=None if packed.refs else mark)
            except ObjectStoreFull:
                if marked:
                    self.settle(client, [(object_id, outline)], lost=[object_id])
                raise
        if not packed.refs:
            return records.plain(packed.data)
        self._mark(client, object_id, records.containing(packed.refs, b""), packed.refs)
        return records.containing(packed.refs, packed.data)

    def _mark(self, client: bytes, object_id: bytes, outline: bytes, refs: Sequence[bytes]) -> None:
        mark = (
            b"HSET",
            self._keys.pending(client),
            object_id + records.token_of(outline),
            self._objects.seal(object_id, outline),
        )
        holds = self._hold(b"o" + object_id, refs)
        self._room.when_room(lambda: self._server.pipeline_of_scripts(holds, before=[mark]))

    def settle(self, client: bytes, prepared: Sequence[tuple[bytes, bytes]], lost: Iterable[bytes] = ()) -> None:
        """The commit of prepared results is through, or will never be.

        Args:
            client: who prepared them.
            prepared: (object id, record) of each.
            lost: ids of those whose record may not be the one that stands.
        """
        doubtful = set(lost)
        undone = []
        for object_id, record in prepared:
            if object_id in doubtful:
                undone.append((object_id, record))
            elif record[0] == records.LARGE_TAG:
                self._large.settle(object_id, record)
        if undone:
            self._undo(undone)
        marks = [object_id + records.token_of(record) for object_id, record in prepared]
        self._server.pipeline([(b"HDEL", self._keys.pending(client), *part) for part in _parts(marks)])

    def _undo(self, prepared: Sequence[tuple[bytes, bytes]]) -> None:
        """Let go of what results have that were prepared, as far as it is not what the standing records have."""
        let_go: list[tuple[bytes, Sequence[bytes]]] = []
        chunks: list[bytes] = []
        standing = self._objects.fetch([object_id for object_id, _ in prepared])
        for (object_id, record), stands in zip(prepared, standing, strict=True):
            kept = set(records.contained(stands)) if stands is not None else set()
            inner = [each for each in records.contained(record) if each not in kept]
            if inner:
                let_go.append((b"o" + object_id, inner))
            token = records.token_of(record)
            if token and (stands is None or records.token_of(stands) != token):
                chunks += self._large.forget_here(object_id, records.read_manifest(record))
        commands = self._large.deletions(chunks)
        if let_go:
            self._release(let_go, before=commands)
        else:
            self._server.pipeline(commands)

    # -- goodbyes ----------------------------------------------------------------------------------------------------

    def leave(
        self,
        clients: Collection[bytes],
        orphan: Callable[[list[bytes]], None],
        other_key: Callable[[bytes], None] | None = None,
    ) -> Iterator[None]:
        """Clear up, step by step, after clients that say goodbye or are dead. May run twice, also at the same time.

        Args:
            clients: who.
            orphan: called with ids of results that will never come and that somebody waits for: it is to commit an
                error for each.
            other_key: called with the name of every key in the store that belongs to no client.
        """
        server, keys = self._server, self._keys
        # From here on nothing is committed for them, and they cannot come back to life.
        try:
            server.pipeline([(b"ZADD", keys.clients, b"XX", b"-inf", client) for client in clients])
        except StoreError as error:
            # At maxmemory this is refused, and so are commits.
            if not is_full(error):
                raise
        server.pipeline([(b"DEL", keys.client(client)) for client in clients] + [(b"ZREM", keys.drivers, *clients)])
        if self.on_gone is not None:
            self.on_gone(list(clients))
        for client in clients:
            self._undo_pending(client)
            self._functions.leave(client)
            borrowed = server.call(b"SMEMBERS", keys.borrowed(client))
            for part in _parts(list(borrowed)):
                self.release(b"c" + client, part)
                yield
        found: dict[bytes, dict[bytes, list[bytes]]] = {client: {} for client in clients}
        yield from self._find(found, other_key)
        for client in clients:
            yield from self._clear(client, found[client], orphan)

    def _clear(
        self, client: bytes, found: dict[bytes, list[bytes]], orphan: Callable[[list[bytes]], None]
    ) -> Iterator[None]:
        server, keys = self._server, self._keys
        start = self._tags.of(client)

        def delete(kind: bytes) -> Iterator[None]:
            for part in _parts(found.get(kind, ())):
                server.call(b"UNLINK", *[keys.prefix + kind + start + (b":" + each if each else b"") for each in part])
                yield

        # Specs first: what waits for the dead themselves must not be started by errors committed below.
        yield from delete(b"d")
        self._orphan_waiters(client, orphan)
        self.finish_graves(client)
        mine = set(found.get(b"o", ())) | set(server.call(b"SMEMBERS", keys.held(client)))
        kept: set[bytes] = set()
        failed: list[bytes] = []
        for part in _parts([client + suffix for suffix in mine if len(suffix) == SUFFIX_BYTES]):
            stay, again = self.drop(part)
            kept |= stay
            failed += again
            yield
        for part in _parts(self._stray_chunks(client, found.get(b"x", ()), kept)):
            server.pipeline(self._large.deletions(part))
            yield
        for kind in found:
            if kind not in _OBJECT_KINDS and kind != b"d":
                yield from delete(kind)
        # What others delete later, and do not finish, is finished by the janitor.
        server.call(b"SADD" if kept else b"SREM", keys.ghosts, client)
        if not failed:
            server.script("cleared", keys.clients, client)

    def erase(self, client: bytes) -> Iterator[None]:
        """Delete all keys of a client unread, step by step: for one among whose keys somebody else has written."""
        server, keys = self._server, self._keys
        cursor: Any = b"0"
        while True:
            cursor, found = server.call(b"SCAN", cursor, b"MATCH", keys.client_pattern(client), b"COUNT", SCAN_COUNT)
            if found:
                server.call(b"UNLINK", *found)
            yield
            if cursor == b"0":
                break
        if server.endpoint.spread:
            for part in self._large.scan_chunks(client):
                self._large.delete_chunks(part)
                yield
        server.pipeline([(b"ZREM", each, client) for each in (keys.clients, keys.drivers)])
        server.call(b"SREM", keys.ghosts, client)

    def forget(self, client: bytes) -> bool:
        """Say goodbye for a client that has no objects but those that others hold: nothing is looked for.

        Returns:
            False if that is not so: something has come for it, and it is as before.
        """
        server, keys = self._server, self._keys
        own = (keys.inbox(client), keys.client(client), keys.starts(client), keys.attempts(client))
        return bool(server.script("forget", keys.clients, client, keys.ghosts, keys.held(client), *own))

    def lay_ghosts(self) -> None:
        """Finish the graves of clients that have left; forget those of whom nothing is left."""
        server, keys = self._server, self._keys
        for client in server.call(b"SMEMBERS", keys.ghosts):
            try:
                self.finish_graves(client)
            except StoreError as error:
                if not is_wrong_type(error):
                    raise
                server.call(b"UNLINK", keys.graves(client))
                self._aside.put(f"graves of client {client.hex()}", b"", str(error))
            held, graves = server.pipeline([(b"EXISTS", keys.held(client)), (b"EXISTS", keys.graves(client))])
            if not held and not graves:
                server.call(b"SREM", keys.ghosts, client)

    def _undo_pending(self, client: bytes) -> None:
        flat = self._server.call(b"HGETALL", self._keys.pending(client))
        prepared: list[tuple[bytes, bytes]] = []
        for at in range(0, len(flat), 2):
            object_id = flat[at][:OBJECT_BYTES]
            outline = self._objects.unseal(object_id, flat[at + 1])
            if outline is not None:
                prepared.append((object_id, outline))
        for part in _parts(prepared):
            self._undo(part)

    def _orphan_waiters(self, client: bytes, orphan: Callable[[list[bytes]], None]) -> None:
        """Give an error to everybody else who waits for results of a client that is gone."""
        server, keys = self._server, self._keys
        own_waiter, own_spec = b"c" + client, b"t" + keys.spec(client)
        waited = [client + suffix for suffix in server.call(b"SMEMBERS", keys.waited(client))]
        waiters = server.pipeline([(b"SMEMBERS", keys.waiters(each)) for each in waited])
        orphans = [
            object_id
            for object_id, who in zip(waited, waiters, strict=True)
            if any(each != own_waiter and not each.startswith(own_spec) for each in who)
        ]
        if not orphans:
            return
        orphan(orphans)
        held = server.pipeline([(b"EXISTS", keys.holders(each)) for each in orphans])
        self.drop([each for each, is_held in zip(orphans, held, strict=True) if is_held])
        # Whoever waits without holding it has a while to read it.
        server.pipeline(
            [
                (b"PEXPIRE", keys.object(each), ORPHAN_ERROR_MILLISECONDS)
                for each, is_held in zip(orphans, held, strict=True)
                if not is_held
            ]
        )

    def _find(
        self, found: dict[bytes, dict[bytes, list[bytes]]], other_key: Callable[[bytes], None] | None
    ) -> Iterator[None]:
        """Fill in the suffixes (b"" for none) of all keys with the clients' tags, by client and kind."""
        server, keys = self._server, self._keys
        by_tag = {self._tags.of(client)[2:-1]: found[client] for client in found}
        alone = len(found) == 1 and other_key is None
        pattern = keys.client_pattern(next(iter(found))) if alone else keys.prefix + b"*"
        cursor: Any = b"0"
        while True:
            cursor, names = server.call(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", SCAN_COUNT)
            for name in names:
                kind, braced, rest = name[len(keys.prefix) :].partition(b":{")
                tag, _, suffix = rest.partition(b"}")
                of_client = by_tag.get(tag)
                if of_client is not None:
                    of_client.setdefault(kind, []).append(suffix[1:])
                elif not braced and other_key is not None:
                    other_key(name)
            yield
            if cursor == b"0":
                break
        if server.endpoint.spread:
            yield from self._find_chunks(found)

    def _find_chunks(self, found: dict[bytes, dict[bytes, list[bytes]]]) -> Iterator[None]:
        """Do what `_find` does for chunks, which lie on all servers of a Redis Cluster."""
        alone = next(iter(found)) if len(found) == 1 else b""
        for part in self._large.scan_chunks(alone):
            for key in part:
                try:
                    client, name = self._keys.parse_chunk(key)
                except ValueError:
                    continue  # not ours
                if client in found:
                    found[client].setdefault(b"x", []).append(name)
            yield

    def _stray_chunks(self, client: bytes, suffixes: Sequence[bytes], kept: set[bytes]) -> list[bytes]:
        """Return the keys of those chunks that belong to no record which stays."""
        if not suffixes:
            return []
        names = {suffix[: SUFFIX_BYTES + records.TOKEN_BYTES] for suffix in suffixes}
        living = [client + name for name in names if client + name[:SUFFIX_BYTES] in kept]
        recorded = {name[CLIENT_BYTES:] for name in self._large.recorded(living)}
        return [
            self._keys.chunk_named(client, suffix)
            for suffix in suffixes
            if suffix[: SUFFIX_BYTES + records.TOKEN_BYTES] not in recorded
        ]


def _by_owner(object_ids: Iterable[bytes], most: int = CHUNK) -> Iterator[tuple[bytes, Sequence[bytes]]]:
    """Yield (owner, suffixes) for ids of any owners, `most` of them at most at a time."""
    owners: dict[bytes, list[bytes]] = {}
    for object_id in object_ids:
        owners.setdefault(object_id[:CLIENT_BYTES], []).append(object_id[CLIENT_BYTES:])
    for owner, suffixes in owners.items():
        for part in _parts(suffixes, most):
            yield owner, part


def _parts(items: Sequence[Any], most: int = CHUNK) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), most):
        yield items[start : start + most]
