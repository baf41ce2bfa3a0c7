"""Large values in the store: buffers in shared memory, in chunks, in files; outages and shortages of each."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from rabbitry_broker import records
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import StoreError
from rabbitry_broker.ids import OBJECT_BYTES
from rabbitry_broker.serialization import pack
from rabbitry_broker.signing import Signer
from rabbitry_broker.store import spill
from rabbitry_broker.store.store import ObjectStore
from tests.servers import RedisServer

MEBIBYTE = 1 << 20

OpenStore = Callable[..., ObjectStore]


@pytest.fixture
def open_store() -> Iterator[OpenStore]:
    """Return a function that opens a store as a process of a cluster does, without shared memory by default."""
    opened: list[ObjectStore] = []
    secret = secrets.token_bytes(32)

    def open_it(server: RedisServer, *, embedded: bool = False, **options: Any) -> ObjectStore:
        # A broker's address, which nobody connects to here, makes it a cluster.
        endpoint = Endpoint(server.unix_url, None if embedded else "amqp://nowhere", (secret,), "large:")
        store = ObjectStore(endpoint, Signer(endpoint.secrets), **options)
        opened.append(store)
        return store

    yield open_it
    for store in opened:
        store.close()


def new_id() -> bytes:
    return secrets.token_bytes(OBJECT_BYTES)


def read(store: ObjectStore, object_id: bytes, record: bytes) -> Any:
    return store.read_large(object_id, records.read_manifest(record))


def restart_soon(server: RedisServer) -> threading.Thread:
    """Start a server again in a second, from another thread."""

    def run() -> None:
        time.sleep(1.0)
        server.start()

    thread = threading.Thread(target=run, name="restart")
    thread.start()
    return thread


def test_a_transfer_waits_for_a_server_that_restarts(
    start_redis: Callable[..., RedisServer], open_store: OpenStore
) -> None:
    server = start_redis(appendonly=True, appendfsync="always")
    store = open_store(server)
    value = numpy.arange(3 * MEBIBYTE)  # 24 MiB: three chunks
    first, second = new_id(), new_id()
    written = store.put_packed(first, pack(value))

    server.kill()
    restarted = restart_soon(server)
    assert (read(store, first, written) == value).all()
    restarted.join()

    server.kill()
    restarted = restart_soon(server)
    record = store.put_packed(second, pack(value))
    restarted.join()
    assert (read(store, second, record) == value).all()


def test_a_transfer_gives_up_when_the_server_stays_away(
    start_redis: Callable[..., RedisServer], open_store: OpenStore
) -> None:
    server = start_redis()
    store = open_store(server)
    store.patience = 0.5
    value = numpy.arange(MEBIBYTE)
    key = new_id()
    record = store.put_packed(key, pack(value))
    server.kill()
    with pytest.raises(StoreError):
        read(store, key, record)
    server.start()


def test_the_end_of_the_disk_is_left_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = spill.Spill(str(tmp_path), "session")
    url = place.write("first", [memoryview(bytes(1000))])
    found = os.statvfs(tmp_path)
    monkeypatch.setattr(spill, "_RESERVE_BYTES", found.f_bavail * found.f_frsize)
    monkeypatch.setattr(spill, "_RESERVE_SHARE", 1)
    with pytest.raises(spill.OutOfDisk, match=r"1,000 bytes does not fit .* disk .*RABBITRY_SPILL_URL"):
        place.write("second", [memoryview(bytes(1000))])
    assert place.names() == ["first"]
    assert bytes(spill.read(url, [1000])[0]) == bytes(1000)
    place.clear()
    assert not list(tmp_path.iterdir())


def test_off_spills_nothing(open_store: OpenStore, redis_server: RedisServer) -> None:
    assert open_store(redis_server, spill_url=spill.OFF).large.writing.patience > 0
    assert open_store(redis_server, spill_url="/nowhere").large.writing.patience == 0
