"""The store read through redis-py, in every topology that an address can name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import ConnectError, StoreError
from rabbitry_broker.store.reader import Reader
from tests.servers import RedisServer


def test_replies_come_as_they_are(start_redis: Callable[..., RedisServer]) -> None:
    endpoint = Endpoint(start_redis().url, "amqp://unused")
    with Reader(endpoint) as reader:
        assert reader.call(b"SADD", b"set", b"member") == 1
        assert reader.call(b"SMEMBERS", b"set") == [b"member"]
        assert reader.call("HSET", "hash", "field", b"\xff") == 1
        assert reader.call("HGETALL", "hash") == [b"field", b"\xff"]
        assert reader.call(b"GET", b"nothing") is None
        assert b"resp=2" in reader.call("CLIENT", "LIST")
        with pytest.raises(StoreError, match="WRONGTYPE"):
            reader.call(b"GET", b"set")


def test_what_cannot_be_reached_says_so() -> None:
    with pytest.raises(ConnectError, match="nothing is listening there"):
        Reader(Endpoint("redis://127.0.0.1:1", "amqp://unused"))
    with pytest.raises(ConnectError, match="the socket does not exist"):
        Reader(Endpoint("unix:///nowhere/redis.sock"))


def test_a_wrong_password_is_told(start_redis: Callable[..., RedisServer]) -> None:
    url = start_redis(password="right").url
    with pytest.raises(ConnectError, match="password"):
        Reader(Endpoint(url.replace("right", "wrong"), "amqp://unused"))
