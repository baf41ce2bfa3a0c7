"""A workload on a Redis Cluster of three masters: they die, come back, fail over, and give their slot away at work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

import rabbitry
from rabbitry import current
from rabbitry_broker import cluster_file
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.redis import cluster
from tests.chaos.conftest import LONG
from tests.chaos.ledger import Ledger
from tests.chaos.stage import Stage
from tests.chaos.workload import Workload, plain
from tests.redis_cluster import MASTERS, RedisCluster
from tests.servers import RabbitMQServer, RedisServer, free_port, wait_until

SUBMISSIONS = 400 if LONG else 100
ROUNDS = 6 if LONG else 3


def probe(ledger: Ledger) -> None:
    """Run a task, and write so many large values that each master has one."""
    assert rabbitry.get(plain.remote(ledger.path, "probe", 1), timeout=5) == 4
    with patch.object(current.client().store.large.writing, "eager", new=True):
        for _ in range(12):
            rabbitry.put(b"large" * 20_000)


@pytest.fixture
def redis_cluster(session_directory: Path) -> Iterator[RedisCluster]:
    """Three masters and a replica of each, all with append-only files."""
    servers = RedisCluster(session_directory / f"cluster-{free_port()}", replicas=MASTERS)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


@pytest.fixture
def stage(redis_cluster: RedisCluster, servers: tuple[RabbitMQServer, RedisServer], seed: int) -> Iterator[Stage]:
    """A cluster of two nodes with a driver on the Redis Cluster."""
    print(f"RABBITRY_CHAOS_SEED={seed}")
    rabbitmq, redis = servers
    rabbitmq.start()
    stage = Stage(rabbitmq, redis, seed, store_url=redis_cluster.url)
    try:
        stage.start()
        yield stage
    finally:
        print(stage.logs())
        stage.stop()
        redis_cluster.start()
        left = redis_cluster.keys()
    assert not left


def key_of(stage: Stage) -> bytes:
    """Return a key that has the slot of everything but chunks."""
    return Keys.of(cluster_file.read(stage.cluster.address).endpoint).prefix


def test_work_outlives_masters_that_come_back(stage: Stage, redis_cluster: RedisCluster, workload: Workload):
    """Killed and started again before the others vote them down: what they had written is there."""
    for number in range(ROUNDS):
        workload.submit(SUBMISSIONS // ROUNDS)
        wanted = redis_cluster.master_of(key_of(stage))
        others = [each for each in redis_cluster.masters() if each is not wanted]
        victim = stage.random.choice(others) if number % 3 == 2 else wanted
        victim.kill()
        victim.start()
        stage.healed()
        stage.recovery("kill -9 of a master of a Redis Cluster", lambda: probe(workload.ledger))
    workload.finish()


@pytest.mark.in_every_run
def test_work_goes_on_with_the_replicas_after_failovers(stage: Stage, redis_cluster: RedisCluster, workload: Workload):
    """What a replica had not received when its master died is lost, so each dies when nothing is on its way."""
    for victim in redis_cluster.masters():
        workload.submit(SUBMISSIONS // MASTERS)
        workload.finish()
        kept = rabbitry.put(b"kept" * 500_000)
        with victim.client() as client:
            assert client.wait(1, 5000) == 1
        victim.kill()
        stage.healed()
        stage.recovery("the death of a master of a Redis Cluster", lambda: probe(workload.ledger))
        assert rabbitry.get(kept, timeout=30) == b"kept" * 500_000
        redis_cluster.wait_until_whole()


def test_work_waits_while_its_slot_moves(stage: Stage, redis_cluster: RedisCluster, workload: Workload):
    slot = cluster.slot_of(key_of(stage))
    for _ in range(ROUNDS):
        workload.submit(SUBMISSIONS // ROUNDS)
        source = redis_cluster.master_of(key_of(stage))
        target = stage.random.choice([each for each in redis_cluster.masters() if each is not source])
        redis_cluster.begin_to_move(slot, source, target)
        wait_until(lambda s=source, t=target: redis_cluster.finish_to_move(slot, s, t) >= 0, "the slot has moved")  # type: ignore[misc]
        stage.healed()
        stage.recovery("a slot that moved", lambda: probe(workload.ledger))
    workload.finish()
