"""The names of all keys and channels in Redis. Nobody else spells one.

In a Redis Cluster the prefix is the hash tag of all keys, so that a script finds what it changes on one server: the
prefix `warren:` becomes `{warren:}`. The chunks of large values, which no script touches, keep it as it is and have the
object's id as their hash tag: they lie on all servers (`x:{<client>:<id>}<token>:<n>`).

| key | type | holds |
|---|---|---|
| `o:{client}:<id>` | string | an object's record, sealed |
| `i:{client}` | list | the client's inbox: completions |
| `c:{client}` | string | the client is alive; expires with its lease |
| `g:{client}` | set | its objects that somebody waits for |
| `w:{client}:<id>` | set | who waits for the object: `t<spec key>` or `c<client id>` |
| `d:{client}:<id>` | hash | a task's spec that waits for dependencies |
| `h:{client}:<id>` | set | who holds the object besides its owner; `!` once the owner let go |
| `hg:{client}` | set | its objects that have holders |
| `b:{client}` | set | foreign objects the client holds (released for it if it dies) |
| `p:{client}` | hash | results the client prepares: object id, token -> record without data |
| `r:{client}` | hash | its deleted objects whose buffers or refs are still to be let go: <id> -> record |
| `x:{client}:<id><token>:<n>` | string | chunk number n of a large value |
| `n:{client}:<id>` | string | how many items of a stream were read; only with backpressure |
| `s:{client}` | hash | start marks of its tasks that may run once only |
| `a:{client}` | hash | crash counts of its redelivered tasks |
| `clients` | sorted set | clients by the end of their lease |
| `ghosts` | set | clients that have left and whose objects others still hold |
| `burials` | set | ids (hex) of dead actors whose queues are still there |
| `f:<hash>` | string | a pickled function, sealed |
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from warren_broker.endpoint import Endpoint
from warren_broker.ids import CLIENT_BYTES, OBJECT_BYTES

_SUFFIX_BYTES: Final = OBJECT_BYTES - CLIENT_BYTES


class Keys:
    """All key names under one cluster's prefix.

    Args:
        prefix: of the cluster.
        spread: True for a Redis Cluster.

    Attributes:
        prefix: what all keys begin with, but the chunks in a Redis Cluster.
        chunks: what the keys of chunks begin with.
    """

    def __init__(self, prefix: str, *, spread: bool = False) -> None:
        self.prefix = b"{%s}" % prefix.encode() if spread else prefix.encode()
        self.chunks = prefix.encode() + b"x:{"
        self._spread = spread
        self.clients = self.prefix + b"clients"
        self.ghosts = self.prefix + b"ghosts"
        self.nodes = self.prefix + b"nodes"
        self.queues = self.prefix + b"queues"
        self.names = self.prefix + b"names"
        self.control_channel = self.prefix + b"control"
        self.prioritized = self.prefix + b"queues:prioritized"
        self.burials = self.prefix + b"burials"
        self.queues_channel = self.prefix + b"queues:new"
        self.cluster = self.prefix + b"cluster"
        self.put_aside = self.prefix + b"put-aside"
        self.cancelled = self.prefix + b"cancelled"
        self.janitor = self.prefix + b"janitor"
        self.objects = lru_cache(4096)(self._objects)

    @classmethod
    def of(cls, endpoint: Endpoint) -> Keys:
        """Return the keys of the cluster at an endpoint."""
        return cls(endpoint.prefix, spread=endpoint.spread)

    def _tagged(self, kind: bytes, client: bytes) -> bytes:
        return b"%s%s:{%s}" % (self.prefix, kind, client.hex().encode())

    def _objects(self, client: bytes) -> bytes:
        return self._tagged(b"o", client) + b":"

    def object(self, object_id: bytes) -> bytes:
        """The key of an object's record."""
        return self.objects(object_id[:CLIENT_BYTES]) + object_id[CLIENT_BYTES:]

    def inbox(self, client: bytes) -> bytes:
        """The client's inbox."""
        return self._tagged(b"i", client)

    def client(self, client: bytes) -> bytes:
        """The client's sign of life."""
        return self._tagged(b"c", client)

    def tag(self, client: bytes) -> bytes:
        """The hash tag of a client's keys, with the colon before it: `:{hex}`."""
        return b":{%s}" % client.hex().encode()

    def spec(self, task_id: bytes) -> bytes:
        """Where a task's spec waits for its dependencies."""
        return self._tagged(b"d", task_id[:CLIENT_BYTES]) + b":" + task_id[CLIENT_BYTES:]

    def borrowed(self, client: bytes) -> bytes:
        """The foreign objects that a client holds."""
        return self._tagged(b"b", client)

    def pending(self, client: bytes) -> bytes:
        """The results that a client prepares and has not committed."""
        return self._tagged(b"p", client)

    def graves(self, client: bytes) -> bytes:
        """The client's deleted objects whose buffers or refs are still to be let go."""
        return self._tagged(b"r", client)

    def waited(self, client: bytes) -> bytes:
        """The client's objects that somebody waits for."""
        return self._tagged(b"g", client)

    def waiters(self, object_id: bytes) -> bytes:
        """Who waits for an object."""
        return self._tagged(b"w", object_id[:CLIENT_BYTES]) + b":" + object_id[CLIENT_BYTES:]

    def held(self, client: bytes) -> bytes:
        """The client's objects that have holders."""
        return self._tagged(b"hg", client)

    def holders(self, object_id: bytes) -> bytes:
        """Who holds an object besides its owner."""
        return self._tagged(b"h", object_id[:CLIENT_BYTES]) + b":" + object_id[CLIENT_BYTES:]

    def chunk(self, object_id: bytes, token: bytes, number: int) -> bytes:
        """One chunk of a large value."""
        return self.chunk_named(object_id[:CLIENT_BYTES], b"%s%s:%d" % (object_id[CLIENT_BYTES:], token, number))

    def chunk_named(self, client: bytes, name: bytes) -> bytes:
        """One chunk of a client's, by what follows the client's id in its key (without the brace of the hash tag)."""
        if self._spread:
            return b"%s%s:%s}%s" % (self.chunks, client.hex().encode(), name[:_SUFFIX_BYTES], name[_SUFFIX_BYTES:])
        return b"%s%s}:%s" % (self.chunks, client.hex().encode(), name)

    def chunk_pattern(self, client: bytes = b"") -> bytes:
        """A SCAN pattern for the chunks of a client, or of all."""
        return self.chunks + client.hex().encode() + b"*"

    def parse_chunk(self, key: bytes) -> tuple[bytes, bytes]:
        """Return the client and the name (as `chunk_named` takes it) of a chunk in a Redis Cluster.

        Raises:
            ValueError: it is not the key of a chunk.
        """
        digits, _, name = key[len(self.chunks) :].partition(b":")
        if name[_SUFFIX_BYTES : _SUFFIX_BYTES + 1] != b"}":
            raise ValueError(f"{key!r} is not the key of a chunk")
        return bytes.fromhex(digits.decode("ascii")), name[:_SUFFIX_BYTES] + name[_SUFFIX_BYTES + 1 :]

    def consumed(self, task_id: bytes) -> bytes:
        """How many items of a stream were read."""
        return self._tagged(b"n", task_id[:CLIENT_BYTES]) + b":" + task_id[CLIENT_BYTES:]

    def starts(self, client: bytes) -> bytes:
        """Start marks of the client's tasks that may run only once."""
        return self._tagged(b"s", client)

    def attempts(self, client: bytes) -> bytes:
        """Crash counts of the client's tasks."""
        return self._tagged(b"a", client)

    def client_pattern(self, client: bytes) -> bytes:
        """A SCAN pattern for every key of a client."""
        return b"%s*:{%s}*" % (self.prefix, client.hex().encode())

    def function(self, digest: bytes) -> bytes:
        """A pickled function."""
        return self.prefix + b"f:" + digest.hex().encode()

    def node(self, node_id: bytes) -> bytes:
        """A node's record."""
        return self.prefix + b"n:" + node_id.hex().encode()

    def custody(self, node_id: bytes) -> bytes:
        """Specs of long tasks that a node has acknowledged and keeps."""
        return self.prefix + b"k:{custody}:" + node_id.hex().encode()

    def continuations(self, node_id: bytes) -> bytes:
        """Which specs a node's executors went on with by themselves: spec key -> tag and suffix of what released it."""
        return self.prefix + b"k:{continuations}:" + node_id.hex().encode()

    def job(self, job: bytes) -> bytes:
        """A job's record."""
        return self.prefix + b"j:" + job.hex().encode()

    def logs_channel(self, job: bytes) -> bytes:
        """Where a job's output is published."""
        return self.prefix + b"l:" + job.hex().encode()

    def actor(self, actor_id: bytes) -> bytes:
        """An actor's record."""
        return self.prefix + b"actor:{" + actor_id.hex().encode() + b"}"

    def actor_of(self, key: bytes) -> bytes | None:
        """The id of the actor whose record `key` is; None for other keys."""
        start = self.prefix + b"actor:{"
        if not key.startswith(start) or not key.endswith(b"}"):
            return None
        return bytes.fromhex(key[len(start) : -1].decode())
