"""Records of placement groups: their states, and who may change them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import StoreError
from rabbitry_broker.ids import OBJECT_BYTES, new_client_id, new_group_id, new_node_id
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.groups import (
    CREATED,
    FENCED,
    PENDING,
    PREPARED,
    REFUSED,
    REMOVED,
    RESCHEDULING,
    STALE,
    WAITS,
    GroupRecords,
    GroupSpec,
)
from rabbitry_broker.store.store import ObjectStore
from tests.servers import RedisServer

JOB = b"jobb"
ONE, TWO = new_node_id(), new_node_id()
MOVES = {
    PENDING: {PREPARED, REMOVED},
    PREPARED: {CREATED, PENDING, RESCHEDULING, REMOVED},
    CREATED: {RESCHEDULING, REMOVED},
    RESCHEDULING: {PREPARED, REMOVED},
    REMOVED: set(),
}


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[ObjectStore]:
    endpoint = Endpoint(redis_server.url, None, (b"s" * 32,), f"groups-{time.monotonic_ns()}:")
    made = ObjectStore(endpoint, Signer(endpoint.secrets))
    yield made
    left = made.call(b"KEYS", made.keys.prefix + b"*")
    if left:
        made.call(b"DEL", *left)
    made.close()


class Cluster:
    """A store, its groups, and a node that plans."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.records = GroupRecords(store)
        self.fence = self.records.take_planning(ONE, 5)

    def group(self, *bundles: str, **fields: object) -> bytes:
        group_id = new_group_id(JOB)
        assert self.records.create(group_id, GroupSpec(list(bundles or ("CPU=1", "CPU=2")), **fields)) is None
        return group_id

    def plan(self, group_id: bytes, nodes: dict[int, bytes], *, here: bool = False, token: bytes = b"t") -> str:
        ((answer, _),) = self.records.plan(
            [(group_id, token, "", nodes)], {group_id: ["CPU=1", "CPU=2"]}, fence=self.fence, here=here
        )
        return answer

    def created(self, *bundles: str) -> bytes:
        group_id = self.group(*bundles)
        assert self.plan(group_id, {0: ONE, 1: ONE}, here=True) == CREATED
        return group_id

    def confirm(
        self, group_id: bytes, token: bytes, node: bytes, indices: list[int], *, held: bool
    ) -> tuple[str, list[tuple[bytes, bytes]]]:
        (came,) = self.records.confirm(node, [(group_id, token, indices, held)])
        return came

    def state(self, group_id: bytes) -> str:
        return self.records.state(group_id)


@pytest.fixture
def cluster(store: ObjectStore) -> Cluster:
    return Cluster(store)


def test_a_group_stands_when_the_last_node_confirms(cluster: Cluster) -> None:
    group_id = cluster.group()
    assert cluster.plan(group_id, {0: ONE, 1: TWO}) == PREPARED
    assert cluster.confirm(group_id, b"t", TWO, [1], held=True) == (PREPARED, [])
    assert cluster.state(group_id) == PREPARED
    assert cluster.confirm(group_id, b"t", ONE, [0], held=True) == (CREATED, [])
    (group,) = cluster.records.read([group_id])
    assert group is not None
    assert (group.state, group.held, group.asked, group.missing) == (CREATED, {0: ONE, 1: TWO}, {}, [])
    assert group.placed >= group.created > 0


def test_confirming_twice_is_as_good_as_once(cluster: Cluster) -> None:
    group_id = cluster.group()
    cluster.plan(group_id, {0: ONE, 1: TWO})
    for _ in range(2):
        assert cluster.confirm(group_id, b"t", ONE, [0], held=True)[0] == PREPARED
    for _ in range(2):
        assert cluster.confirm(group_id, b"t", TWO, [1], held=True)[0] == CREATED
    assert cluster.plan(group_id, {0: ONE, 1: TWO}) == CREATED


def test_one_refusal_gives_all_back(cluster: Cluster) -> None:
    group_id = cluster.group()
    cluster.plan(group_id, {0: ONE, 1: TWO})
    cluster.confirm(group_id, b"t", ONE, [0], held=True)
    assert cluster.confirm(group_id, b"t", TWO, [1], held=False)[0] == REFUSED
    (group,) = cluster.records.read([group_id])
    assert group is not None
    assert (group.state, group.held, group.asked) == (PENDING, {}, {})
    assert cluster.confirm(group_id, b"t", ONE, [0], held=True)[0] == STALE


