"""Where work runs in clusters whose nodes come and go, on both engines."""

from __future__ import annotations

import pytest

import rabbitry
from rabbitry.exceptions import ActorUnschedulableError, TaskUnschedulableError
from tests.end_to_end.conftest import StartCluster
from tests.end_to_end.test_places import HEAD, Resident, on
from tests.end_to_end.where_work_runs import where
from tests.servers import wait_until


@pytest.mark.long
def test_another_node_is_the_head_when_the_first_leaves_or_dies(start_cluster: StartCluster):
    cluster = start_cluster({"num_cpus": 1}, {"num_cpus": 1}, {"num_cpus": 1})
    asks = where.options(num_cpus=0, resources={HEAD: 0.001})
    nodes = {each.node_id: each for each in cluster.list_all_nodes()}
    first = rabbitry.get(asks.remote(), timeout=20)
    assert first == cluster.list_all_nodes()[0].node_id
    cluster.remove_node(nodes.pop(first))
    second = rabbitry.get(asks.remote(), timeout=20)
    assert second in nodes
    cluster.remove_node(nodes.pop(second), allow_graceful=False)
    third = rabbitry.get(asks.remote(), timeout=30)
    assert third in nodes
    wait_until(lambda: rabbitry.cluster_resources().get(HEAD) == 1.0, "there is one head", 15.0)
    dead = [each for each in rabbitry.nodes() if not each["Alive"]]
    told = {each["NodeID"]: (each["Resources"], each["DeathReason"]) for each in dead}
    assert told == {first: ({}, 1), second: ({}, 2)}


def test_a_node_with_the_labels_of_a_fallback_may_come_later(start_cluster: StartCluster):
    cluster = start_cluster({"num_cpus": 1})
    fallback = [{"label_selector": {"zone": "late"}}]
    ref = where.options(label_selector={"zone": "never"}, fallback_strategy=fallback).remote()
    assert rabbitry.wait([ref], timeout=0.5) == ([], [ref])
    late = cluster.add_node(num_cpus=1, labels={"zone": "late"})
    assert rabbitry.get(ref, timeout=20) == late.node_id


def test_affinity_to_a_node_that_died(start_cluster: StartCluster):
    cluster = start_cluster({"num_cpus": 1}, {"num_cpus": 1})
    first, second = cluster.list_all_nodes()
    cluster.remove_node(second, allow_graceful=False)
    waits = on(second).remote()  # it may be sent before anybody knows
    with pytest.raises(TaskUnschedulableError, match="gone"):
        rabbitry.get(waits, timeout=30)
    actor = on(second, Resident).remote()
    with pytest.raises(ActorUnschedulableError, match="gone"):
        rabbitry.get(actor.node.remote(), timeout=30)
    assert rabbitry.get(on(second, soft=True).remote(), timeout=30) == first.node_id
