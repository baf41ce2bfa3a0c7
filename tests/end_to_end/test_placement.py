"""Where work runs in a cluster of two nodes, on both engines."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import warren
from tests.end_to_end.conftest import NODE_LEASE
from tests.end_to_end.where_work_runs import hold, nap, where
from tests.servers import wait_until
from warren.cluster_utils import Cluster, ClusterNode
from warren.exceptions import ActorUnschedulableError, TaskUnschedulableError
from warren.util.scheduling_strategies import In, NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy

NOBODY = "ab" * 28  # the id of no node


@warren.remote
class Counted:
    def node(self) -> str:
        return str(warren.get_runtime_context().get_node_id())


@pytest.fixture(scope="module")
def pair(engine_arguments: dict[str, Any]) -> Iterator[tuple[ClusterNode, ClusterNode]]:
    """Two nodes that tests share and leave as they found them: zone a, and zone b with a license; one CPU each."""
    with Cluster(node_lease=NODE_LEASE, **engine_arguments) as cluster:
        first = cluster.add_node(num_cpus=1, labels={"zone": "a"}, name="first")
        second = cluster.add_node(num_cpus=1, labels={"zone": "b"}, resources={"license": 1}, name="second")
        cluster.connect(log_to_driver=False)
        cluster.wait_for_nodes(10)
        warren.get([on(node).remote() for node in (first, second) for _ in range(2)], timeout=20)  # executors are warm
        yield first, second


def on(node: ClusterNode | str, function: Any = where, *, soft: bool = False, **flags: bool) -> Any:
    node_id = node if isinstance(node, str) else node.node_id
    return function.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=soft, **flags))


def test_tasks_run_on_all_nodes(pair):
    first, second = pair
    nodes = Counter(warren.get([nap.remote(0.1) for _ in range(16)], timeout=20))
    assert set(nodes) == {first.node_id, second.node_id}
    assert min(nodes.values()) >= 4


def test_resources_and_labels_decide_where_a_task_runs(pair):
    _, second = pair
    assert warren.get(where.options(resources={"license": 0.5}).remote(), timeout=10) == second.node_id
    assert warren.get(where.options(label_selector={"zone": "b"}).remote(), timeout=10) == second.node_id
    assert warren.get(where.options(label_selector={"zone": "!a"}).remote(), timeout=10) == second.node_id
    chosen = where.options(scheduling_strategy=NodeLabelSchedulingStrategy({"zone": In("b", "c")}))
    assert warren.get(chosen.remote(), timeout=10) == second.node_id


def test_soft_label_conditions_are_preferences(pair):
    first, _ = pair
    prefers_a = NodeLabelSchedulingStrategy(None, soft={"zone": In("a")})
    assert warren.get(where.options(scheduling_strategy=prefers_a).remote(), timeout=10) == first.node_id
    prefers_none = NodeLabelSchedulingStrategy({"zone": In("a")}, soft={"zone": In("nowhere")})
    assert warren.get(where.options(scheduling_strategy=prefers_none).remote(), timeout=10) == first.node_id


def test_affinity_to_a_living_node_runs_there(pair):
    for node in pair:
        assert warren.get([on(node).remote() for _ in range(3)], timeout=10) == [node.node_id] * 3
        assert warren.get(on(node, soft=True).remote(), timeout=10) == node.node_id
        actor = on(node, Counted).remote()
        assert warren.get(actor.node.remote(), timeout=10) == node.node_id
        warren.kill(actor)


def test_hard_affinity_to_a_missing_node_fails(pair):
    with pytest.raises(TaskUnschedulableError, match="gone"):
        warren.get(on(NOBODY).remote(), timeout=10)
    actor = on(NOBODY, Counted).remote()
    with pytest.raises(ActorUnschedulableError):
        warren.get(actor.node.remote(), timeout=10)


def test_hard_affinity_to_a_node_that_could_never_run_it_fails(pair):
    first, _ = pair
    with pytest.raises(TaskUnschedulableError, match="CPU=64"):
        warren.get(on(first, where.options(num_cpus=64)).remote(), timeout=10)


def test_soft_affinity_to_a_missing_node_runs_elsewhere(pair):
    assert warren.get(on(NOBODY, soft=True).remote(), timeout=10) in {node.node_id for node in pair}


def test_affinity_to_a_busy_node_waits_spills_or_fails_as_asked(pair, tmp_path):
    first, second = pair
    held = on(first, hold).remote(str(tmp_path), "first")
    wait_until((tmp_path / "first-began").exists, "the node is busy")
    waits = on(first).remote()
    assert warren.get(on(first, soft=True, _spill_on_unavailable=True).remote(), timeout=10) == second.node_id
    with pytest.raises(TaskUnschedulableError, match="no room"):
        warren.get(on(first, _fail_on_unavailable=True).remote(), timeout=10)
    assert warren.wait([waits], timeout=0.3) == ([], [waits])
    (tmp_path / "go").touch()
    assert warren.get([held, waits], timeout=10) == [first.node_id, first.node_id]


def test_spread_tasks_use_all_nodes(pair):
    refs = [nap.options(scheduling_strategy="SPREAD", num_cpus=0.25).remote(0.5) for _ in range(4)]
    assert len(set(warren.get(refs, timeout=10))) == 2


def test_no_task_waits_on_a_busy_node_while_another_has_room(pair, tmp_path):
    first, second = pair
    held = on(first, hold).remote(str(tmp_path), "first")
    wait_until((tmp_path / "first-began").exists, "the node is busy")
    refs = [nap.remote(0.01) for _ in range(40)]
    assert set(warren.get(refs, timeout=10)) == {second.node_id}
    (tmp_path / "go").touch()
    assert warren.get(held, timeout=10) == first.node_id


def test_what_stands_behind_a_slow_task_of_a_quick_function_goes_elsewhere(pair, tmp_path):
    warren.get([nap.remote(0.0) for _ in range(400)], timeout=20)  # known to be quick from now on: sent by the chunk
    slow = nap.remote(5.0)
    began = time.monotonic()
    warren.get([nap.remote(0.0) for _ in range(400)], timeout=20)
    assert time.monotonic() - began < 4.0
    warren.cancel(slow, force=True)


def test_a_new_resource_class_is_found_at_once(pair):
    began = time.monotonic()
    for part in range(1, 11):
        warren.get(where.options(num_cpus=part / 100).remote(), timeout=5)
    assert time.monotonic() - began < 5.0  # a node that missed an announcement looks every 2 s


def test_work_that_no_node_could_run_is_warned_of_once(pair, caplog, monkeypatch):
    monkeypatch.setattr("warren.infeasible.PATIENCE_SECONDS", 2.5)
    monkeypatch.setattr("warren.infeasible.CHECK_SECONDS", 0.2)
    logger = logging.getLogger("warren")
    logger.addHandler(caplog.handler)
    try:
        refs = [
            where.options(resources={"tpu": 1}).remote(),
            where.options(label_selector={"zone": "atlantis"}).remote(),
        ]
        wait_until(lambda: "tpu" in caplog.text and "atlantis" in caplog.text, "the warnings", 15.0)
        assert warren.wait(refs, num_returns=2, timeout=0.5)[0] == []
    finally:
        logger.removeHandler(caplog.handler)
        for ref in refs:
            warren.cancel(ref)
    assert caplog.text.count("no living node") == 2