def test_an_answer_to_a_plan_that_was_given_up_changes_nothing(cluster: Cluster) -> None:
    group_id = cluster.group()
    cluster.plan(group_id, {0: ONE, 1: TWO})
    assert cluster.records.give_up(group_id, b"t", fence=cluster.fence) == PENDING
    assert cluster.plan(group_id, {0: TWO, 1: TWO}, token=b"u") == PREPARED
    assert cluster.confirm(group_id, b"t", TWO, [1], held=True)[0] == STALE
    assert cluster.confirm(group_id, b"t", TWO, [1], held=False)[0] == STALE
    assert cluster.confirm(group_id, b"u", TWO, [0, 1], held=True)[0] == CREATED


def test_who_was_planner_before_plans_nothing_any_more(cluster: Cluster) -> None:
    group_id = cluster.group()
    assert cluster.records.take_planning(TWO, 5) == 0
    cluster.records.leave_planning(ONE)
    later = cluster.records.take_planning(TWO, 5)
    assert later > cluster.fence
    assert cluster.records.take_planning(TWO, 5) == later
    assert cluster.plan(group_id, {0: ONE, 1: ONE}, here=True) == FENCED
    cluster.fence = later
    assert cluster.plan(group_id, {0: ONE, 1: ONE}) == PREPARED
    assert cluster.records.give_up(group_id, b"t", fence=later - 1) == PREPARED


def test_why_there_is_no_plan_stands_in_the_record(cluster: Cluster) -> None:
    group_id = cluster.group()
    ((answer, _),) = cluster.records.plan([(group_id, b"t", "NO_RESOURCES", {})], {}, fence=cluster.fence)
    (group,) = cluster.records.read([group_id])
    assert group is not None
    assert (answer, group.state, group.why, group.attempts) == (WAITS, PENDING, "NO_RESOURCES", 1)


def test_bundles_of_a_lost_node_are_planned_again_and_the_others_stay(cluster: Cluster) -> None:
    group_id = cluster.group()
    cluster.plan(group_id, {0: ONE, 1: TWO})
    cluster.confirm(group_id, b"t", ONE, [0], held=True)
    cluster.confirm(group_id, b"t", TWO, [1], held=True)
    assert cluster.records.lost(group_id, b"t", [new_node_id()]) == CREATED
    assert cluster.records.lost(group_id, b"t", [TWO]) == RESCHEDULING
    (group,) = cluster.records.read([group_id])
    assert group is not None
    assert (group.held, group.missing) == ({0: ONE}, [1])
    assert cluster.plan(group_id, {1: ONE}, token=b"u") == PREPARED
    assert cluster.confirm(group_id, b"u", ONE, [1], held=False)[0] == REFUSED
    assert cluster.state(group_id) == RESCHEDULING
    assert cluster.plan(group_id, {1: ONE}, token=b"v", here=True) == CREATED


def test_a_node_that_is_lost_while_it_is_asked_ends_the_plan(cluster: Cluster) -> None:
    group_id = cluster.group()
    cluster.plan(group_id, {0: ONE, 1: TWO})
    assert cluster.records.lost(group_id, b"t", [TWO]) == PENDING
    group_id = cluster.group()
    cluster.plan(group_id, {0: ONE, 1: TWO})
    cluster.confirm(group_id, b"t", TWO, [1], held=True)
    assert cluster.records.lost(group_id, b"t", [TWO]) == PENDING


@pytest.mark.parametrize("state", [PENDING, PREPARED, CREATED, RESCHEDULING])
def test_a_group_can_be_removed_at_any_time_and_stays_so(cluster: Cluster, state: str) -> None:
    group_id = cluster.group(name="n", namespace="s")
    if state != PENDING:
        cluster.plan(group_id, {0: ONE, 1: TWO}, here=state != PREPARED)
    if state == RESCHEDULING:
        cluster.records.lost(group_id, b"t", [TWO])
    assert cluster.records.remove(group_id) == state
    assert cluster.records.remove(group_id) == REMOVED
    assert cluster.state(group_id) == REMOVED
    assert cluster.plan(group_id, {0: ONE, 1: TWO}, token=b"u") == REMOVED
    assert cluster.confirm(group_id, b"t", ONE, [0], held=True)[0] in (STALE, REMOVED)
    assert cluster.records.lost(group_id, b"t", [ONE]) == REMOVED
    assert (cluster.records.ids(), cluster.records.removed()) == ([], [group_id])
    assert cluster.records.by_name("s", "n") is None
    assert cluster.store.call(b"TTL", cluster.store.keys.group(group_id)) > 0


def test_a_name_belongs_to_one_living_group(cluster: Cluster) -> None:
    group_id = cluster.group(name="n", namespace="s")
    again = new_group_id(JOB)
    assert cluster.records.create(again, GroupSpec(["CPU=1"], name="n", namespace="s")) == group_id
    assert cluster.state(again) == ""
    cluster.group(name="n", namespace="t")
    assert cluster.records.by_name("s", "n") == group_id
    cluster.records.remove(group_id)
    assert cluster.records.create(again, GroupSpec(["CPU=1"], name="n", namespace="s")) is None
    assert cluster.records.by_name("s", "n") == again


