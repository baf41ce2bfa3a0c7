"""Large values of another host: from its nodes where these can be reached, once for all readers, else from Redis."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest

from rabbitry_broker import records
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.ids import OBJECT_BYTES, new_node_id
from rabbitry_broker.messages import encode
from rabbitry_broker.serialization import pack
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.copies import ObjectLost
from rabbitry_broker.store.peers import directory, reading
from rabbitry_broker.store.peers.directory import Directory
from rabbitry_broker.store.peers.serving import PeerServer, listen
from rabbitry_broker.store.store import ObjectStore
from tests.broker.between import Between
from tests.servers import RedisServer

MIB = 1 << 20
SECRET = secrets.token_bytes(32)


class Hosts:
    """Stores of hosts on one Redis, and nodes that serve."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.signer = Signer((SECRET,))
        self._run = secrets.token_hex(4)
        self._open: list[Any] = []

    def store(self, host: str, *, kept: bool = False, **options: Any) -> ObjectStore:
        endpoint = Endpoint(self.server.unix_url, "amqp://nowhere", (SECRET,), "peers:")
        options = {"session": f"test{self._run}{host}", "host": host.encode(), **options}
        store = ObjectStore(endpoint, self.signer, **options)
        if kept:
            assert store.large.look_after()
        self._open.append(store)
        return store

    def node(self, store: ObjectStore, *, behind: Callable[[int], int] = lambda port: port) -> PeerServer:
        """Serve what a store has, and write the record of a node that says so."""
        assert store.large.shared is not None
        peers = PeerServer(listen("127.0.0.1", 0), store.large.shared, self.signer, store.large.host)
        peers.start()
        self._open.append(peers)
        self.record(store, {"host": store.large.host, "peers": ["127.0.0.1", behind(peers.port)]})
        return peers

    def record(self, store: ObjectStore, record: Any, *, signer: Signer | None = None) -> bytes:
        node = new_node_id()
        sealed = (signer or self.signer).seal(b"node" + node, encode(record))
        store.call(b"SET", store.keys.node(node), sealed)
        store.call(b"HSET", store.keys.nodes, node, sealed)
        return node

    def between(self, port: int) -> Between:
        between = Between(port)
        self._open.append(between)
        return between

    def chunks(self) -> list[bytes]:
        found = self.server.keys()
        return [key for key in found if key.startswith(b"peers:x:")]

    def close(self) -> None:
        for each in reversed(self._open):
            each.close()


@pytest.fixture
def hosts(start_redis: Callable[..., RedisServer]) -> Iterator[Hosts]:
    made = Hosts(start_redis())
    yield made
    made.close()


def new_id() -> bytes:
    return secrets.token_bytes(OBJECT_BYTES)


def array(mebibytes: int = 3) -> Any:
    return numpy.frombuffer(secrets.token_bytes(mebibytes * MIB), dtype=numpy.uint8)


def read(store: ObjectStore, key: bytes) -> Any:
    (record,) = store.fetch([key])
    assert record is not None
    return store.read_large(key, records.read_manifest(record))


def test_a_value_that_only_its_host_has_comes_from_there_and_no_copy_is_asked_for(hosts: Hosts) -> None:
    maker, reader = hosts.store("maker", kept=True), hosts.store("reader")
    peers = hosts.node(maker)
    key, value = new_id(), array()
    maker.put_packed(key, pack(value))
    assert (read(reader, key) == value).all()
    assert not hosts.chunks()
    assert (read(reader, key) == value).all()
    assert (peers.sent, peers.sent_bytes >= 3 * MIB) == (1, True), "the second time it was there"


def test_a_pickle_that_is_large_itself_comes_too(hosts: Hosts) -> None:
    maker, reader = hosts.store("maker", kept=True), hosts.store("reader")
    peers = hosts.node(maker)
    key, value = new_id(), [str(number) for number in range(100_000)]
    maker.put_packed(key, pack(value))
    assert read(reader, key) == value
    assert peers.sent == 1


