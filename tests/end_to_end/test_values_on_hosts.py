"""Large values of hosts that share no memory: they stay where they were made, are read elsewhere, and outlive hosts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy
import pytest

import rabbitry
from rabbitry import current
from rabbitry.cluster_utils import Cluster
from rabbitry.exceptions import ObjectLostError
from rabbitry_broker import records
from rabbitry_broker.store import copies
from tests.end_to_end.hosts import cluster_without_nodes, on
from tests.servers import wait_until

BYTES = 4 << 20


@rabbitry.remote
def make(value: int) -> Any:
    return numpy.full(BYTES, value, dtype=numpy.uint8)


@rabbitry.remote
def put(value: int) -> list[Any]:
    return [rabbitry.put(numpy.full(BYTES, value, dtype=numpy.uint8))]


@rabbitry.remote
def total(*values: Any) -> int:
    return sum(int(value[-1]) for value in values)


@rabbitry.remote
class Holder:
    def __init__(self, value: int) -> None:
        self.ref = rabbitry.put(numpy.full(BYTES, value, dtype=numpy.uint8))

    def give(self) -> list[Any]:
        return [self.ref]


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster without nodes, of which the driver's host never gets one."""
    with cluster_without_nodes(request, node_lease=3.0) as made:
        yield made


def manifest_of(ref: Any) -> records.Manifest:
    (record,) = current.client().store.fetch([ref._id])
    assert record is not None and record[0] == records.LARGE_TAG
    return records.read_manifest(record)


def test_values_are_read_on_all_hosts_and_outlive_theirs(cluster: Cluster, monkeypatch: pytest.MonkeyPatch):
    one, two = (cluster.add_node(num_cpus=2, own_host=True) for _ in range(2))
    cluster.connect(log_to_driver=False)
    cluster.wait_for_nodes(60)

    # A result, and what a task has put: read here, there, and where they are.
    result, (inner,) = on(one, make).remote(1), rabbitry.get(on(one, put).remote(2), timeout=30)
    assert [int(value[-1]) for value in rabbitry.get([result, inner], timeout=30)] == [1, 2]
    assert [rabbitry.get(on(node, total).remote(result, inner), timeout=30) for node in (one, two)] == [3, 3]

    # What a driver puts on a host that has no node.
    here = rabbitry.put(numpy.full(BYTES, 3, dtype=numpy.uint8))
    assert not manifest_of(here).is_on_host_only
    assert rabbitry.get(on(two, total).remote(result, inner, here), timeout=30) == 6

    # Nobody else reads these: a copy comes by itself, and outlives the host that made them.
    left = on(one, make).remote(4)
    holder = on(one, Holder).remote(5)
    (held,) = rabbitry.get(holder.give.remote(), timeout=30)
    rabbitry.wait([left], timeout=30, fetch_local=False)
    for ref in (left, held):
        wait_until(lambda ref=ref: not manifest_of(ref).is_on_host_only, "it is copied", 20.0)
    three = cluster.add_node(num_cpus=1, own_host=True)
    cluster.remove_node(one, allow_graceful=False)
    assert [int(value[-1]) for value in rabbitry.get([left, held, result, inner], timeout=30)] == [4, 5, 1, 2]
    assert rabbitry.get(on(two, total).remote(left, held), timeout=30) == 9

    # A host that leaves in order copies what it has alone, however new.
    fresh = [on(three, make).remote(6) for _ in range(3)]
    rabbitry.wait(fresh, num_returns=3, timeout=30, fetch_local=False)
    cluster.remove_node(three)
    assert rabbitry.get(on(two, total).remote(*fresh), timeout=30) == 18

    # One that is lost at once takes along what was never copied, and who reads that hears of it.
    gone = on(two, make).remote(7)
    monkeypatch.setattr(copies, "GONE_SECONDS", 1.0)
    rabbitry.wait([gone], timeout=30, fetch_local=False)
    only_there = manifest_of(gone).is_on_host_only
    cluster.remove_node(two, allow_graceful=False)
    if only_there and manifest_of(gone).is_on_host_only:
        with pytest.raises(ObjectLostError):
            rabbitry.get(gone, timeout=60)
    del result, inner, here, left, held, fresh, gone, holder