def test_who_waits_is_told_once_it_stands(cluster: Cluster) -> None:
    group_id = cluster.group()
    waiting = new_client_id() + b"o" * 16
    assert cluster.records.wait(group_id, waiting, b"Precord") == PENDING
    assert cluster.records.with_waiters([group_id]) == [group_id]
    ((answer, ready),) = cluster.records.plan(
        [(group_id, b"t", "", {0: ONE, 1: ONE})], {group_id: ["CPU=1", "CPU=2"]}, fence=cluster.fence, here=True
    )
    assert (answer, ready) == (CREATED, [(waiting, b"Precord")])
    cluster.records.told([(group_id, [waiting])])
    assert cluster.records.with_waiters([group_id]) == []
    assert cluster.records.wait(group_id, waiting, b"Precord") == CREATED
    assert cluster.records.waiters(group_id) == []


def test_who_waits_for_a_removed_group_is_on_record_until_told(cluster: Cluster) -> None:
    group_id = cluster.group()
    waiting = new_client_id() + b"o" * 16
    cluster.records.wait(group_id, waiting, b"Precord")
    cluster.records.remove(group_id)
    assert cluster.records.untold() == [group_id]
    assert cluster.records.waiters(group_id) == [(waiting, b"Precord")]
    cluster.records.told([(group_id, [waiting])])
    cluster.records.all_told(group_id)
    assert cluster.records.untold() == []
    assert cluster.records.wait(group_id, waiting, b"Precord") == REMOVED


def test_a_record_that_nobody_of_the_cluster_wrote_is_put_aside(cluster: Cluster) -> None:
    group_id = cluster.group()
    cluster.store.call(b"HSET", cluster.store.keys.group(group_id), "spec", b"forged")
    assert cluster.records.read([group_id, new_group_id(JOB)]) == [None, None]
    assert cluster.store.call(b"GET", cluster.store.keys.put_aside + b":count") == b"1"


def test_a_group_lives_as_long_as_who_made_it(cluster: Cluster) -> None:
    keys, actor = cluster.store.keys, b"a" * 16
    specs = {
        b"1": GroupSpec(["CPU=1"], job=JOB),
        b"2": GroupSpec(["CPU=1"], job=JOB, detached=True),
        b"3": GroupSpec(["CPU=1"], job=JOB, actor=actor),
        b"4": GroupSpec(["CPU=1"], job=JOB, actor=actor, outlives_job=True),
    }
    assert cluster.records.living(specs) == {b"2"}
    cluster.store.call(b"SET", keys.job(JOB), b"x")
    assert cluster.records.living(specs) == {b"1", b"2"}
    cluster.store.call(b"HSET", keys.actor(actor), "state", "ALIVE")
    assert cluster.records.living(specs) == {b"1", b"2", b"3", b"4"}
    cluster.store.call(b"DEL", keys.job(JOB))
    assert cluster.records.living(specs) == {b"2", b"4"}
    cluster.store.call(b"HSET", keys.actor(actor), "state", "DEAD")
    assert cluster.records.living(specs) == {b"2"}


def test_the_table_of_moves_is_the_one_that_is_drawn(cluster: Cluster) -> None:
    move = "local key, to = KEYS[1], ARGV[1]\n"
    from rabbitry_broker.store import scripts

    source = scripts.source_of("group_move") + move + "group_move(key, to)"
    for before, after in itertools.product(MOVES, MOVES):
        key = cluster.store.keys.prefix + b"moved"
        cluster.store.call(b"HSET", key, "state", before)
        script = cluster.store.connection.script(source)
        if after in MOVES[before]:
            script((key,), (after,))
            assert cluster.store.call(b"HGET", key, "state") == after.encode()
        else:
            with pytest.raises(StoreError, match=f"{before} -> {after}"):
                script((key,), (after,))


def test_any_number_may_wait(cluster: Cluster) -> None:
    group_id = cluster.group()
    signer, key = cluster.store.signer, cluster.store.keys.group(group_id) + b":ready"
    waiting = {number.to_bytes(OBJECT_BYTES, "big"): b"Precord" for number in range(4100)}
    sealed = [each for one, record in waiting.items() for each in (one, signer.seal(b"ready" + one, record))]
    cluster.store.call(b"HSET", key, *sealed)
    plans = [(group_id, b"t", "", {0: ONE, 1: ONE})]
    for _ in range(2):  # the first reply may be lost
        ((answer, told),) = cluster.records.plan(plans, {group_id: ["1", "1"]}, fence=cluster.fence, here=True)
        assert (answer, dict(told)) == (CREATED, waiting)
