"""Signs of life of nodes, and what others read of them, on a real Redis: what changed, once, however many there are."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.nodes import LEFT, Beaten, NodeRecords
from rabbitry_broker.store.store import ObjectStore
from tests.servers import RedisServer, wait_until

LEASE = 30.0


class Nodes:
    """Nodes of one cluster."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.keys = store.keys

    def add(self, at_once: int = 64) -> Member:
        return Member(self, secrets.token_bytes(28), at_once)

    def commands(self) -> int:
        """Return how many commands the server has run, those in scripts included."""
        info = self.store.call(b"INFO", b"commandstats")
        return sum(int(line.split(b"calls=")[1].split(b",")[0]) for line in info.splitlines() if b"calls=" in line)


class Member:
    def __init__(self, nodes: Nodes, node: bytes, at_once: int) -> None:
        self.id = node
        self.records = NodeRecords(nodes.store, nodes.keys, node, at_once)
        self.beat()
        self.records.read_all()

    def beat(self, record: bytes = b"sealed", *, news: bool = False, room: bool = False, **options: Any) -> Beaten:
        lease = options.pop("lease", LEASE)
        return self.records.beat(
            record,
            lease=lease,
            slots=2,
            news=news,
            room=room,
            claims_head=options.pop("claims_head", None),
            late=2.0,
            turns=options.pop("turns", ()),
        )

    def reads(self) -> dict[bytes, Any]:
        return dict(self.beat().found)


@pytest.fixture
def nodes(redis_server: RedisServer) -> Iterator[Nodes]:
    prefix = f"nodes-{secrets.token_hex(4)}:"
    store = ObjectStore(Endpoint(redis_server.url, "amqp://nowhere", (b"s" * 32,), prefix), Signer((b"s" * 32,)))
    try:
        yield Nodes(store)
    finally:
        cursor: Any = b"0"
        while True:
            cursor, found = store.call(b"SCAN", cursor, b"MATCH", prefix.encode() + b"*", b"COUNT", 1000)
            if found:
                store.call(b"UNLINK", *found)
            if cursor == b"0":
                break
        store.close()


def test_each_change_is_read_once_by_each_node(nodes: Nodes):
    one, two = nodes.add(), nodes.add()
    assert one.reads() == {two.id: b"sealed"}, "it has come"
    assert one.reads() == {}
    two.beat(b"another record")
    assert one.reads() == {}, "nothing that others are to know"
    two.beat(b"third", news=True)
    assert one.reads() == {two.id: b"third"}
    two.beat(b"fourth", room=True)
    found, more = one.records.look()
    assert (dict(found), more) == ({two.id: b"fourth"}, False)
    assert one.reads() == {}


def test_what_a_beat_costs_does_not_grow_with_the_number_of_nodes(nodes: Nodes):
    one = nodes.add()
    one.beat()
    before = nodes.commands()
    one.beat()
    alone = nodes.commands() - before
    for _ in range(50):
        nodes.add()
    one.records.read_all()
    one.beat()
    before = nodes.commands()
    one.beat()
    assert nodes.commands() - before == alone


def test_many_changes_are_read_in_bounded_pieces(nodes: Nodes):
    one = nodes.add(at_once=4)
    others = [nodes.add() for _ in range(10)]
    found: dict[bytes, Any] = dict(one.beat().found)
    pieces = 1
    while True:
        piece, more = one.records.look()
        assert len(piece) <= 4
        found.update(piece)
        pieces += 1
        if not more:
            break
    assert found.keys() == {each.id for each in others}
    assert pieces == 3


def test_a_node_whose_lease_ends_is_noticed_by_the_next_beat_of_any_and_read_by_all(nodes: Nodes):
    one, two, dying = nodes.add(), nodes.add(), nodes.add()
    for each in (one, two):
        each.reads()
    dying.beat(lease=0.05)
    wait_until(lambda: not nodes.store.call(b"EXISTS", nodes.keys.node(dying.id)), "its lease has ended")
    assert one.reads() == {dying.id: None}
    assert two.reads() == {dying.id: None}
    assert one.reads() == {}
    assert nodes.store.call(b"HKEYS", nodes.keys.nodes + b":slots").count(dying.id) == 0
    assert dying.id in nodes.store.call(b"HKEYS", nodes.keys.nodes), "what it left is still to be seen to"
    assert not dying.beat().was_alive
    assert one.reads() == {dying.id: b"sealed"}, "it is back"


def test_a_lease_that_was_renewed_without_a_beat_has_not_ended(nodes: Nodes):
    one, two = nodes.add(), nodes.add()
    one.reads()
    two.beat(lease=0.05)
    two.records.stay(LEASE, head=False)
    time.sleep(0.06)
    assert one.reads() == {}
    assert two.beat().was_alive


@pytest.mark.parametrize("work_left", [True, False])
def test_a_goodbye_is_read_and_leaves_nothing_once_all_are_gone(nodes: Nodes, work_left: bool):
    one, two = nodes.add(), nodes.add()
    one.reads()
    two.records.leave(work_left=work_left)
    assert one.reads() == {two.id: None if work_left else LEFT}
    assert one.records.read_all() == ({two.id: None} if work_left else {})
    one.records.leave(work_left=False)
    _, left = nodes.store.call(b"SCAN", b"0", b"MATCH", nodes.keys.prefix + b"*", b"COUNT", 10000)
    assert left == ([nodes.keys.nodes] if work_left else [])


