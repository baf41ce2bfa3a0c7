"""A Redis that is away, busy with a script, or gone: what waits for it, how long, and what is said in the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rabbitry_broker.embedded_server import EmbeddedServer
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import ConnectError, RabbitryBrokerError
from rabbitry_broker.signing import Signer
from rabbitry_broker.store import server as store_server
from rabbitry_broker.store.redis.connection import Connection
from rabbitry_broker.store.store import ObjectStore
from tests.servers import RedisServer

SECRETS = (b"0123456789abcdef",)
LONG = 600.0


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis(config={"lua-time-limit": "50"})


@pytest.fixture
def store(server: RedisServer) -> Iterator[ObjectStore]:
    store = ObjectStore(Endpoint(server.url, "amqp://unused", SECRETS), Signer(SECRETS))
    store.call(b"SET", b"here", b"yes")
    yield store
    store.close()


def test_a_busy_server_is_waited_for(server: RedisServer, store: ObjectStore) -> None:
    answers: list[bytes] = []
    with server.busy():
        threads = [
            threading.Thread(target=lambda: answers.append(store.call(b"GET", b"here"))),
            threading.Thread(target=lambda: answers.append(store.open_connection("new").call(b"GET", b"here"))),
        ]
        for thread in threads:
            thread.start()
        with pytest.raises(ConnectError, match=r"busy with a script after 0.1 s"):
            Connection.open(server.url, timeout=0.1)
    for thread in threads:
        thread.join(30)
    assert answers == [b"yes", b"yes"]


@pytest.mark.parametrize("seconds", [0.0, 0.2])
def test_nobody_waits_longer_than_he_said(
    server: RedisServer, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(store, "patience", LONG)
    monkeypatch.setattr(store_server, "SERVER_PATIENCE_SECONDS", LONG)
    with server.busy(), store.within(time.monotonic() + seconds), pytest.raises(RabbitryBrokerError):
        store.call(b"GET", b"here")
    server.kill()
    with store.within(time.monotonic() + seconds), pytest.raises(RabbitryBrokerError):
        store.call(b"GET", b"here")
    with (
        store.within(time.monotonic() + LONG),
        store.within(time.monotonic() + seconds),
        pytest.raises(RabbitryBrokerError),
    ):
        store.call(b"GET", b"here")
    thread = threading.Timer(3 * seconds, server.start)
    thread.start()
    with store.within(time.monotonic() + seconds), store.within(None):
        assert store.call(b"EXISTS", b"here") == 0
    thread.join()
    assert store.call(b"EXISTS", b"here") == 0, "the limit is gone with its context"


def test_an_embedded_server_that_is_gone_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedServer.start() as server:
        store = ObjectStore(Endpoint(server.url, None, SECRETS), Signer(SECRETS))
        store.call(b"PING")
    assert not Path(server.run_dir).exists()
    monkeypatch.setattr(store, "patience", 0.3)
    with pytest.raises(ConnectError, match="the session has ended"):
        store.call(b"PING")
    monkeypatch.setattr(store, "patience", LONG)
    began = time.monotonic()
    with pytest.raises(ConnectError, match="the session has ended"):
        store.call(b"PING")
    assert time.monotonic() - began < LONG / 2
    store.close()
