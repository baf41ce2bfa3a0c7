"""What the fake store of the node's tests promises holds for the real one, on a real Redis.

Tests of the node's parts are worth as much as their fake is like the store: what one of them relies on stands here.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.ids import CLIENT_BYTES, NODE_BYTES, TASK_BYTES
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.store import ObjectStore
from tests.servers import RedisServer
from tests.workers.node.fakes import FakeStore

OWNER = b"\1" * CLIENT_BYTES
TASK, OTHER = (OWNER + bytes([number]) * (TASK_BYTES - CLIENT_BYTES) for number in (1, 2))
NODE, ANOTHER = b"\7" * NODE_BYTES, b"\x08" * NODE_BYTES


@pytest.fixture
def prefix() -> bytes:
    return f"rabbitry-{secrets.token_hex(4)}:".encode()


@pytest.fixture(params=["fake", "real"])
def store(request: pytest.FixtureRequest, redis_server: RedisServer, prefix: bytes) -> Iterator[Any]:
    if request.param == "fake":
        yield FakeStore()
        return
    keys = (secrets.token_bytes(32),)
    real = ObjectStore(Endpoint(redis_server.unix_url, None, keys, prefix.decode()), Signer(keys))
    yield real
    for key in real.call(b"KEYS", prefix + b"*"):
        real.call(b"UNLINK", key)
    real.close()


class TestMarks:
    def test_a_task_starts_once(self, store: Any) -> None:
        assert store.start_once(NODE, [TASK], b"12345678") == [b""]
        assert store.start_once(ANOTHER, [TASK, OTHER], b"abcdefgh") == [NODE, b""]
        assert [store.started_by(each) for each in (TASK, OTHER)] == [NODE, ANOTHER]

    def test_who_asks_again_with_the_same_token_may_start(self, store: Any) -> None:
        store.start_once(NODE, [TASK], b"12345678")
        assert store.start_once(NODE, [TASK], b"12345678") == [b""]
        assert store.start_once(NODE, [TASK], b"abcdefgh") == [NODE]

    def test_nobody_started_what_was_never_marked(self, store: Any) -> None:
        assert store.started_by(TASK) is None

    def test_attempts_are_counted_for_each_task(self, store: Any) -> None:
        assert store.count_attempts([TASK]) == [1]
        assert store.count_attempts([TASK, OTHER]) == [2, 1]


class TestResults:
    def test_what_is_not_there_is_none(self, store: Any) -> None:
        assert store.fetch([TASK + b"\0\0\0\1"]) == [None]


class TestScripts:
    def test_what_is_taken_over_stays_with_the_dead_too_until_it_is_on_its_queue(
        self, store: Any, prefix: bytes
    ) -> None:
        theirs, ours = prefix + b"u:theirs", prefix + b"u:ours"
        store.call(b"HSET", theirs, b"1", b"one")
        store.call(b"HSET", ours, b"2", b"two")
        assert store.script("custody_adopt", theirs, ours) == [b"1", b"one"]
        assert store.script("custody_adopt", theirs, ours) == [b"1", b"one"]
        found = store.call(b"HGETALL", ours)
        assert dict(zip(found[::2], found[1::2], strict=True)) == {b"1": b"one", b"2": b"two"}

    def test_whoever_leaves_is_not_there_any_more(self, store: Any, prefix: bytes) -> None:
        digits = NODE.hex()
        key = prefix + b"n:" + digits.encode()
        store.call(b"SET", key, b"record")
        store.call(b"HSET", prefix + b"nodes", NODE, b"record", ANOTHER, b"its")
        store.call(b"SET", prefix + b"head", NODE)
        store.script("node_leave", prefix, NODE, digits, b"0")
        assert store.call(b"EXISTS", key) == 0
        assert store.call(b"HKEYS", prefix + b"nodes") == [ANOTHER]
        assert store.call(b"GET", prefix + b"head") is None

    def test_whoever_leaves_work_is_remembered(self, store: Any, prefix: bytes) -> None:
        store.call(b"HSET", prefix + b"nodes", NODE, b"record")
        store.script("node_leave", prefix, NODE, NODE.hex(), b"1")
        assert store.call(b"HKEYS", prefix + b"nodes") == [NODE]


class TestCommands:
    def test_values(self, store: Any, prefix: bytes) -> None:
        key = prefix + b"k"
        assert store.call(b"GET", key) is None
        assert store.call(b"SET", key, b"1", b"NX") == b"OK"
        assert store.call(b"SET", key, b"2", b"NX") is None
        assert store.call(b"SET", key, b"3", b"GET") == b"1"
        assert store.call(b"MGET", key, prefix + b"other") == [b"3", None]
        assert store.call(b"EXISTS", key) == 1
        assert store.call(b"DEL", key, prefix + b"other") == 1
        assert store.call(b"UNLINK", key) == 0

    def test_tables(self, store: Any, prefix: bytes) -> None:
        key = prefix + b"k"
        assert store.call(b"HGETALL", key) == []
        assert store.call(b"HSETNX", key, b"a", b"1") == 1
        assert store.call(b"HSETNX", key, b"a", b"1") == 0
        assert store.call(b"HSET", key, b"a", b"2", b"b", b"3") == 1
        assert store.call(b"HSET", key, b"b", b"4", b"c", b"5", b"d", b"6") == 2
        assert store.call(b"HGET", key, b"a") == b"2"
        assert store.call(b"HMGET", key, b"b", b"e") == [b"4", None]
        assert sorted(store.call(b"HKEYS", key)) == [b"a", b"b", b"c", b"d"]
        assert store.call(b"HDEL", key, b"a", b"e", b"b", b"c", b"d") == 4
        assert store.call(b"EXISTS", key) == 0  # a table without entries is none

    def test_many_at_once(self, store: Any, prefix: bytes) -> None:
        key = prefix + b"k"
        assert store.pipeline([(b"SET", key, b"1"), (b"GET", key), (b"DEL", key)]) == [b"OK", b"1", 1]
        assert store.pipeline([]) == []
