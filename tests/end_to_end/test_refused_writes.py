"""A Redis that answers but takes no writes for a while: its replicas are away, or its disk is full."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import warren
from tests.end_to_end.inspection import wait_until
from tests.servers import RedisServer
from warren import current
from warren.cluster_utils import Cluster

pytestmark = pytest.mark.timeout(120)

REFUSALS = 20  # so many writes are refused before they are taken again


@pytest.fixture(params=["embedded", "rabbitmq"])
def refusing(request: pytest.FixtureRequest, start_redis: Callable[..., RedisServer]) -> Iterator[str]:
    """A session with a Redis of its own."""
    if request.param == "embedded":
        warren.init(num_cpus=4, log_to_driver=False)
        try:
            yield "embedded"
        finally:
            warren.shutdown()
        return
    broker = request.getfixturevalue("rabbitmq_server")
    vhost = f"refused-{os.getpid()}"
    cluster = Cluster(engine="rabbitmq", broker_url=broker.add_vhost(vhost), store_url=start_redis().url)
    try:
        cluster.add_node(num_cpus=4)
        cluster.connect(log_to_driver=False)
        cluster.wait_for_nodes(10)
        yield "rabbitmq"
    finally:
        cluster.shutdown()
        broker.delete_vhost(vhost)


def ask_for_replicas(count: int) -> None:
    """Have Redis refuse writes while it has fewer replicas: it has none."""
    current.client().store.call(b"CONFIG", b"SET", b"min-replicas-to-write", count)


def refused() -> int:
    """Return how many writes Redis has refused."""
    store = current.client().store
    for line in store.call(b"INFO", b"errorstats").splitlines():
        if line.startswith(b"errorstat_NOREPLICAS"):
            return int(line.rpartition(b"=")[2])
    return 0


def _wait(go: str) -> None:
    while not os.path.exists(go):
        time.sleep(0.01)


@warren.remote(max_retries=0)
def once(go: str) -> str:
    _wait(go)
    return "once"


@warren.remote
class Serial:
    def begin(self, go: str) -> str:
        _wait(go)
        return "serial"


@warren.remote(max_concurrency=2)
class Threaded:
    def begin(self, go: str) -> str:
        _wait(go)
        return "threaded"


@warren.remote
class Asynchronous:
    async def begin(self, go: str) -> str:
        while not os.path.exists(go):
            await asyncio.sleep(0.01)
        return "asynchronous"


def test_nothing_fails_or_hangs_that_ends_while_writes_are_refused(refusing: str, tmp_path: Path) -> None:
    go = str(tmp_path / "go")
    actors: list[Any] = [each.options(num_cpus=0).remote() for each in (Serial, Threaded, Asynchronous)]  # type: ignore[attr-defined]
    warren.get([actor.__ray_ready__.remote() for actor in actors], timeout=20)
    begun = [once.remote(go), *[actor.begin.remote(go) for actor in actors]]
    warren.wait(begun, num_returns=len(begun), timeout=0.5)
    before = refused()
    ask_for_replicas(1)
    try:
        Path(go).touch()
        wait_until(lambda: refused() - before >= REFUSALS, timeout=20)
    finally:
        ask_for_replicas(0)
    assert warren.get(begun, timeout=20) == ["once", "serial", "threaded", "asynchronous"]
    assert warren.get([once.remote(go), *[actor.begin.remote(go) for actor in actors]], timeout=20)
