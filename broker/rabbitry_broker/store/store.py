"""The store as clients and nodes hold it: its parts, made once and put together.

HOT PATH: what is called per task is bound here once (`store.fetch` is `Records.fetch` itself), so that a part costs no
call of its own. New work belongs to the part that owns its keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.announcements import Announcements
from rabbitry_broker.store.aside import Aside
from rabbitry_broker.store.clients import Clients
from rabbitry_broker.store.events import Events
from rabbitry_broker.store.functions import Functions
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.large import LargeObjects
from rabbitry_broker.store.lives import Lives
from rabbitry_broker.store.measures import StoredMeasures
from rabbitry_broker.store.packages import Packages
from rabbitry_broker.store.peers.directory import Directory
from rabbitry_broker.store.peers.reading import PeerReader, are_on
from rabbitry_broker.store.records import Records
from rabbitry_broker.store.redis.address import parse
from rabbitry_broker.store.redis.connection import Connection
from rabbitry_broker.store.results import Results
from rabbitry_broker.store.room import Room
from rabbitry_broker.store.server import Server
from rabbitry_broker.store.specs import Specs
from rabbitry_broker.store.tags import Tags


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
        server: the way to Redis, if it is not the usual one.
        join: take part in the session at once; else that is for `large.join` to do.

    Attributes:
        server: the connection, and patience.
        keys: of the cluster.
        room: what Redis has room for.
        large: buffers of large values.
        records: the objects.
        specs: of tasks.
        results: of tasks.
        functions: which clients exported.
        packages: of users' code.
        lives: who holds what, and what goes.
        clients: who lives.
        announcements: to nodes.
        events: what became of tasks.
        measures: what programs measure.
        aside: what could not be read.
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
        server: Server | None = None,
        join: bool = True,
    ) -> None:
        ttl_milliseconds = int(ttl * 1000)
        self.endpoint = endpoint
        self.signer = signer
        self.server = server = server or Server(endpoint)
        self.keys = keys = Keys.of(endpoint)
        self.tags = tags = Tags(keys)
        self.aside = aside = Aside(server, keys)
        self.room = room = Room(server)
        self.large = large = LargeObjects(
            server,
            keys,
            signer,
            room,
            ttl_milliseconds=ttl_milliseconds,
            session=session,
            host=host,
            spill_url=spill_url,
            limit_bytes=memory_limit,
            peers=None
            if endpoint.traits.one_host or not are_on()
            else PeerReader(Directory(server, keys, signer), signer, parse(endpoint.store_url)),
            join=join,
        )
        self.records = Records(server, keys, tags, signer, aside, room, large, ttl_milliseconds=ttl_milliseconds)
        self.specs = Specs(server, keys, tags, room)
        self.results = Results(server, keys, tags, signer, aside, self.specs, ttl_milliseconds=ttl_milliseconds)
        self.functions = Functions(server, keys, signer, aside, room)
        self.packages = Packages(self.functions)
        self.lives = Lives(server, keys, tags, self.records, large, self.functions, aside, room)
        self.clients = Clients(server, keys)
        self.announcements = Announcements(server, keys, signer, room)
        self.events = Events(server, keys, signer, room)
        self.measures = StoredMeasures(server, keys)

        self.open_connection = server.open_connection
        self.within = server.within
        self.reply_seconds = server.reply_seconds
        self.seconds_left = server.seconds_left
        self.call = server.call
        self.pipeline = server.pipeline
        self.script = server.script
        self.pipeline_of_scripts = server.pipeline_of_scripts
        self.expect_server = server.expect_server
        self.trusts_leases = server.trusts_leases
        self.wait_for_server = server.wait_for_server
        self.time = server.time
        self.forget_in_child = server.forget_in_child

        self.when_room = room.when_room
        self.read_large = large.read
        self.put_aside = aside.put
        self.tag = tags.of

        self.seal = self.records.seal
        self.unseal = self.records.unseal
        self.put_records = self.records.put_records
        self.put_packed = self.records.put_packed
        self.fetch = self.records.fetch
        self.subscribe = self.records.subscribe

        self.commit_arguments = self.results.commit_arguments
        self.commit = self.results.commit
        self.dependants = self.results.dependants
        self.left_to_do = self.results.left_to_do

        self.park = self.specs.park
        self.start_once = self.specs.start_once
        self.started_by = self.specs.started_by
        self.count_attempts = self.specs.count_attempts
        self.launched = self.specs.launched

        self.register_client = self.clients.register
        self.renew_client = self.clients.renew
        self.keep_clients = self.clients.keep
        self.known_by_connection = self.clients.known_by_connection
        self.condemn = self.clients.condemn
        self.lapse = self.clients.lapse
        self.is_alive = self.clients.is_alive
        self.registered = self.clients.registered
        self.tell = self.clients.tell

        self.begin_job = self.announcements.begin_job
        self.job = self.announcements.job
        self.end_job = self.announcements.end_job
        self.clients_gone = self.announcements.clients_gone
        self.announce_cancel = self.announcements.cancel
        self.announce_environment = self.announcements.environment
        self.announce_queue = self.announcements.queue
        self.claim_queue = self.announcements.claim
        self.announce_priorities = self.announcements.priorities
        self.cluster_slots = self.announcements.cluster_slots

    @property
    def connection(self) -> Connection:
        """The shared connection; hold the lock while using it."""
        return self.server.connection

    @property
    def patience(self) -> float:
        """Seconds that a call waits for a server that is away."""
        return self.server.patience

    @patience.setter
    def patience(self, seconds: float) -> None:
        self.server.patience = seconds

    @property
    def waits_for_room(self) -> bool:
        """Whether a full server is waited for like one that is away: for a node, which has nobody to tell."""
        return self.server.waits_for_room

    @waits_for_room.setter
    def waits_for_room(self, waits: bool) -> None:
        self.server.waits_for_room = waits

    @property
    def on_full(self) -> Callable[[], Any]:
        """What may make room; called before a full store is asked again."""
        return self.server.on_full

    @on_full.setter
    def on_full(self, make_room: Callable[[], Any]) -> None:
        self.server.on_full = make_room

    @property
    def closed(self) -> bool:
        """True once `close` was called."""
        return self.server.closed

    def close(self) -> None:
        """Close the shared connection, and those of transfers."""
        self.server.close()
        self.large.close()
