"""Room in Redis: who finds none waits, those who come right after him do not wait all over again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import StoreError
from rabbitry_broker.shared_memory import ObjectStoreFull
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.store import ObjectStore
from tests.servers import RedisServer

SECRETS = (b"0123456789abcdef",)
MEBIBYTE = 1 << 20
PATIENCE = 0.3


@pytest.fixture
def store(start_redis: Callable[..., RedisServer]) -> Iterator[ObjectStore]:
    server = start_redis(config={"maxmemory": "20mb"})
    store = ObjectStore(Endpoint(server.url, "amqp://unused", SECRETS), Signer(SECRETS))
    yield store
    store.close()


def test_a_row_of_writers_waits_once(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    store.on_full = lambda: asked.append(1)
    with pytest.raises(ObjectStoreFull):
        store.room.require(30 * MEBIBYTE, patience=PATIENCE)
    assert asked, "it waited"
    asked.clear()
    for _ in range(100):
        with pytest.raises(ObjectStoreFull):
            store.room.require(30 * MEBIBYTE, patience=PATIENCE)
    assert not asked, "the shortage is the same"
    store.room.require(1000)
    with pytest.raises(ObjectStoreFull):
        store.room.require(30 * MEBIBYTE, patience=PATIENCE)
    assert asked, "there was room in between"


def test_a_refused_command_waits_likewise(store: ObjectStore) -> None:
    tries: list[float] = []

    def refused() -> None:
        tries.append(time.monotonic())
        raise StoreError("OOM command not allowed when used memory > 'maxmemory'.")

    with pytest.raises(ObjectStoreFull, match="there is no room in"):
        store.when_room(refused, patience=PATIENCE)
    assert len(tries) > 1
    tries.clear()
    with pytest.raises(ObjectStoreFull, match=r"an object of 1,000 bytes does not fit"):
        store.when_room(refused, patience=PATIENCE, size=1000)
    assert len(tries) == 1
