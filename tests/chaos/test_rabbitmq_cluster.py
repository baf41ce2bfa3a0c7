"""Quorum queues on three RabbitMQ servers that have joined each other: any one of them is lost for good at work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import rabbitry
from rabbitry_broker import cluster_file
from rabbitry_broker.broker_address import PRIORITIES_SINCE, with_queue_type
from tests.chaos.conftest import LONG
from tests.chaos.stage import Stage
from tests.chaos.workload import Workload, plain
from tests.servers import RabbitMQCluster, RabbitMQServer, RedisServer, free_port, wait_until

SUBMISSIONS = 200 if LONG else 60
LOST = 3 if LONG else 1  # each takes the start of a RabbitMQ
PATIENCE_S = 10.0  # until work goes on


@pytest.fixture(scope="module")
def rabbitmq_cluster(session_directory: Path) -> Iterator[RabbitMQCluster]:
    """Three servers, started once: that takes most of the time."""
    cluster = RabbitMQCluster(session_directory / f"rabbitmq-cluster-{free_port()}")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@pytest.fixture
def stage(rabbitmq_cluster: RabbitMQCluster, servers: tuple[RabbitMQServer, RedisServer], seed: int) -> Iterator[Stage]:
    """Two nodes and a driver, which know all three servers."""
    print(f"RABBITRY_CHAOS_SEED={seed}")
    _, redis = servers
    redis.start()
    url = rabbitmq_cluster.url
    if rabbitmq_cluster.servers[0].version < PRIORITIES_SINCE:  # newer ones have quorum queues unasked
        url = with_queue_type(url, "quorum")
    stage = Stage(rabbitmq_cluster.servers[0], redis, seed, broker_url=url)
    try:
        stage.start()
        yield stage
    finally:
        print(stage.logs())
        stage.stop()


def leaders(stage: Stage, server: RabbitMQServer) -> list[str]:
    """Return the kinds of all queues of rabbitry, and the servers that lead them."""
    prefix = cluster_file.read(stage.cluster.address).endpoint.prefix
    listed = server.evaluate(
        "[[atom_to_list(amqqueue:get_type(Q)), 32, atom_to_list(element(2, amqqueue:get_pid(Q))), 10] "
        f'|| Q <- rabbit_amqqueue:list(<<"tests">>), '
        f'string:prefix(element(4, amqqueue:get_name(Q)), <<"{prefix}">>) =/= nomatch].',
        as_text=True,
    )
    return listed.splitlines()


@pytest.mark.timeout(600)
def test_any_machine_may_be_lost_for_good(stage: Stage, rabbitmq_cluster: RabbitMQCluster, workload: Workload):
    """Each server once, the last one for ever; those before come back, as only one of three may be missing."""
    order = stage.random.sample(rabbitmq_cluster.servers, k=LOST)
    workload.submit(SUBMISSIONS)
    queues = leaders(stage, order[0])
    assert queues, "nothing is on the servers"
    assert {each.split()[0] for each in queues} == {"rabbit_quorum_queue"}
    for number, victim in enumerate(order):
        workload.submit(SUBMISSIONS)
        victim.kill()
        stage.healed()
        workload.submit(SUBMISSIONS // 2)
        stage.recovery(
            "the loss of a server of a RabbitMQ cluster",
            lambda: rabbitry.get(plain.remote(workload.ledger.path, "probe", 1), timeout=5),
            timeout=PATIENCE_S,
        )
        workload.finish()
        if number < len(order) - 1:
            victim.start()
            wait_until(rabbitmq_cluster.all_have_joined, "the server is back", 60)
