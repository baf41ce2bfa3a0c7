"""Clocks that are an hour apart: who lives, who is dead and what was cancelled goes by the clock of Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import rabbitry
from rabbitry import current
from rabbitry.cluster_utils import Cluster
from tests.servers import RabbitMQServer, RedisServer, wait_until

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
CLIENT_LEASE = 2.0
DRIVER = """
import sys, time, rabbitry
rabbitry.init(address=sys.argv[1], log_to_driver=False)
ref = rabbitry.put(b"x")
print(rabbitry.get_runtime_context().get_job_id(), flush=True)
time.sleep(600)
"""

pytestmark = pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime (apt-get install libfaketime)")


def clock(offset: str) -> dict[str, str]:
    """Return the environment of a process whose wall clock is that far off; its monotonic clock is right."""
    return {"LD_PRELOAD": str(FAKETIME), "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1"}


@rabbitry.remote
def now():
    return time.time()


@rabbitry.remote(num_cpus=0, max_restarts=0)
class Keeper:
    def keep(self, value):
        return value


@pytest.fixture(params=["-3600", "+3600"])
def cluster(request, redis_server: RedisServer, rabbitmq_server: RabbitMQServer) -> Iterator[Cluster]:
    """Two nodes, both an hour off: the janitor works by a wrong clock whichever it is."""
    options = {"client_lease": CLIENT_LEASE, "node_lease": 2.0, "environment": clock(request.param)}
    with Cluster(engine="rabbitmq", broker_url=rabbitmq_server.url, store_url=redis_server.url, **options) as cluster:
        for _ in range(2):
            cluster.add_node(num_cpus=2)
        cluster.connect(log_to_driver=False)
        assert abs(abs(rabbitry.get(now.remote(), timeout=20) - time.time()) - 3600) < 60, "the nodes' clocks are right"
        yield cluster


def clients() -> int:
    store = current.client().store
    return int(store.call(b"ZCARD", store.keys.clients))


def test_work_goes_on_and_the_living_are_left_alone(cluster: Cluster):
    keeper = Keeper.remote()
    ref = rabbitry.put(b"y" * 200_000)
    deadline = time.monotonic() + 4 * CLIENT_LEASE
    while time.monotonic() < deadline:
        assert rabbitry.get(keeper.keep.remote("kept"), timeout=20) == "kept"
        assert len(rabbitry.get([now.remote() for _ in range(20)], timeout=20)) == 20
        time.sleep(0.1)
    assert rabbitry.get(ref, timeout=5) == b"y" * 200_000


def test_the_dead_are_cleared_away_in_time(cluster: Cluster):
    before = clients()
    path = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, cluster.address],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None and process.stdout.readline()
        wait_until(lambda: clients() == before + 1, "the driver is on record")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    wait_until(lambda: clients() == before, "the dead driver is cleared away", timeout=25)
