"""The state of a cluster of three nodes, on both engines, from inside and from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry.util.state import StateApiClient, list_nodes, list_tasks
from rabbitry.util.state.common import ListApiOptions, StateResource
from tests.end_to_end.looking import add, wait_for_file, wait_for_state, wait_until


def test_three_nodes_and_what_is_lost_with_one(start_cluster: Any, tmp_path: Path):
    cluster = start_cluster()
    nodes = [cluster.add_node(num_cpus=1, name=name) for name in ("a", "b", "c")]
    cluster.connect(log_to_driver=False)
    cluster.wait_for_nodes(10)
    path = str(tmp_path / "go")
    refs = [wait_for_file.options(num_cpus=1, max_retries=0).remote(path) for _ in range(3)]
    places = {wait_for_state(ref, "RUNNING").node_id: ref for ref in refs}
    assert set(places) == {node.node_id for node in nodes}
    waits = add.options(num_cpus=1).remote(1, 2)
    assert "any of 3 nodes" in wait_for_state(waits, "PENDING_NODE_ASSIGNMENT").pending_reason
    lost = nodes[2]
    cluster.remove_node(lost, allow_graceful=False)
    wait_until(lambda: [node.state for node in list_nodes()].count("DEAD") == 1, 15, list_nodes)
    gone = places[lost.node_id]
    wait_for_state(gone, "PENDING_NODE_ASSIGNMENT")  # it is in its queue again, and nobody has room
    Path(path).touch()
    with pytest.raises(rabbitry.exceptions.RabbitryError):
        rabbitry.get(gone, timeout=30)
    assert wait_for_state(gone, "FAILED").error_type in ("NODE_DIED", "WORKER_DIED")
    assert rabbitry.get(waits, timeout=30) == 3
    # The same from outside of the session.
    outside = StateApiClient(cluster.address)
    assert len(outside.list(StateResource.NODES, ListApiOptions(), True)) == 3
    wait_until(lambda: outside.get(StateResource.TASKS, waits.task_id().hex()).state == "FINISHED", 10, list_tasks)
    events = outside.list(StateResource.CLUSTER_EVENTS, ListApiOptions(), True)
    assert any("c is gone" in each.message for each in events)
