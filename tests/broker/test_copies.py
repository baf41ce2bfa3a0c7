"""Large values that only the shared memory of their host has: copied when asked for, and never half there."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pytest

from rabbitry_broker import records
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.ids import OBJECT_BYTES
from rabbitry_broker.messages import decode, encode
from rabbitry_broker.serialization import pack
from rabbitry_broker.shared_memory import ObjectStoreFull
from rabbitry_broker.signing import Signer
from rabbitry_broker.store import copies
from rabbitry_broker.store.copies import ObjectLost
from rabbitry_broker.store.large import copies_are_eager
from rabbitry_broker.store.living import HostNodes, nodes_of
from rabbitry_broker.store.store import ObjectStore
from tests.servers import RedisServer, wait_until

MEBIBYTE = 1 << 20
SECRET = secrets.token_bytes(32)

OpenHost = Callable[..., ObjectStore]


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis()


@pytest.fixture
def host(server: RedisServer) -> Iterator[OpenHost]:
    """Return a function that opens a store on a host of its own; stores of the same name share a host."""
    opened: list[ObjectStore] = []
    run = secrets.token_hex(4)

    def open_it(name: str, *, kept: bool = False, **options: Any) -> ObjectStore:
        endpoint = Endpoint(server.unix_url, "amqp://nowhere", (SECRET,), "copies:")
        options = {"session": f"test{run}{name}", "host": name.encode(), **options}
        store = ObjectStore(endpoint, Signer(endpoint.secrets), **options)
        if kept:
            assert store.large.look_after()
        opened.append(store)
        return store

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing take long."""
    for name in (
        "ASK_AGAIN_SECONDS",
        "LOOK_SECONDS",
        "LAPSED_SECONDS",
        "GONE_SECONDS",
        "SILENT_SECONDS",
    ):
        monkeypatch.setattr(copies, name, getattr(copies, name) / 20)
    monkeypatch.setenv("RABBITRY_STORE_FULL_SECONDS", "0.5")


def new_id() -> bytes:
    return secrets.token_bytes(OBJECT_BYTES)


def array(mebibytes: float = 3.5) -> Any:
    return numpy.frombuffer(secrets.token_bytes(int(mebibytes * MEBIBYTE)), dtype=numpy.uint8)


def manifest_in(store: ObjectStore, key: bytes) -> records.Manifest:
    (record,) = store.fetch([key])
    assert record is not None
    return records.read_manifest(record)


def chunks(server: RedisServer) -> set[bytes]:
    return {key for key in all_keys(server) if key.startswith(b"copies:x:")}


def all_keys(server: RedisServer) -> set[bytes]:
    return server.keys()


class Nodes:
    """What nodes of hosts do with requests, on a thread; tests say for which hosts."""

    def __init__(self, server: RedisServer, stores: dict[bytes, ObjectStore]) -> None:
        self.heard: list[tuple[bytes, bytes, bool]] = []
        self._stores = stores
        self._signer = Signer((SECRET,))
        self._line = server.client().pubsub(ignore_subscribe_messages=True)
        self._line.subscribe("copies:control")
        self._line.get_message(timeout=5)
        self._over = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._over:
            message = self._line.get_message(timeout=0.05)
            if message is None:
                continue
            word, of, key, again = decode(self._signer.open(b"control", message["data"]))
            assert word == "copy"
            self.heard.append((of, key, again))
            if of in self._stores:
                try:
                    self._stores[of].large.copy(key)
                except ObjectStoreFull as full:
                    self._stores[of].large.copies.note([key], full)

    def close(self) -> None:
        self._over = True
        self._thread.join()
        self._line.close()


@pytest.fixture
def serve(server: RedisServer) -> Iterator[Callable[..., Nodes]]:
    made: list[Nodes] = []

    def start(*stores: ObjectStore) -> Nodes:
        made.append(Nodes(server, {store.large.host: store for store in stores}))
        return made[-1]

    yield start
    for each in made:
        each.close()


def is_on_record(store: ObjectStore, node: bytes, host: bytes, *, lives: bool = True, draining: bool = False) -> None:
    """Let a node of that host be on record, as living or as one whose lease has ended."""
    record = store.signer.seal(b"node" + node, encode({"id": node, "host": host, "draining": draining}))
    store.call(b"HSET", store.keys.nodes, node, record)
    if lives:
        store.call(b"SET", store.keys.node(node), record)


