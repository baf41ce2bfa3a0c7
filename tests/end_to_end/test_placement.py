"""Where work runs in a cluster of two nodes, on both engines."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import rabbitry
from rabbitry.cluster_utils import Cluster, ClusterNode
from rabbitry.exceptions import ActorUnschedulableError, TaskUnschedulableError
from rabbitry.util.placement_group import placement_group, remove_placement_group
from rabbitry.util.scheduling_strategies import In, NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy
from tests.end_to_end.conftest import NODE_LEASE
from tests.end_to_end.where_work_runs import hold, nap, where
from tests.servers import wait_until

NOBODY = "ab" * 28  # the id of no node
MANY_RESOURCES = {f"resource{at}": 1 for at in range(2000)}


@rabbitry.remote
class Counted:
    def node(self) -> str:
        return str(rabbitry.get_runtime_context().get_node_id())


@pytest.fixture(scope="module")
def pair(engine_arguments: dict[str, Any]) -> Iterator[tuple[ClusterNode, ClusterNode]]:
    """Two nodes that tests share and leave as they found them: zone a, and zone b with a license; one CPU each."""
    with Cluster(node_lease=NODE_LEASE, **engine_arguments) as cluster:
        first = cluster.add_node(num_cpus=1, labels={"zone": "a"}, name="first")
        resources = {"license": 1, **MANY_RESOURCES}
        second = cluster.add_node(num_cpus=1, labels={"zone": "b"}, resources=resources, name="second")
        cluster.connect(log_to_driver=False)
        cluster.wait_for_nodes(10)
        rabbitry.get(
            [on(node).remote() for node in (first, second) for _ in range(2)], timeout=20
        )  # executors are warm
        yield first, second


def on(node: ClusterNode | str, function: Any = where, *, soft: bool = False, **flags: bool) -> Any:
    node_id = node if isinstance(node, str) else node.node_id
    return function.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=soft, **flags))


def test_tasks_run_on_all_nodes(pair):
    first, second = pair
    nodes = Counter(rabbitry.get([nap.remote(0.1) for _ in range(16)], timeout=20))
    assert set(nodes) == {first.node_id, second.node_id}
    assert min(nodes.values()) >= 4


def test_resources_and_labels_decide_where_a_task_runs(pair):
    _, second = pair
    assert rabbitry.get(where.options(resources={"license": 0.5}).remote(), timeout=10) == second.node_id
    assert rabbitry.get(where.options(label_selector={"zone": "b"}).remote(), timeout=10) == second.node_id
    assert rabbitry.get(where.options(label_selector={"zone": "!a"}).remote(), timeout=10) == second.node_id
    chosen = where.options(scheduling_strategy=NodeLabelSchedulingStrategy({"zone": In("b", "c")}))
    assert rabbitry.get(chosen.remote(), timeout=10) == second.node_id


def test_more_resources_than_a_name_of_amqp_can_hold(pair):
    _, second = pair
    everything = where.options(resources=MANY_RESOURCES)
    assert rabbitry.get([everything.remote() for _ in range(3)], timeout=20) == [second.node_id] * 3
    spread = everything.options(scheduling_strategy="SPREAD")
    assert rabbitry.get(spread.remote(), timeout=20) == second.node_id
    actor = Counted.options(num_cpus=0, resources=MANY_RESOURCES).remote()
    assert rabbitry.get(actor.node.remote(), timeout=20) == second.node_id
    rabbitry.kill(actor)


def test_soft_label_conditions_are_preferences(pair):
    first, _ = pair
    prefers_a = NodeLabelSchedulingStrategy(None, soft={"zone": In("a")})
    assert rabbitry.get(where.options(scheduling_strategy=prefers_a).remote(), timeout=10) == first.node_id
    prefers_none = NodeLabelSchedulingStrategy({"zone": In("a")}, soft={"zone": In("nowhere")})
    assert rabbitry.get(where.options(scheduling_strategy=prefers_none).remote(), timeout=10) == first.node_id


def test_affinity_to_a_living_node_runs_there(pair):
    for node in pair:
        assert rabbitry.get([on(node).remote() for _ in range(3)], timeout=10) == [node.node_id] * 3
        assert rabbitry.get(on(node, soft=True).remote(), timeout=10) == node.node_id
        actor = on(node, Counted).remote()
        assert rabbitry.get(actor.node.remote(), timeout=10) == node.node_id
        rabbitry.kill(actor)


def test_hard_affinity_to_a_missing_node_fails(pair):
    with pytest.raises(TaskUnschedulableError, match="gone"):
        rabbitry.get(on(NOBODY).remote(), timeout=10)
    actor = on(NOBODY, Counted).remote()
    with pytest.raises(ActorUnschedulableError):
        rabbitry.get(actor.node.remote(), timeout=10)


def test_hard_affinity_to_a_node_that_could_never_run_it_fails(pair):
    first, _ = pair
    with pytest.raises(TaskUnschedulableError, match="CPU=64"):
        rabbitry.get(on(first, where.options(num_cpus=64)).remote(), timeout=10)


def test_soft_affinity_to_a_missing_node_runs_elsewhere(pair):
    assert rabbitry.get(on(NOBODY, soft=True).remote(), timeout=10) in {node.node_id for node in pair}


def test_affinity_to_a_busy_node_waits_spills_or_fails_as_asked(pair, tmp_path):
    first, second = pair
    held = on(first, hold).remote(str(tmp_path), "first")
    wait_until((tmp_path / "first-began").exists, "the node is busy")
    waits = on(first).remote()
    assert rabbitry.get(on(first, soft=True, _spill_on_unavailable=True).remote(), timeout=10) == second.node_id
    with pytest.raises(TaskUnschedulableError, match="no room"):
        rabbitry.get(on(first, _fail_on_unavailable=True).remote(), timeout=10)
    assert rabbitry.wait([waits], timeout=0.3) == ([], [waits])
    (tmp_path / "go").touch()
    assert rabbitry.get([held, waits], timeout=10) == [first.node_id, first.node_id]


def test_spread_tasks_use_all_nodes(pair):
    refs = [nap.options(scheduling_strategy="SPREAD", num_cpus=0.25).remote(0.5) for _ in range(4)]
    assert len(set(rabbitry.get(refs, timeout=10))) == 2


def test_no_task_waits_on_a_busy_node_while_another_has_room(pair, tmp_path):
    first, second = pair
    held = on(first, hold).remote(str(tmp_path), "first")
    wait_until((tmp_path / "first-began").exists, "the node is busy")
    refs = [nap.remote(0.01) for _ in range(40)]
    assert set(rabbitry.get(refs, timeout=10)) == {second.node_id}
    (tmp_path / "go").touch()
    assert rabbitry.get(held, timeout=10) == first.node_id


def test_what_stands_behind_a_slow_task_of_a_quick_function_goes_elsewhere(pair, tmp_path):
    rabbitry.get([nap.remote(0.0) for _ in range(400)], timeout=20)  # known to be quick from now on: sent by the chunk
    slow = nap.remote(5.0)
    began = time.monotonic()
    rabbitry.get([nap.remote(0.0) for _ in range(400)], timeout=20)
    assert time.monotonic() - began < 4.0
    rabbitry.cancel(slow, force=True)


def test_a_new_resource_class_is_found_at_once(pair):
    began = time.monotonic()
    for part in range(1, 11):
        rabbitry.get(where.options(num_cpus=part / 100).remote(), timeout=5)
    assert time.monotonic() - began < 5.0  # a node that missed an announcement looks every 2 s


def test_work_that_no_node_could_run_is_warned_of_once_and_timeouts_say_it(pair, caplog):
    actor = Counted.options(num_cpus=64).remote()
    refs = [
        where.options(resources={"tpu": 1}).remote(),
        where.options(label_selector={"zone": "atlantis"}).remote(),
        actor.node.remote(),
    ]
    group = placement_group([{"CPU": 1}] * 2, strategy="STRICT_PACK")
    refs.append(group.ready())
    lacking = [
        "the placement group of STRICT_PACK [CPU=1; CPU=1]",
        "CPU: 2 needed, at most 1 on one node",
        "tpu: 1 needed, no node has any",
        "label zone must be atlantis, and nodes have 'a', 'b'",
        "CPU: 64 needed, at most 1 on one node",
    ]
    try:
        wait_until(lambda: all(each in caplog.text for each in lacking), "the warnings", 10.0)
        with pytest.raises(rabbitry.exceptions.GetTimeoutError) as caught:
            rabbitry.get(refs, timeout=0.5)
        assert all(each in str(caught.value) for each in lacking)
    finally:
        for ref in refs[:2]:
            rabbitry.cancel(ref)
        rabbitry.kill(actor)
        remove_placement_group(group)
    assert caplog.text.count("no living node") == 4
