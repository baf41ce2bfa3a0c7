"""Large values go from node to node where nodes reach each other, and nothing is lost when one ends under way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy
import pytest

import rabbitry
from rabbitry import current
from rabbitry.cluster import node_records
from rabbitry.cluster_utils import Cluster, ClusterNode
from rabbitry_broker import records
from rabbitry_broker.ids import OBJECT_BYTES
from rabbitry_broker.store.host import own_host
from tests.end_to_end.hosts import cluster_without_nodes, on
from tests.servers import wait_until

BYTES = 8 << 20
NAME_LENGTH = 2 * (OBJECT_BYTES + records.TOKEN_BYTES)
LARGE_BYTES = 128 << 20


@rabbitry.remote
def make(seed: int, size: int = BYTES) -> Any:
    return numpy.random.default_rng(seed).integers(0, 255, size, dtype=numpy.uint8)


def total(value: Any) -> int:
    return int(value.sum(dtype=numpy.int64)) * 1000 + int(value[-1])


@rabbitry.remote
def digest(value: Any) -> int:
    return total(value)


@rabbitry.remote
class Holder:
    def __init__(self, value: Any) -> None:
        self.value = value

    def digest(self) -> int:
        return total(self.value)


def right(seed: int, size: int = BYTES) -> int:
    return total(numpy.random.default_rng(seed).integers(0, 255, size, dtype=numpy.uint8))


def sent() -> dict[str, int]:
    """Return how many values each node has sent, as their records say."""
    return {
        record["id"].hex(): record["figures"].get("values_sent", 0)
        for record in node_records(current.client())
        if record["alive"]
    }


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Nodes of one CPU, as on hosts of their own."""
    with cluster_without_nodes(request, node_lease=2.0) as made:
        yield made


def test_a_value_goes_from_node_to_node_once_for_each_host(cluster: Cluster) -> None:
    maker, one, other = (cluster.add_node(num_cpus=2, own_host=True) for _ in range(3))
    cluster.connect(log_to_driver=False)
    cluster.wait_for_nodes(60)
    value = on(maker, make).remote(1)
    rabbitry.wait([value], timeout=30, fetch_local=False)
    asked = [on(node, digest).remote(value) for node in (one, other, one, maker, other, one)]
    assert rabbitry.get(asked, timeout=30) == [right(1)] * 6
    holder = on(one, Holder).remote(value)
    assert rabbitry.get(holder.digest.remote(), timeout=30) == right(1)
    wait_until(lambda: sent()[maker.node_id] == 2, "it was sent to two hosts", 20)
    assert (rabbitry.get(value, timeout=30)[-1], sent()[one.node_id]) == (right(1) % 1000, 0)


def test_a_node_that_is_killed_while_it_sends_costs_nothing_but_time(cluster: Cluster) -> None:
    maker, reader = cluster.add_node(num_cpus=1, own_host=True), cluster.add_node(num_cpus=1, own_host=True)
    cluster.connect(log_to_driver=False)
    cluster.wait_for_nodes(60)
    assert rabbitry.get(on(reader, digest).remote(numpy.zeros(9, numpy.uint8)), timeout=30) == 0
    value = on(maker, make).remote(2, LARGE_BYTES)
    rabbitry.wait([value], timeout=50, fetch_local=False)
    client = current.client()

    def has_a_copy() -> bool:
        (record,) = client.store.fetch([value._id])
        return record is not None and bool(records.read_manifest(record).chunks)

    wait_until(has_a_copy, "the value would outlive its host", 50)
    asked = on(reader, digest).remote(value)
    wait_until(lambda: any(size > 1 << 20 for _, size in files(reader)), "the transfer begins", 30, interval=0.001)
    os.kill(maker.pid, signal.SIGSTOP)
    assert not [name for name, _ in files(reader) if len(name) == NAME_LENGTH], "half of it is no value"
    maker.kill()
    assert rabbitry.get(asked, timeout=50) == right(2, LARGE_BYTES)


def files(node: ClusterNode) -> list[tuple[str, int]]:
    """Return (name, bytes) of what a node's host has in shared memory; of what is not whole the name is longer."""
    session = own_host(current.client().session, bytes.fromhex(node.node_id))[1]
    found = []
    for path in Path("/dev/shm").glob(f"rabbitry-{session}-*"):
        with suppress(FileNotFoundError):
            found.append((path.name.rpartition("-")[2], path.stat().st_size))
    return found