# -- who writes --------------------------------------------------------------------------------------------------------


def test_a_value_stays_on_its_host_until_somebody_asks(
    server: RedisServer, host: OpenHost, serve: Callable[..., Nodes]
):
    node, writer, reader = host("a", kept=True), host("a"), host("b")
    key, value = new_id(), array()
    record = writer.put_packed(key, pack(value))
    assert records.read_manifest(record).is_on_host_only and not chunks(server)
    assert (node.read_large(key, records.read_manifest(record)) == value).all()
    nodes = serve(node)
    # With the record as it was: that is what travels with tasks.
    assert (reader.read_large(key, records.read_manifest(record)) == value).all()
    assert nodes.heard == [(b"a", key, False)]
    manifest = manifest_in(reader, key)
    assert manifest.chunks == 4 == len(chunks(server)) and not manifest.is_on_host_only
    assert {server.client().pttl(each) for each in chunks(server)} == {-1}
    # The next reader of that host finds it there; one of another host in Redis, whatever record it has.
    assert (host("b").read_large(key, manifest) == value).all()
    assert (host("c").read_large(key, records.read_manifest(record)) == value).all()
    assert len(nodes.heard) == 1


@pytest.mark.parametrize("why", ["nobody looks after it", "eager", "no shared memory"])
def test_a_value_goes_to_redis_at_once_where_nobody_could_copy_it(server: RedisServer, host: OpenHost, why: str):
    if why != "nobody looks after it":
        host("a", kept=True)
    options: dict[str, Any] = {"session": ""} if why == "no shared memory" else {}
    writer = host("a", **options)
    if why == "eager":
        writer.large.writing.eager = True
    key, value = new_id(), array()
    record = writer.put_packed(key, pack(value))
    assert not records.read_manifest(record).is_on_host_only and len(chunks(server)) == 4
    assert (host("b").read_large(key, records.read_manifest(record)) == value).all()


def test_a_value_that_shared_memory_has_no_room_for_goes_to_redis(server: RedisServer, host: OpenHost):
    host("a", kept=True)
    writer = host("a", memory_limit=2 * MEBIBYTE)
    key, value = new_id(), array()
    record = writer.put_packed(key, pack(value))
    assert len(chunks(server)) == 4
    assert (host("b").read_large(key, records.read_manifest(record)) == value).all()


def test_a_long_pickle_is_copied_and_authenticated(server: RedisServer, host: OpenHost, serve: Callable[..., Nodes]):
    node, reader = host("a", kept=True), host("b")
    key, value = new_id(), [str(number) for number in range(200_000)]
    manifest = records.read_manifest(node.put_packed(key, pack(value)))
    assert manifest.outer and manifest.is_on_host_only
    serve(node)
    assert reader.read_large(key, manifest) == value
    (chunk, *_) = sorted(chunks(server))
    server.client().setrange(chunk, 1000, b"forged")
    with pytest.raises(ObjectLost, match="changed"):
        host("c").read_large(key, manifest)


def test_the_setting_is_lazy_or_eager():
    assert not copies_are_eager({}) and not copies_are_eager({"RABBITRY_VALUE_COPIES": "lazy"})
    assert copies_are_eager({"RABBITRY_VALUE_COPIES": "eager"})
    with pytest.raises(ValueError, match=r"RABBITRY_VALUE_COPIES='never' must be `lazy` or `eager`"):
        copies_are_eager({"RABBITRY_VALUE_COPIES": "never"})


# -- what may be gone --------------------------------------------------------------------------------------------------


def test_a_value_whose_host_has_no_nodes_any_more_is_lost(host: OpenHost, soon: None):
    node, reader = host("a", kept=True), host("b")
    is_on_record(reader, b"elsewhere", b"c")
    key = new_id()
    manifest = records.read_manifest(node.put_packed(key, pack(array())))
    with pytest.raises(ObjectLost, match="no node is left"):
        reader.read_large(key, manifest)


