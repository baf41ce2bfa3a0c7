"""Redis Cluster: one slot for what scripts change, chunks on all masters; failovers and moving slots are followed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rabbitry_broker import records
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import ConnectError
from rabbitry_broker.ids import CLIENT_BYTES, OBJECT_BYTES, new_client_id
from rabbitry_broker.serialization import pack
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.reader import Reader
from rabbitry_broker.store.redis import cluster
from rabbitry_broker.store.redis.address import Address, parse
from rabbitry_broker.store.redis.connection import Connection
from rabbitry_broker.store.store import ObjectStore
from tests.redis_cluster import MASTERS, RedisCluster
from tests.servers import RedisServer, free_port, wait_until

SECRETS = (b"0123456789abcdef",)
LEASE = 60.0


@pytest.fixture(scope="module")
def servers(session_directory: Path) -> Iterator[RedisCluster]:
    """Three masters, and a replica of each."""
    servers = RedisCluster(session_directory / "cluster", replicas=MASTERS)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


@pytest.fixture
def store(servers: RedisCluster) -> Iterator[ObjectStore]:
    """A store without shared memory, so that what is read comes from the servers; it leaves no key behind."""
    servers.start()
    store = ObjectStore(Endpoint(servers.url, "amqp://unused", SECRETS, "test:"), Signer(SECRETS))
    try:
        yield store
    finally:
        store.close()
        servers.delete("test:")


def objects_of(client: bytes, count: int) -> list[bytes]:
    return [client + number.to_bytes(OBJECT_BYTES - len(client), "big") for number in range(count)]


def large_value(size: int = 1 << 20) -> object:
    return pack([bytearray(size)])


def commit(store: ObjectStore, client: bytes, object_id: bytes, value: object) -> None:
    store.commit(client, [object_id, records.plain(pack(value).data)], b"", require_owner=True)


# -- where keys lie ------------------------------------------------------------------------------------------------


def test_the_slot_of_a_key_is_that_of_its_hash_tag(servers: RedisCluster):
    with servers.servers[0].client() as client:
        for key in (b"a", b"{a}b", b"x{a}b{c}", b"{}a", b"a{b", b"}{", b"{{a}}", b"\xff{\x00}", b"123456789"):
            assert cluster.slot_of(key) == client.execute_command("CLUSTER", "KEYSLOT", key)


def test_all_keys_but_chunks_lie_in_one_slot(store: ObjectStore, servers: RedisCluster):
    client = new_client_id()
    store.register_client(client, LEASE)
    for object_id in objects_of(client, 30):
        store.put_packed(object_id, large_value())
    commit(store, client, objects_of(client, 31)[30], "small")
    tagged = servers.keys("{test:}")
    assert tagged and {cluster.slot_of(key) for key in tagged} == {cluster.slot_of(b"test:")}
    chunks = servers.keys("test:") - tagged
    assert len(chunks) == 30
    assert len({servers.master_of(key).port for key in chunks}) == MASTERS


def test_chunks_of_one_object_lie_together_whatever_its_id():
    keys = Keys("test:", spread=True)
    client = b"c" * CLIENT_BYTES
    for suffix in (b"}" * 12, b"{" * 12, b"*:?[]}{\r\n\x00\xff}", b":" * 12):
        object_id = client + suffix[: OBJECT_BYTES - CLIENT_BYTES]
        names = [keys.chunk(object_id, b"}token{:", number) for number in range(20)]
        assert len({cluster.slot_of(name) for name in names}) == 1
        for number, name in enumerate(names):
            assert keys.parse_chunk(name) == (client, object_id[CLIENT_BYTES:] + b"}token{::%d" % number)
            assert keys.chunk_named(*keys.parse_chunk(name)) == name


# -- values --------------------------------------------------------------------------------------------------------


def test_values_of_all_sizes_come_back_and_go_from_all_servers(store: ObjectStore, servers: RedisCluster):
    client = new_client_id()
    store.register_client(client, LEASE)
    values = [bytes([number]) * (number * 700_000) for number in range(12)]
    ids = objects_of(client, len(values))
    for object_id, value in zip(ids, values, strict=True):
        store.put_packed(object_id, pack(bytearray(value)))
    found = [store.fetch([object_id])[0] for object_id in ids]
    for object_id, value, record in zip(ids, values, found, strict=True):
        assert record is not None
        if record[:1] == records.LARGE:
            assert store.read_large(object_id, records.read_manifest(record)) == value
    assert store.lives.drop(ids) == (set(), [])
    assert not [key for key in servers.keys("test:") if b"x:{" in key or b"}o:" in key]


def test_a_dead_client_leaves_nothing_on_any_server(store: ObjectStore, servers: RedisCluster):
    dead, other = new_client_id(), new_client_id()
    for client in (dead, other):
        store.register_client(client, LEASE)
    for object_id in objects_of(dead, 12) + objects_of(other, 3):
        store.put_packed(object_id, large_value())
    # Of a write that was never recorded:
    stray = store.keys.chunk(objects_of(dead, 1)[0], b"stray...", 0)
    with servers.master_of(stray).client() as client_:
        client_.set(stray, b"bytes")
    for _ in store.lives.leave([dead], lambda _: None):
        pass
    assert not [key for key in servers.keys("test:") if dead.hex().encode() in key]
    assert len([key for key in servers.keys("test:") if other.hex().encode() in key and b"x:{" in key]) == 3


def test_what_a_dead_client_leaves_goes_also_when_a_master_dies_meanwhile(store: ObjectStore, servers: RedisCluster):
    client = new_client_id()
    store.register_client(client, LEASE)
    for object_id in objects_of(client, 30):
        store.put_packed(object_id, large_value())
    chunks = [key for key in servers.keys("test:") if b"x:{" in key]
    scan = store.large.scan_chunks(client)
    found = set(next(scan))
    victim = next(each for each in servers.masters() if found.isdisjoint(each.keys("test:x:")))
    with victim.client() as direct:
        assert direct.wait(1, 5000) == 1
    victim.kill()
    for part in scan:
        found.update(part)
    assert found == set(chunks)


# -- faults --------------------------------------------------------------------------------------------------------


def test_a_failover_of_the_master_is_followed(store: ObjectStore, servers: RedisCluster):
    client = new_client_id()
    store.register_client(client, LEASE)
    first, second = objects_of(client, 2)
    commit(store, client, first, "before")
    master = servers.master_of(store.keys.prefix)
    with master.client() as direct:
        assert direct.wait(1, 5000) == 1
    master.kill()
    commit(store, client, second, "after")
    assert None not in store.fetch([first, second])
    assert servers.master_of(store.keys.prefix) is not master


def test_chunks_outlive_a_failover_of_their_master(store: ObjectStore, servers: RedisCluster):
    client = new_client_id()
    store.register_client(client, LEASE)
    for object_id in objects_of(client, 30):
        victim = servers.master_of(store.keys.chunk(object_id, b"", 0))
        if victim is not servers.master_of(store.keys.prefix):
            break
    store.put_packed(object_id, large_value())
    with victim.client() as direct:
        assert direct.wait(1, 5000) == 1
    victim.kill()
    [record] = store.fetch([object_id])
    assert record is not None
    assert store.read_large(object_id, records.read_manifest(record)) == [bytearray(1 << 20)]
    store.lives.drop([object_id])
    assert not [key for key in servers.keys("test:") if b"x:{" in key]


def test_a_slot_that_moves_is_followed_and_no_script_runs_half(store: ObjectStore, servers: RedisCluster):
    client = new_client_id()
    store.register_client(client, LEASE)
    ids = objects_of(client, 400)
    commit(store, client, ids[0], 0)
    slot = cluster.slot_of(store.keys.prefix)
    source = servers.master_of(store.keys.prefix)
    target = next(each for each in servers.masters() if each is not source)
    servers.begin_to_move(slot, source, target)
    before = servers.keys("{test:}")
    done = threading.Event()

    def work() -> None:
        for number, object_id in enumerate(ids[1:], 1):
            commit(store, client, object_id, number)
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    assert not done.wait(0.3)
    # A script would have found its slot moving at the first key that is not there, with others written before.
    assert servers.keys("{test:}") == before
    servers.finish_to_move(slot, source, target)
    worker.join(30)
    assert done.is_set()
    assert None not in store.fetch(ids)
    assert servers.master_of(store.keys.prefix) is target
    assert not source.keys("{test:}")


def test_servers_that_the_address_names_may_be_replaced(store: ObjectStore, servers: RedisCluster):
    """One of the named is enough to find the others, and later these are enough."""
    address = parse(f"redis+cluster://127.0.0.1:{servers.servers[0].port}")
    slot = cluster.slot_of(b"test:")
    cluster.find_master(address, slot, 5)
    named = servers.servers[0]
    named.kill()
    try:
        wait_until(lambda: _found(address, slot), "another server tells who has the slot", 15)
    finally:
        servers.start()


def _found(address: Address, slot: int) -> bool:
    try:
        return bool(cluster.find_master(address, slot, 5))
    except ConnectError:
        return False


# -- addresses -----------------------------------------------------------------------------------------------------


def test_a_server_in_cluster_mode_that_is_not_called_one(servers: RedisCluster):
    servers.start()
    with pytest.raises(ConnectError, match=r"cluster mode.*redis\+cluster://"):
        Connection.open(servers.servers[0].url)


def test_a_server_that_is_called_a_cluster_and_is_none(redis_server: RedisServer):
    with pytest.raises(ConnectError, match="does not run in cluster mode"):
        Connection.open(f"redis+cluster://127.0.0.1:{redis_server.port}")


def test_servers_without_slots(start_redis: Callable[..., RedisServer], session_directory: Path):
    servers = RedisCluster(session_directory / "no-slots")
    lone = servers.servers[0]
    lone.start()
    try:
        with pytest.raises(ConnectError, match="knows of no slots"):
            Connection.open(f"redis+cluster://127.0.0.1:{lone.port}")
        with lone.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTS", 1)
        with pytest.raises(ConnectError, match=f"serves slot {cluster.slot_of(b'test:')}"):
            Connection.open(Endpoint(f"redis+cluster://127.0.0.1:{lone.port}", "amqp://unused", SECRETS, "test:"))
    finally:
        servers.stop()


def test_nobody_there_is_told_without_the_password():
    with pytest.raises(ConnectError, match="no server of the Redis Cluster answers") as caught:
        Connection.open(f"redis+cluster://:rosebud@127.0.0.1:{free_port()},127.0.0.1:{free_port()}")
    assert "rosebud" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis+cluster://host/1", "no databases"),
        ("redis+cluster://", "hosts are missing"),
        ("unix+cluster:///socket", "not a Redis address"),
        ("redis+clusters://host", "not a Redis address"),
        ("redis+://host", "not a Redis address"),
    ],
)
def test_malformed_addresses_are_refused(url: str, problem: str):
    with pytest.raises(ConnectError, match=problem):
        parse(url)


def test_credentials_of_an_address():
    address = parse("rediss+cluster://ada:p%40ss@one,two:6380/?ssl_ca_certs=/ca.pem")
    assert (address.username, address.password, address.tls) == ("ada", "p@ss", True)
    assert address.nodes == (("one", 6379), ("two", 6380)) and address.options == {"ssl_ca_certs": "/ca.pem"}
    assert "p@ss" not in repr(address)


def test_a_password_is_used_for_every_question(session_directory: Path):
    servers = RedisCluster(session_directory / "password", password="rosebud", config={"masterauth": "rosebud"})
    try:
        servers.start()
        url = servers.url.replace("://", "://:rosebud@")
        store = ObjectStore(Endpoint(url, "amqp://unused", SECRETS, "test:"), Signer(SECRETS))
        client = new_client_id()
        store.register_client(client, LEASE)
        for object_id in objects_of(client, 9):
            store.put_packed(object_id, large_value())
        store.close()
        with pytest.raises(ConnectError, match="password") as caught:
            Connection.open(servers.url.replace("://", "://:roseb@"))
        assert "roseb" not in str(caught.value)
    finally:
        servers.stop()


def test_redis_py_finds_the_master_of_our_keys(servers: RedisCluster, store: ObjectStore) -> None:
    store.call(b"SET", store.keys.names, b"here")
    with Reader(store.endpoint) as reader:
        assert reader.call(b"GET", store.keys.names) == b"here"
    store.call(b"DEL", store.keys.names)
