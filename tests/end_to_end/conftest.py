"""A session on each engine: the same tests run on the embedded engine and on RabbitMQ with one node."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import warren

ROOT = Path(__file__).resolve().parents[2]
CPUS = 2


def node_environment() -> dict[str, str]:
    """Return the environment in which child interpreters find the packages of this checkout."""
    path = os.pathsep.join(str(ROOT / each) for each in ("broker", "api", "workers"))
    return {**os.environ, "PYTHONPATH": path}


def start_node(*arguments: str) -> subprocess.Popen[bytes]:
    """Start `warren start` for the cluster that the environment names."""
    return subprocess.Popen([sys.executable, "-m", "warren_workers", "start", *arguments], env=node_environment())


def stop_node(node: subprocess.Popen[bytes]) -> None:
    """Drain a node, and wait until it is gone."""
    if node.poll() is None:
        node.send_signal(signal.SIGTERM)
    try:
        node.wait(20)
    except subprocess.TimeoutExpired:
        node.kill()
        node.wait()


def wait_for_cpus(count: float, timeout: float = 20.0) -> None:
    """Wait until the cluster has so many CPUs."""
    deadline = time.monotonic() + timeout
    while warren.cluster_resources().get("CPU", 0) != count:
        assert time.monotonic() < deadline, f"{warren.cluster_resources()} after {timeout} s, wanted {count} CPUs"
        time.sleep(0.05)


@pytest.fixture(scope="module", params=["embedded", "rabbitmq"])
def session(request: pytest.FixtureRequest) -> Iterator[str]:
    """An initialised session with two CPUs; its value is the engine's name."""
    if request.param == "embedded":
        warren.init(num_cpus=CPUS, num_gpus=2, resources={"license": 2}, log_to_driver=True)
        try:
            yield "embedded"
        finally:
            warren.shutdown()
        return
    redis = request.getfixturevalue("redis_server")
    broker = request.getfixturevalue("rabbitmq_server")
    vhost = f"e2e-{secrets.token_hex(4)}"
    variables = {
        "WARREN_BROKER_URL": broker.add_vhost(vhost),
        "WARREN_STORE_URL": redis.url,
        "WARREN_SECRET": secrets.token_hex(16),
        "WARREN_PREFIX": f"e2e-{secrets.token_hex(4)}:",
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    node = start_node("--num-cpus", str(CPUS), "--num-gpus", "2", "--resources", '{"license": 2}')
    try:
        warren.init(address="auto")
        wait_for_cpus(CPUS)
        yield "rabbitmq"
    finally:
        warren.shutdown()
        stop_node(node)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        client = redis.client()
        for key in client.scan_iter(f"{variables['WARREN_PREFIX']}*"):
            client.delete(key)
        client.close()
        broker.delete_vhost(vhost)