def test_a_value_whose_hosts_last_lease_has_ended_is_lost_without_further_waiting(
    host: OpenHost, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(copies, "GONE_SECONDS", 3600.0)
    monkeypatch.setattr(copies, "ASK_AGAIN_SECONDS", 3600.0)
    node, reader = host("a", kept=True), host("b")
    is_on_record(reader, b"elsewhere", b"c")
    is_on_record(reader, b"there", b"a", lives=False)
    key = new_id()
    manifest = records.read_manifest(node.put_packed(key, pack(array())))
    with pytest.raises(ObjectLost, match="no node is left"):
        reader.read_large(key, manifest)


def test_what_is_known_of_the_nodes_of_a_host(host: OpenHost):
    store = host("z")

    def known() -> HostNodes:
        return nodes_of(b"a", store.server, store.keys, store.signer)

    assert known() is HostNodes.NONE
    is_on_record(store, b"left", b"a", lives=False, draining=True)
    is_on_record(store, b"elsewhere", b"c")
    assert known() is HostNodes.NONE
    is_on_record(store, b"lost", b"a", lives=False)
    assert known() is HostNodes.LAPSED
    store.call(b"HSET", store.keys.nodes, b"stranger", b"nonsense")
    assert known() is HostNodes.LAPSED
    is_on_record(store, b"there", b"a")
    assert known() is HostNodes.LIVE


def test_nodes_that_live_and_say_nothing_are_not_waited_for_for_ever(host: OpenHost, soon: None):
    node, reader = host("a", kept=True), host("b")
    is_on_record(reader, b"there", b"a")
    key = new_id()
    manifest = records.read_manifest(node.put_packed(key, pack(array())))
    with pytest.raises(ObjectLost, match="do not answer"):
        reader.read_large(key, manifest)


def test_a_node_that_is_started_again_is_waited_for(host: OpenHost, serve: Callable[..., Nodes], soon: None):
    node, reader = host("a", kept=True), host("b")
    key, value = new_id(), array()
    manifest = records.read_manifest(node.put_packed(key, pack(value)))
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit(reader.read_large, key, manifest)
        deaf = serve()
        wait_until(lambda: deaf.heard, "the request is sent again")
        nodes = serve(node)
        assert (read.result(10) == value).all()
    assert nodes.heard[0] == (b"a", key, True)


def test_a_value_whose_file_is_gone_is_lost_at_once(host: OpenHost, serve: Callable[..., Nodes]):
    node, reader = host("a", kept=True), host("b")
    key = new_id()
    manifest = records.read_manifest(node.put_packed(key, pack(array())))
    assert node.large.shared is not None
    node.large.shared.delete([key + manifest.token])
    serve(node)
    with pytest.raises(ObjectLost, match="is gone"):
        reader.read_large(key, manifest)
    assert manifest_in(reader, key).host == b""
    with pytest.raises(ObjectLost):
        node.read_large(key, manifest)


def test_a_value_that_is_deleted_is_not_waited_for(server: RedisServer, host: OpenHost):
    node, reader = host("a", kept=True), host("b")
    key = new_id()
    manifest = records.read_manifest(node.put_packed(key, pack(array())))
    reader.lives.drop([key])
    with pytest.raises(ObjectLost, match="deleted"):
        reader.read_large(key, manifest)


# -- who copies --------------------------------------------------------------------------------------------------------


def test_a_value_that_is_deleted_while_it_is_copied_leaves_nothing(
    server: RedisServer, host: OpenHost, monkeypatch: pytest.MonkeyPatch
):
    node = host("a", kept=True)
    key = new_id()
    node.put_packed(key, pack(array()))
    keep = node.large._copy_chunks.keep

    def deleted_before(*arguments: Any) -> bool:
        kept = keep(*arguments)
        host("b").lives.drop([key])
        return kept

    monkeypatch.setattr(node.large._copy_chunks, "keep", deleted_before)
    node.large.copy(key)
    assert not chunks(server)


def test_what_another_host_has_deleted_is_swept_here(host: OpenHost):
    node = host("a", kept=True)
    keys = [new_id(), new_id()]
    for key in keys:
        node.put_packed(key, pack(array()))
    assert node.large.sweep() == 0
    host("b").lives.drop(keys[:1])
    assert len(node.large.names_here()) == 2
    assert node.large.sweep() == 1
    assert [name[:OBJECT_BYTES] for name in node.large.names_here()] == keys[1:]


def test_a_copy_that_nobody_finished_goes_with_its_value_or_by_itself(
    server: RedisServer, host: OpenHost, monkeypatch: pytest.MonkeyPatch
):
    node = host("a", kept=True)
    keys = [new_id(), new_id()]
    for key in keys:
        node.put_packed(key, pack(array()))

    def killed(*_: Any) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(node.large._copy_chunks, "keep", killed)
    for key in keys:
        with pytest.raises(KeyboardInterrupt):
            node.large.copy(key)
    assert len(chunks(server)) == 8
    assert all(0 < server.client().pttl(each) <= copies.UNKEPT_MILLISECONDS for each in chunks(server))
    host("b").lives.drop(keys[:1])
    assert len(chunks(server)) == 4
    # The next one takes over what is there.
    monkeypatch.undo()
    node.large.copy(keys[1])
    assert manifest_in(node, keys[1]).chunks == 4
    assert {server.client().pttl(each) for each in chunks(server)} == {-1}


def test_two_that_copy_the_same_value_leave_one_copy(
    server: RedisServer, host: OpenHost, monkeypatch: pytest.MonkeyPatch
):
    first, second = host("a", kept=True), host("a")
    key, value = new_id(), array()
    manifest = records.read_manifest(first.put_packed(key, pack(value)))
    keep = first.large._copy_chunks.keep

    def outrun(*arguments: Any) -> bool:
        second.large.copy(key)
        return keep(*arguments)

    monkeypatch.setattr(first.large._copy_chunks, "keep", outrun)
    first.large.copy(key)
    assert len(chunks(server)) == 4
    assert {server.client().pttl(each) for each in chunks(server)} == {-1}
    assert (host("b").read_large(key, manifest) == value).all()


def test_a_copy_lives_as_long_as_its_value_may(server: RedisServer, host: OpenHost):
    node = host("a", kept=True, ttl=1000.0)
    key = new_id()
    node.put_packed(key, pack(array()))
    node.large.copy(key)
    of_value = chunks(server) | {node.keys.object(key)}
    lives = [server.client().pttl(each) for each in of_value]
    assert len(lives) == 5 and all(900_000 < each <= 1_000_000 for each in lives)


def test_no_room_for_a_copy_is_said_to_who_asks(
    start_redis: Callable[..., RedisServer],
    server: RedisServer,
    host: OpenHost,
    serve: Callable[..., Nodes],
    soon: None,
):
    node, reader = host("a", kept=True), host("b")
    key, value = new_id(), array(16)
    manifest = records.read_manifest(node.put_packed(key, pack(value)))
    server.client().config_set("maxmemory", 8 * MEBIBYTE)
    serve(node)
    with pytest.raises(ObjectStoreFull, match=r"8,388,608 bytes \(a copy for another host was asked for\)"):
        reader.read_large(key, manifest)
    # Nothing is remembered of that when there is room again.
    server.client().config_set("maxmemory", 0)
    assert (reader.read_large(key, manifest) == value).all()


def test_where_there_is_a_place_to_spill_to_a_copy_goes_there(
    server: RedisServer, host: OpenHost, serve: Callable[..., Nodes], tmp_path: Path
):
    node, reader = host("a", kept=True, spill_url=str(tmp_path)), host("b")
    key, value = new_id(), array(16)
    manifest = records.read_manifest(node.put_packed(key, pack(value)))
    server.client().config_set("maxmemory", 8 * MEBIBYTE)
    serve(node)
    assert (reader.read_large(key, manifest) == value).all()
    assert manifest_in(reader, key).spill and not chunks(server)
    reader.lives.drop([key])
    assert not [name for _, _, names in os.walk(tmp_path) for name in names]


def test_a_writer_copies_what_no_node_looks_after_any_more(server: RedisServer, host: OpenHost):
    node, writer = host("a", kept=True), host("a")
    keys, value = [new_id(), new_id()], array()
    written = [records.read_manifest(writer.put_packed(key, pack(value))) for key in keys]
    assert not writer.large.has_unkept
    node.large.stop_looking_after()
    assert writer.large.has_unkept
    writer.large.copy_unkept(60.0)
    assert len(chunks(server)) == 8
    assert (host("b").read_large(keys[0], written[0]) == value).all()


def test_a_result_that_stays_here_needs_no_mark_of_its_preparation(server: RedisServer, host: OpenHost):
    node = host("a", kept=True)
    client, key = secrets.token_bytes(12), new_id()
    record = node.lives.prepare(client, key, pack(array()))
    assert not server.keys()
    node.lives.settle(client, [(key, record)], lost=[key])
    assert not node.large.names_here()
    # One that goes to Redis does: its chunks would be left if this process were killed now.
    node.large.stop_looking_after()
    node.lives.prepare(client, key, pack(array()))
    assert server.client().exists(node.keys.pending(client))
