"""A Redis that answers but takes no writes for a while: its replicas are away, or its disk is full."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry import current
from rabbitry.cluster_utils import Cluster
from tests.end_to_end.inspection import wait_until
from tests.servers import RedisServer

pytestmark = pytest.mark.timeout(120)

REFUSALS = 20  # so many writes are refused before they are taken again


@pytest.fixture(params=["embedded", "rabbitmq"])
def refusing(request: pytest.FixtureRequest, start_redis: Callable[..., RedisServer]) -> Iterator[str]:
    """A session with a Redis of its own."""
    if request.param == "embedded":
        rabbitry.init(num_cpus=4, log_to_driver=False)
        try:
            yield "embedded"
        finally:
            rabbitry.shutdown()
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


@rabbitry.remote(max_retries=0)
def once(go: str) -> str:
    _wait(go)
    return "once"


@rabbitry.remote
class Serial:
    def begin(self, go: str) -> str:
        _wait(go)
        return "serial"


@rabbitry.remote(max_concurrency=2)
class Threaded:
    def begin(self, go: str) -> str:
        _wait(go)
        return "threaded"


@rabbitry.remote
class Asynchronous:
    async def begin(self, go: str) -> str:
        while not os.path.exists(go):
            await asyncio.sleep(0.01)
        return "asynchronous"


def test_nothing_fails_or_hangs_that_ends_while_writes_are_refused(refusing: str, tmp_path: Path) -> None:
    go = str(tmp_path / "go")
    actors: list[Any] = [each.options(num_cpus=0).remote() for each in (Serial, Threaded, Asynchronous)]  # type: ignore[attr-defined]
    rabbitry.get([actor.__ray_ready__.remote() for actor in actors], timeout=20)
    begun = [once.remote(go), *[actor.begin.remote(go) for actor in actors]]
    rabbitry.wait(begun, num_returns=len(begun), timeout=0.5)
    before = refused()
    ask_for_replicas(1)
    try:
        Path(go).touch()
        wait_until(lambda: refused() - before >= REFUSALS, timeout=20)
    finally:
        ask_for_replicas(0)
    assert rabbitry.get(begun, timeout=20) == ["once", "serial", "threaded", "asynchronous"]
    assert rabbitry.get([once.remote(go), *[actor.begin.remote(go) for actor in actors]], timeout=20)


SPIN = """
local function now() local t = redis.call('TIME'); return t[1] + t[2] / 1e6 end
local start = now()
while now() - start < tonumber(ARGV[1]) do end
"""


def test_a_redis_that_is_busy_with_a_script_is_waited_for(refusing: str, tmp_path: Path) -> None:
    go, before = str(tmp_path / "go"), str(tmp_path / "before")
    Path(before).touch()
    actor: Any = Serial.options(num_cpus=0).remote()  # type: ignore[attr-defined]
    assert rabbitry.get([once.remote(before), actor.begin.remote(before)], timeout=20) == ["once", "serial"]
    refs = [once.remote(go), actor.begin.remote(go)]
    rabbitry.wait(refs, timeout=0.2)
    store = current.client().store
    limit = store.call(b"CONFIG", b"GET", b"lua-time-limit")[1]
    store.call(b"CONFIG", b"SET", b"lua-time-limit", 50)
    busy = store.open_connection("busy")
    try:
        busy.send(b"EVAL", SPIN, 0, 3)
        time.sleep(0.1)
        begun = time.monotonic()
        ready, _ = rabbitry.wait(refs, num_returns=2, timeout=0.3)
        assert not ready
        with pytest.raises(rabbitry.exceptions.GetTimeoutError):
            rabbitry.get(refs, timeout=0.3)
        assert time.monotonic() - begun < 2.5, "the script runs still"
        Path(go).touch()
        refs += [once.remote(go), actor.begin.remote(go)]
        assert rabbitry.get(refs, timeout=40) == ["once", "serial"] * 2
    finally:
        busy.close()
        store.call(b"CONFIG", b"SET", b"lua-time-limit", limit)