def test_the_last_hundred_that_left_are_on_record_for_ten_minutes(nodes: Nodes):
    stays = nodes.add()
    long_ago = nodes.store.time() - 601
    nodes.store.call(b"ZADD", nodes.keys.left_nodes, b"%d" % int(long_ago * 1e6), b"long ago")
    left = [nodes.add() for _ in range(102)]
    for each in left:
        each.beat(b"of " + each.id)
        each.records.leave(work_left=False)
    seen = nodes.store.call(b"ZRANGE", nodes.keys.left_nodes, b"0", b"-1")
    assert seen == [each.id + b"of " + each.id for each in left[2:]]
    assert 0 < nodes.store.call(b"TTL", nodes.keys.left_nodes) <= 600
    stays.records.leave(work_left=False)
    assert not nodes.store.call(b"EXISTS", nodes.keys.left_nodes), "nobody is left who would see it"


def test_the_mark_of_the_cluster_is_written_again_only_if_it_is_lost(nodes: Nodes):
    one = nodes.add()
    one.records.mark_again(b"ours")
    assert nodes.store.call(b"GET", nodes.keys.cluster) == b"ours"
    one.records.mark_again(b"late")
    assert nodes.store.call(b"GET", nodes.keys.cluster) == b"ours"


def test_what_nobody_reads_any_more_goes(nodes: Nodes):
    one = nodes.add()
    one.beat(room=True)
    for key in (nodes.keys.nodes + b":changes", nodes.keys.nodes + b":rooms"):
        assert 0 < nodes.store.call(b"PTTL", key) <= 60_000
        nodes.store.call(b"ZADD", key, b"1", b"long-ago")
    nodes.add().beat(room=True)
    for key in (nodes.keys.nodes + b":changes", nodes.keys.nodes + b":rooms"):
        assert nodes.store.call(b"ZSCORE", key, b"long-ago") is None


def test_changes_are_above_what_was_read_though_the_clock_goes_back(nodes: Nodes):
    one, two = nodes.add(), nodes.add()
    far = b"%d" % int((nodes.store.time() + 3600) * 1e6)
    nodes.store.call(b"ZADD", nodes.keys.nodes + b":changes", far, two.id.hex())
    assert one.reads() == {two.id: b"sealed"}
    two.beat(b"later", news=True)
    assert one.reads() == {two.id: b"later"}


def test_one_node_at_a_time_has_the_head(nodes: Nodes):
    one, two = nodes.add(), nodes.add()
    assert one.beat(claims_head=True).head.node == one.id
    assert two.beat(claims_head=True).head.node == one.id
    assert one.beat(claims_head=False).head.node == b""
    assert two.beat(claims_head=True).head.node == two.id
    assert one.beat(claims_head=False).head.node == two.id, "it is not this node's to give up"
    two.records.leave(work_left=False)
    assert one.beat(claims_head=True).head.node == one.id


def test_a_beat_says_who_plans_and_how_many_queues_there_are(nodes: Nodes):
    one = nodes.add()
    assert one.beat().planner == (b"", -2)
    nodes.store.call(b"SET", nodes.keys.planner, b"planner", b"PX", b"4000")
    nodes.store.call(b"SADD", nodes.keys.queues, b"one", b"two")
    nodes.store.call(b"SADD", nodes.keys.prioritized, b"two")
    beaten = one.beat()
    assert beaten.planner.node == b"planner"
    assert 0 < beaten.planner.left <= 4000
    assert beaten.queues == (2, 1)


def test_a_beat_says_how_long_turns_last(nodes: Nodes):
    one, taken = nodes.add(), nodes.keys.janitor
    nodes.store.call(b"SET", taken, b"somebody", b"PX", b"4000")
    nodes.store.call(b"SET", taken + b":for-ever", b"somebody")
    free, left, ever = one.beat(turns=[taken + b":free", taken, taken + b":for-ever"]).turns
    assert (free, ever) == (-2, -1)
    assert 0 < left <= 4000


def test_a_beat_says_whether_drivers_are_silent(nodes: Nodes):
    one, client = nodes.add(), secrets.token_bytes(16)
    now = nodes.store.time()
    nodes.store.call(b"ZADD", nodes.keys.drivers, repr(now), client)
    assert not one.beat().has_silent
    nodes.store.call(b"ZADD", nodes.keys.drivers, repr(now - 2.5), client)
    assert one.beat().has_silent


def test_a_beat_is_taken_while_redis_is_full(nodes: Nodes):
    one, two = nodes.add(), nodes.add()
    used = int(next(line for line in nodes.store.call(b"INFO", b"memory").splitlines() if b"used_memory:" in line)[12:])
    nodes.store.call(b"CONFIG", b"SET", b"maxmemory", b"%d" % (used // 2))
    try:
        assert one.beat(b"while it is full", news=True).was_alive
        assert two.reads()[one.id] == b"while it is full"
    finally:
        nodes.store.call(b"CONFIG", b"SET", b"maxmemory", b"0")


def test_what_somebody_else_wrote_in_the_place_of_a_record_goes_with_the_next_beat(nodes: Nodes):
    one, two = nodes.add(), nodes.add()
    nodes.store.pipeline([(b"DEL", nodes.keys.node(one.id)), (b"SADD", nodes.keys.node(one.id), b"x")])
    assert two.reads() == {}
    one.beat(news=True)
    assert two.reads() == {one.id: b"sealed"}
