"""Tasks with large arguments run on the host that has them, if it has room; on nodes that share no memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

import rabbitry
from rabbitry import current
from rabbitry.cluster_utils import ClusterNode
from tests.end_to_end.hosts import cluster_without_nodes, on
from tests.end_to_end.where_work_runs import hold
from tests.servers import wait_until

BYTES = 4 << 20


@rabbitry.remote
def make(gate: Path | None = None) -> Any:
    if gate is not None:
        wait_until(gate.exists, "the test lets go", 30.0)
    return numpy.ones(BYTES, dtype=numpy.uint8)


@rabbitry.remote
def reader(*values: Any) -> str:
    assert all(int(value[-1]) == 1 for value in values)
    return str(rabbitry.get_runtime_context().get_node_id())


@pytest.fixture(scope="module")
def hosts(request: pytest.FixtureRequest) -> Iterator[list[ClusterNode]]:
    """Three nodes of one CPU, as on hosts of their own."""
    with cluster_without_nodes(request) as cluster:
        nodes = [cluster.add_node(num_cpus=1, own_host=True) for _ in range(3)]
        cluster.connect(log_to_driver=False)
        cluster.wait_for_nodes(60)
        yield nodes


def wait_for_room(hosts: list[ClusterNode], free: float = 3.0) -> None:
    """Wait until so many nodes are free, and each has heard that from the others: two signs of life later."""
    wait_until(lambda: rabbitry.available_resources().get("CPU") == free, "nodes say that they have room", 20.0)
    client = current.client()
    keys = [client.keys.node(bytes.fromhex(node.node_id)) for node in hosts]

    def lasts() -> list[int]:
        return [client.store.call(b"PTTL", key) for key in keys]

    for _ in range(2):
        heard: set[int] = set()
        before = lasts()

        def has_beaten(before: list[int] = before, heard: set[int] = heard) -> bool:
            now = lasts()
            heard.update(at for at, left in enumerate(now) if left > before[at])
            before[:] = [min(pair) for pair in zip(before, now, strict=True)]
            return len(heard) == len(keys)

        wait_until(has_beaten, "all nodes gave a sign of life", 20.0)


@pytest.mark.long
def test_tasks_run_where_their_large_arguments_are(hosts: list[ClusterNode]):
    at_home = 0
    for turn in range(9):
        node = hosts[turn % 3]
        value = on(node, make).remote()
        rabbitry.wait([value], timeout=20, fetch_local=False)
        wait_for_room(hosts)
        at_home += rabbitry.get(reader.remote(value), timeout=20) == node.node_id
    assert at_home >= 8, "by chance it would be 3; a busy machine may tell of room too late"


@pytest.mark.long
def test_a_task_that_waited_for_its_arguments_goes_where_most_of_them_are(hosts: list[ClusterNode], tmp_path: Path):
    at_home = 0
    for turn in range(4):
        wait_for_room(hosts)
        here, there = hosts[turn % 3], hosts[(turn + 1) % 3]
        gate = tmp_path / str(turn)
        most = [on(here, make).remote() for _ in range(3)]
        result = reader.remote(*most, on(there, make).remote(gate))
        rabbitry.wait(most, num_returns=3, timeout=20, fetch_local=False)
        wait_for_room(hosts, free=2.0)
        gate.touch()
        at_home += rabbitry.get(result, timeout=20) == here.node_id
    assert at_home >= 3, "by chance it would be 1"


def test_a_task_does_not_wait_for_a_host_that_is_busy(hosts: list[ClusterNode], tmp_path: Path):
    value = on(hosts[0], make).remote()
    rabbitry.wait([value], timeout=20, fetch_local=False)
    held = on(hosts[0], hold).remote(str(tmp_path), "busy")
    wait_until((tmp_path / "busy-began").exists, "the host is busy")
    assert rabbitry.get(reader.remote(value), timeout=20) != hosts[0].node_id
    (tmp_path / "go").touch()
    rabbitry.get(held, timeout=20)
