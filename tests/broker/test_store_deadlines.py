"""Who has a deadline waits for a server that is away until then, whatever other threads do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import ConnectError, ConnectionLost, RabbitryBrokerError
from rabbitry_broker.signing import Signer
from rabbitry_broker.store import server
from rabbitry_broker.store.redis.connection import REPLY_TIMEOUT_S, Connection
from rabbitry_broker.store.server import CONNECT_SECONDS
from rabbitry_broker.store.store import ObjectStore
from tests.servers import RedisServer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that each attempt to connect was given; all fail."""
    asked: list[float] = []

    def refuse(*_: object, timeout: float, **__: object) -> Any:
        asked.append(timeout)
        raise ConnectError("redis://nowhere", "nobody listens", "Start it.")

    monkeypatch.setattr(Connection, "open", refuse)
    return asked


@pytest.fixture
def store() -> ObjectStore:
    """A store that was connected before."""
    endpoint = Endpoint(store_url="redis://nowhere", broker_url="amqp://nowhere", secrets=(b"x" * 16,), prefix="p:")
    store = ObjectStore(endpoint, Signer(endpoint.secrets))
    store.expect_server()
    return store


def test_a_deadline_ends_the_wait_for_a_server(store: ObjectStore, asked: list[float]) -> None:
    for call in (
        lambda: store.call(b"PING"),
        lambda: store.pipeline([(b"PING",)]),
        lambda: store.script("renew", b"key"),
        lambda: store.park([(b"task", b"frame", "queue", 0, [b"x" * 28])]),
        lambda: store.wait_for_server(ConnectionLost("gone")),
    ):
        with store.within(time.monotonic() + 0.05), pytest.raises(RabbitryBrokerError):
            call()
    assert asked
    assert max(asked) <= 0.05
    assert store.seconds_left() == -1


def test_without_one_a_call_is_patient(store: ObjectStore, asked: list[float]) -> None:
    store.patience = 0.02
    for call in (lambda: store.call(b"PING"), lambda: store.park([(b"task", b"frame", "queue", 0, [b"x" * 28])])):
        asked.clear()
        with pytest.raises(ConnectError):
            call()
        assert len(asked) > 1
        assert set(asked) == {CONNECT_SECONDS}


def test_a_thread_that_connects_holds_up_nobody_with_a_deadline(store: ObjectStore) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with store.server._turn:
            held.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    try:
        with store.within(time.monotonic() + 0.02), pytest.raises(ConnectionLost):
            store.call(b"PING")
    finally:
        done.set()
        thread.join()


def test_a_reply_is_waited_for_no_longer_than_the_thread_waits(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(server.time, "monotonic", lambda: now)
    assert store.reply_seconds() == REPLY_TIMEOUT_S
    for left, seconds in ((100.0, REPLY_TIMEOUT_S), (29.0, 16.0), (5.0, 4.0), (1.0, 1.0), (0.001, 1.0), (-1.0, 1.0)):
        with store.within(now + left):
            assert store.reply_seconds() == seconds
    with store.within(now + 10.0):
        assert store.reply_seconds(after=8.0) == 2.0


def test_a_server_that_does_not_answer_holds_up_nobody_with_a_deadline(start_redis: Callable[..., RedisServer]) -> None:
    """It takes connections and is silent: its process is stopped."""
    redis = start_redis()
    endpoint = Endpoint(store_url=redis.url, secrets=(b"x" * 16,), prefix="p:")
    store = ObjectStore(endpoint, Signer(endpoint.secrets))
    store.call(b"PING")
    resumed = threading.Event()

    def resume() -> None:
        resumed.set()
        redis.resume()

    redis.pause()
    timer = threading.Timer(15.0, resume)  # half of what a reply may take otherwise
    timer.start()
    try:
        with store.within(time.monotonic() + 0.1), pytest.raises(RabbitryBrokerError):
            store.call(b"PING")
        assert not resumed.is_set()
    finally:
        timer.cancel()
        redis.resume()
    assert store.call(b"PING") == b"PONG"
    store.close()
