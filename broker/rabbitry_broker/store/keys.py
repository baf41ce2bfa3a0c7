"""The names of all keys and channels in Redis. Nobody else spells one.

In a Redis Cluster the prefix is the hash tag of all keys, so that a script finds what it changes on one server: the
prefix `rabbitry:` becomes `{rabbitry:}`. The chunks of large values, which no script touches, keep it as it is and have
the object's id as their hash tag: they lie on all servers (`x:{<client>:<id>}<token>:<n>`).

| key | type | holds | goes |
|---|---|---|---|
| `o:{client}:<id>` | string | an object's record, sealed | with its last holder; of detached tasks: its TTL |
| `i:{client}` | list | the client's inbox: completions | as the client reads it, or with the client |
| `c:{client}` | string | the client is alive | with its lease, or its goodbye |
| `g:{client}` | set | its objects that somebody waits for | with their results, or the client |
| `w:{client}:<id>` | set | who waits for it: `t<spec key>` or `c<client id>` | the same |
| `d:{client}:<id>` | hash | a task's spec that waits for dependencies | when it is published, or with the client |
| `h:{client}:<id>` | set | who holds it besides its owner; `!`: the owner let go | with its last holder |
| `hg:{client}` | set | its objects that have holders | the same |
| `b:{client}` | set | foreign objects the client holds | as it lets go; with the client they are released |
| `p:{client}` | hash | results it prepares: id, token -> record without data | with the commit, or undone after it |
| `r:{client}` | hash | deleted objects whose buffers or refs are to be let go | when that is done (client, janitor) |
| `x:{client}:<id><token>:<n>` | string | chunk number n of a large value | with the object |
| `v:{client}:<id>` | string | a copy of a large value is being made, or cannot be | by itself, in seconds |
| `z:{client}` | string | whether all results of a commit were written (`commit_many.lua`) | in the same transaction |
| `n:{client}:<id>` | string | items of a stream that were read; with backpressure | with the stream, or the client |
| `s:{client}` | hash | start marks of its tasks that may run once only | with the client |
| `a:{client}` | hash | crash counts of its redelivered tasks | with the client |
| `u:{client}` | set | the functions that it holds | as it lets go, or with the client |
| `f:<hash>` | string | a function, an environment, a package's piece, sealed | after its last holder (`functions.py`) |
| `u:<hash>` | set | who needs it | with its last member |
| `clients` | sorted set | clients by the end of their lease | each when it is cleared away |
| `c:{drivers}` | sorted set | drivers by the last sign they gave themselves | the same |
| `ghosts` | set | clients that left, whose objects others hold | each with the last of these (janitor) |
| `j:<job>` | string | a job's record, sealed | with its driver (goodbye, janitor) |
| `jobs` | sorted set | jobs by when they began | as in `j:<job>` |
| `jobs:ended`, `jobs:ended:at` | hash, sorted set | those of drivers that left; when | all but the last 1000; in time |
| `submissions` | hash | submitted jobs, sealed | as users delete them; ended ones in time (RABBITRY_JOB_TTL) |
| `dashboard` | string | where the HTTP service is, sealed | half a minute after its end |
| `actor:{id}` | hash | an actor's record | an hour after its end |
| `actor:{id}:state`, `:applied` | string | what a durable actor has committed | with its end |
| `actors` | set | ids (hex) of actors that are not dead | each with its end |
| `names` | hash | namespace, name -> actor | the same |
| `burials` | set | ids (hex) of dead actors whose queues are still there | a minute after the end |
| `pg:{id}` | hash | a placement group's record | an hour after its end |
| `pg:{id}:ready` | hash | objects that are to tell of its creation, and their records | when they do; with its end |
| `groups` | set | ids (hex) of groups that are not removed | each with its end |
| `groups:names` | hash | namespace, name -> group | the same |
| `groups:removed` | sorted set | ids of removed groups, by when | an hour later, or if too many |
| `groups:untold` | set | those of them of whose end somebody is still to be told | when that is done (planner) |
| `planner`, `planner:fence` | string | which node plans groups; counts who did | by itself, in seconds; never |
| `nodes` | hash | nodes on record | with its goodbye, or 10 minutes after its death |
| `nodes:slots`, `nodes:died` | hash | what a node can run at once; when it was missed | as in `nodes` (janitor) |
| `nodes:left` | sorted set | the last hundred that said goodbye, by when: id, record | ten minutes after the last |
| `nodes:leases` | sorted set | nodes by the end of their lease | each when that is noticed, or with its goodbye |
| `nodes:changes`, `nodes:rooms` | sorted set | nodes by when others were to read them anew | a minute after the last |
| `n:<node>` | string | a node's record and lease | with its lease, or its goodbye |
| `k:{custody}:<node>` | hash | messages that it acknowledged and works on | as they end; a dead node's are adopted |
| `k:{continuations}:<node>` | hash | specs that its executors went on with | the same |
| `queues` | set | queues of tasks | of a node or group: with it; of a class of resources: when it was idle for long |
| `queues:used` | hash | when queues of classes of resources were last used, about | with the queue (janitor) |
| `queues:retired` | sorted set | those that were deleted since they were idle (embedded engine) | ten minutes later |
| `queues:prioritized` | set | those of them whose tasks have priorities | the same |
| `queues:claims` | hash | common queue of a class -> the job whose work goes there | each with its job |
| `cancelled` | sorted set | cancelled tasks, by when that may be forgotten | each an hour later (janitor) |
| `put-aside`, `put-aside:count` | list, string | what could not be read | all but the last thousand |
| `janitor`, `janitor:<work>` | string | whose turn it is | by themselves, in seconds |
| `kv:<namespace>` | hash | keys and values of programs (`experimental.internal_kv`), sealed | as programs delete them |
| `requested` | hash | job -> the resources that it asked for | with the job, or its next request |
| `head` | string | id of the node that has `node:__internal_head__` | with its lease, or its goodbye |
| `events`, `events:bytes` | stream, string | what became of tasks, sealed; its size | by bytes and age (`events.py`) |
| `m:<job>` | hash | what programs have measured (`util.metrics`): series -> value | an hour after the last of it |
| `m:{client}` | string | number of the last batch of that which the client sent | by itself, in ten minutes |
| `breakpoints` | hash | where tasks wait for a debugger, sealed | as they go on; a minute after the last sign |
| `cluster` | string | its mark: what all processes have to agree on, and its id | never |

Channels: `control`, `queues:new`, `l:<job>` (its output), `answers:<token>`. The queues of the embedded engine are
keys too (`queues/embedded`): they end with its server.
"""

