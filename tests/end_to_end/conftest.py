"""Sessions on each engine: the same tests run on the embedded engine and on RabbitMQ.

| fixture | scope | gives |
|---|---|---|
| `session` | module | an initialised session with one node |
| `engine_arguments` | module | what `Cluster` needs for the engine |
| `start_cluster` | test | a function that starts a cluster with the given nodes and connects to it |
| `store` | session | the Redis beside RabbitMQ: with `RABBITRY_TEST_STORE=cluster` a Redis Cluster of three masters |
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry.cluster_utils import Cluster
from tests.redis_cluster import RedisCluster
from tests.servers import RabbitMQServer, RedisServer

ROOT = Path(__file__).resolve().parents[2]
CPUS = 2
NODE_LEASE = 3.0  # seconds, in clusters of several nodes

StartCluster = Callable[..., Cluster]


def node_environment() -> dict[str, str]:
    """Return the environment in which child interpreters find the packages of this checkout."""
    path = os.pathsep.join(str(ROOT / each) for each in ("broker", "api", "workers"))
    return {**os.environ, "PYTHONPATH": path}


def start_node(*arguments: str) -> subprocess.Popen[bytes]:
    """Start `rabbitry start` for the cluster that the environment names."""
    return subprocess.Popen([sys.executable, "-m", "rabbitry_workers", "start", *arguments], env=node_environment())


def stop_node(node: subprocess.Popen[bytes]) -> None:
    """Drain a node, and wait until it is gone."""
    if node.poll() is None:
        node.send_signal(signal.SIGTERM)
    try:
        node.wait(20)
    except subprocess.TimeoutExpired:
        node.kill()
        node.wait()


def wait_for_cpus(count: float, timeout: float = 60.0) -> None:
    """Wait until the cluster has so many CPUs."""
    deadline = time.monotonic() + timeout
    while rabbitry.cluster_resources().get("CPU", 0) != count:
        assert time.monotonic() < deadline, f"{rabbitry.cluster_resources()} after {timeout} s, wanted {count} CPUs"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def store(request: pytest.FixtureRequest, session_directory: Path) -> Iterator[RedisServer | RedisCluster]:
    """The Redis of the tests with RabbitMQ."""
    if os.environ.get("RABBITRY_TEST_STORE") != "cluster":
        yield request.getfixturevalue("redis_server")
        return
    servers = RedisCluster(session_directory / "redis-cluster", appendonly=False)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


@pytest.fixture(scope="module", params=["embedded", "rabbitmq"])
def session(request: pytest.FixtureRequest) -> Iterator[str]:
    """An initialised session with two CPUs; its value is the engine's name."""
    if request.param == "embedded":
        rabbitry.init(num_cpus=CPUS, num_gpus=2, resources={"license": 2}, log_to_driver=True)
        try:
            yield "embedded"
        finally:
            rabbitry.shutdown()
        return
    store: RedisServer | RedisCluster = request.getfixturevalue("store")
    broker = request.getfixturevalue("rabbitmq_server")
    vhost = f"e2e-{secrets.token_hex(4)}"
    variables = {
        "RABBITRY_BROKER_URL": broker.add_vhost(vhost),
        "RABBITRY_STORE_URL": store.url,
        "RABBITRY_SECRET": secrets.token_hex(16),
        "RABBITRY_PREFIX": f"e2e-{secrets.token_hex(4)}:",
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    node = start_node("--num-cpus", str(CPUS), "--num-gpus", "2", "--resources", '{"license": 2}')
    try:
        rabbitry.init(address="auto")
        wait_for_cpus(CPUS)
        yield "rabbitmq"
    finally:
        rabbitry.shutdown()
        stop_node(node)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        store.delete(variables["RABBITRY_PREFIX"])
        broker.delete_vhost(vhost)


@pytest.fixture(scope="module", params=["embedded", "rabbitmq"])
def engine_arguments(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What `Cluster` needs for the engine; at the end, nothing of any cluster may be left on the servers."""
    if request.param == "embedded":
        yield {"engine": "embedded"}
        return
    store: RedisServer | RedisCluster = request.getfixturevalue("store")
    broker: RabbitMQServer = request.getfixturevalue("rabbitmq_server")
    vhost = f"cluster-{os.getpid()}"
    url = broker.add_vhost(vhost)
    try:
        before = store.keys()
        yield {"engine": "rabbitmq", "broker_url": url, "store_url": store.url}
        assert store.keys() <= before
        assert broker.queues(vhost) == []
    finally:
        broker.delete_vhost(vhost)


@pytest.fixture
def start_cluster(engine_arguments: dict[str, Any]) -> Iterator[StartCluster]:
    """Return a function that starts a cluster with the given nodes (arguments of `add_node`) and connects to it."""
    clusters: list[Cluster] = []

    def start(*nodes: dict[str, Any], **options: Any) -> Cluster:
        cluster = Cluster(**{"node_lease": NODE_LEASE, **engine_arguments, **options})
        clusters.append(cluster)
        for node in nodes:
            cluster.add_node(**node)
        if nodes:
            cluster.connect(log_to_driver=False)
            cluster.wait_for_nodes(10)
        return cluster

    yield start
    for cluster in clusters:
        cluster.shutdown()