def test_many_readers_of_a_host_cost_one_transfer(hosts: Hosts) -> None:
    maker = hosts.store("maker", kept=True)
    peers = hosts.node(maker)
    key, value = new_id(), array(16)
    maker.put_packed(key, pack(value))
    readers = [hosts.store("reader") for _ in range(6)]  # each as another process has it
    found: list[bool] = []
    begin = threading.Barrier(len(readers))

    def work(store: ObjectStore) -> None:
        begin.wait(10)
        found.append(bool((read(store, key) == value).all()))

    threads = [threading.Thread(target=work, args=(store,)) for store in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [True] * len(readers)
    assert peers.sent == 1


def test_many_readers_of_a_host_cost_one_transfer_from_redis_as_well(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = hosts.store("maker")  # no node looks after it: sent at once
    key, value = new_id(), array(8)
    maker.put_packed(key, pack(value))
    readers = [hosts.store("reader") for _ in range(4)]
    transfers: list[bytes] = []
    for store in readers:
        chunks = store.large.places.chunks
        read_into = chunks.read_into
        monkeypatch.setattr(chunks, "read_into", lambda *a, f=read_into: (transfers.append(a[0]), f(*a))[1])
    threads = [threading.Thread(target=read, args=(store, key)) for store in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert transfers == [key]


def test_a_reader_that_is_killed_under_way_leaves_nothing_and_the_next_begins_anew(hosts: Hosts) -> None:
    maker = hosts.store("maker", kept=True)
    stop, arrived = threading.Event(), threading.Event()

    def change(to_server: bool, before: int, data: bytes) -> bytes:
        if not to_server and before > MIB and not stop.is_set():
            arrived.set()
            stop.wait(30)
        return data

    betweens: list[Between] = []

    def behind(port: int) -> int:
        betweens.append(hosts.between(port))
        betweens[0].change = change
        return betweens[0].port

    peers = hosts.node(maker, behind=behind)
    key, value = new_id(), array(8)
    maker.put_packed(key, pack(value))
    program = (
        "from rabbitry_broker import records\nfrom rabbitry_broker.endpoint import Endpoint\n"
        "from rabbitry_broker.signing import Signer\nfrom rabbitry_broker.store.store import ObjectStore\n"
        f"endpoint = Endpoint({hosts.server.unix_url!r}, 'amqp://nowhere', ({SECRET!r},), 'peers:')\n"
        f"store = ObjectStore(endpoint, Signer(endpoint.secrets), session='test{hosts._run}reader', host=b'reader')\n"
        f"store.read_large({key!r}, records.read_manifest(store.fetch([{key!r}])[0]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as process:
        assert arrived.wait(30), "it is half way"
        reader = hosts.store("reader")
        found: list[bool] = []
        waiting = threading.Thread(target=lambda: found.append(bool((read(reader, key) == value).all())))
        waiting.start()
        assert reader.large.shared is not None
        assert not reader.large.shared.names(), "half of it is no value"
        process.kill()
    stop.set()
    waiting.join(30)
    assert found == [True]
    assert peers.sent >= 1
    # What the killed one had begun goes with the orphans.
    assert [name for name in os.listdir("/dev/shm") if f"test{hosts._run}reader" in name and ".claim" in name] == []


@pytest.mark.parametrize("what", ["not there", "breaks off", "another secret", "silent"])
def test_what_no_node_can_send_comes_from_redis(hosts: Hosts, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "STALLED_SECONDS", 0.2)
    maker, reader = hosts.store("maker", kept=True), hosts.store("reader")
    key, value = new_id(), array()
    maker.put_packed(key, pack(value))
    maker.large.copy(key)
    assert hosts.chunks()
    silent = threading.Event()

    def change(to_server: bool, before: int, data: bytes) -> bytes | None:
        if to_server or before < MIB:
            return data
        if what == "silent":
            silent.wait(5)
        return None

    if what == "not there":
        peers = hosts.node(maker)
        assert maker.large.shared is not None
        maker.large.shared.delete(maker.large.shared.names())
    elif what == "another secret":
        peers = hosts.node(maker)
        peers._signer = Signer((b"another secret of 30 characters",))
    else:
        betweens: list[Between] = []

        def behind(port: int) -> int:
            betweens.append(hosts.between(port))
            betweens[0].change = change
            return betweens[0].port

        peers = hosts.node(maker, behind=behind)
    assert (read(reader, key) == value).all()
    silent.set()
    assert reader.large.shared is not None
    assert len(reader.large.shared.names()) == 1, "and it stays on this host"


def test_a_value_that_was_changed_on_its_way_is_not_taken_over(hosts: Hosts) -> None:
    maker, reader = hosts.store("maker", kept=True), hosts.store("reader")
    between: list[Between] = []

    def behind(port: int) -> int:
        between.append(hosts.between(port))
        return between[0].port

    hosts.node(maker, behind=behind)
    key, value = new_id(), [str(number) for number in range(100_000)]
    maker.put_packed(key, pack(value))
    maker.large.copy(key)
    between[0].change = lambda to_server, before, data: data if to_server else data.replace(b"9999", b"6666")
    assert read(reader, key) == value


def test_where_shared_memory_has_no_room_it_comes_all_the_same(hosts: Hosts) -> None:
    maker, reader = hosts.store("maker", kept=True), hosts.store("reader", memory_limit=MIB)
    peers = hosts.node(maker)
    key = new_id()
    value = [array(2), array(1), numpy.zeros(0)]
    maker.put_packed(key, pack(value))
    found = read(reader, key)
    assert all((one == other).all() for one, other in zip(found, value, strict=True))
    assert peers.sent == 1
    assert not hosts.chunks()
    alone = hosts.store("alone", session="")
    assert (read(alone, key)[0] == value[0]).all()
    assert peers.sent == 2


def test_readers_and_nodes_may_be_told_to_use_redis_alone(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(reading.SWITCH, "off")
    maker, reader = hosts.store("maker"), hosts.store("reader")
    peers = hosts.node(maker)
    key, value = new_id(), array()
    maker.put_packed(key, pack(value))
    assert (read(reader, key) == value).all()
    assert not peers.sent
    monkeypatch.setenv(reading.SWITCH, "perhaps")
    with pytest.raises(ValueError, match="RABBITRY_PEERS='perhaps' must be on or off"):
        hosts.store("other")


def test_a_lost_value_is_said_to_be_lost(hosts: Hosts) -> None:
    maker, reader = hosts.store("maker"), hosts.store("reader")
    hosts.node(maker)
    key = new_id()
    maker.put_packed(key, pack(array()))
    assert maker.large.shared is not None
    maker.large.shared.delete(maker.large.shared.names())
    maker.call(b"DEL", *hosts.chunks())
    with pytest.raises(ObjectLost):
        read(reader, key)


# -- the directory -----------------------------------------------------------------------------------------------------


def test_the_directory_knows_living_nodes_that_serve(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    store = hosts.store("any")
    places = Directory(store.server, store.keys, hosts.signer)
    assert places.find(b"one") is None
    hosts.record(store, {"host": b"one", "peers": ["10.0.0.1", 7]})
    assert places.find(b"two") is None, "it has just looked"
    monkeypatch.setattr(directory, "LOOK_SECONDS", 0.0)
    assert places.find(b"one") is None, "it was looked for, and not found"
    now = directory.time.monotonic()
    monkeypatch.setattr(directory.time, "monotonic", lambda: now + directory.MISSING_SECONDS + 1)
    assert places.find(b"one") == ("10.0.0.1", 7)
    for nonsense in ({"host": b"two"}, {"host": b"two", "peers": None}, {"host": b"two", "peers": ["x", "y"]}, [1], 7):
        hosts.record(store, nonsense)
    hosts.record(
        store, {"host": b"two", "peers": ["10.0.0.2", 7]}, signer=Signer((b"another secret of 30 characters",))
    )
    dead = hosts.record(store, {"host": b"two", "peers": ["10.0.0.2", 7]})
    store.call(b"DEL", store.keys.node(dead))
    assert places.find(b"two") is None
    assert places.find(b"one") == ("10.0.0.1", 7)
    places.forget(b"one", ("10.0.0.9", 7))
    assert places._places
    places.forget(b"one", ("10.0.0.1", 7))
    assert not places._places
    assert places.find(b"one") == ("10.0.0.1", 7), "it looks again"


def test_the_directory_is_not_asked_of_redis_for_every_value(hosts: Hosts) -> None:
    store = hosts.store("any")
    places = Directory(store.server, store.keys, hosts.signer)
    asked: list[Any] = []
    places._server = type("Asked", (), {"call": lambda self, *a: (asked.append(a), store.call(*a))[1]})()  # type: ignore[assignment]
    for _ in range(50):
        assert places.find(b"nobody") is None
    assert len(asked) == 1


def test_deleted_values_go_from_their_host_at_the_next_sweep(hosts: Hosts) -> None:
    maker, node = hosts.store("maker"), hosts.store("maker", kept=True)
    key = new_id()
    maker.put_packed(key, pack(array()))
    other = new_id()
    record = maker.lives.prepare(other[:12], other, pack(array()))
    third = new_id()
    maker.lives.prepare(third[:12], third, pack(array()))  # which is not committed yet
    maker.put_records([(other, record)])
    maker.lives.settle(other[:12], [(other, record)])
    node.large.sweep()
    assert node.large.shared is not None
    assert {name[:OBJECT_BYTES] for name in node.large.shared.names()} == {key, other, third}
    for each in (key, other):
        maker.call(b"DEL", maker.keys.object(each))
    fresh = hosts.store("maker")  # a node that was not there before
    fresh.large.sweep()
    assert {name[:OBJECT_BYTES] for name in node.large.shared.names()} == {third}