from __future__ import annotations

from functools import lru_cache

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.ids import CLIENT_BYTES, SUFFIX_BYTES


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
        self.drivers = self.prefix + b"c:{drivers}"
        self.ghosts = self.prefix + b"ghosts"
        self.nodes = self.prefix + b"nodes"
        self.left_nodes = self.prefix + b"nodes:left"
        self.queues = self.prefix + b"queues"
        self.names = self.prefix + b"names"
        self.breakpoints = self.prefix + b"breakpoints"
        self.control_channel = self.prefix + b"control"
        self.prioritized = self.prefix + b"queues:prioritized"
        self.retired = self.prefix + b"queues:retired"
        self.used = self.prefix + b"queues:used"
        self.claims = self.prefix + b"queues:claims"
        self.burials = self.prefix + b"burials"
        self.queues_channel = self.prefix + b"queues:new"
        self.cluster = self.prefix + b"cluster"
        self.head = self.prefix + b"head"
        self.requested = self.prefix + b"requested"
        self.put_aside = self.prefix + b"put-aside"
        self.cancelled = self.prefix + b"cancelled"
        self.janitor = self.prefix + b"janitor"
        self.dashboard = self.prefix + b"dashboard"
        self.submissions = self.prefix + b"submissions"
        self.ended_jobs = self.prefix + b"jobs:ended"
        self.ended_jobs_at = self.prefix + b"jobs:ended:at"
        self.jobs = self.prefix + b"jobs"
        self.groups = self.prefix + b"groups"
        self.planner = self.prefix + b"planner"
        self.events = self.prefix + b"events"
        self.actor_pattern = self.prefix + b"actor:{*}"  # of SCAN
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
            return b"%s%s:%s}%s" % (self.chunks, client.hex().encode(), name[:SUFFIX_BYTES], name[SUFFIX_BYTES:])
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
        if name[SUFFIX_BYTES : SUFFIX_BYTES + 1] != b"}":
            raise ValueError(f"{key!r} is not the key of a chunk")
        return bytes.fromhex(digits.decode("ascii")), name[:SUFFIX_BYTES] + name[SUFFIX_BYTES + 1 :]

    def copying(self, object_id: bytes) -> bytes:
        """What is said of a copy of a large value that somebody asked for."""
        return self._tagged(b"v", object_id[:CLIENT_BYTES]) + b":" + object_id[CLIENT_BYTES:]

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

    def function_holders(self, digest: bytes) -> bytes:
        """Who needs a function."""
        return self.prefix + b"u:" + digest.hex().encode()

    def functions_of(self, client: bytes) -> bytes:
        """The functions that a client holds."""
        return self._tagged(b"u", client)

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

    def measures(self, job: bytes) -> bytes:
        """What the programs of a job have measured."""
        return self.prefix + b"m:" + job.hex().encode()

    def last_measures(self, client: bytes) -> bytes:
        """The number of the last batch of measurements that a client has sent."""
        return self._tagged(b"m", client)

    def values(self, namespace: bytes) -> bytes:
        """Keys and values that programs keep, of one namespace."""
        return self.prefix + b"kv:" + namespace

    def answers_channel(self, token: bytes) -> bytes:
        """Return the channel on which nodes answer who asked with this token."""
        return self.prefix + b"answers:" + token.hex().encode()

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

    def group(self, group_id: bytes) -> bytes:
        """A placement group's record."""
        return self.prefix + b"pg:{" + group_id.hex().encode() + b"}"
