"""What RabbitMQ does besides dying: it stops and starts, blocks publishers, loses a queue."""

from __future__ import annotations

import time

import rabbitry
from rabbitry import current
from tests.chaos.ledger import Ledger
from tests.chaos.stage import NODE_CPUS, Stage
from tests.chaos.workload import Workload, long, plain
from tests.servers import wait_until

SUBMISSIONS = 100
LONG_SECONDS = 3.0


def probe(ledger: Ledger) -> None:
    assert rabbitry.get(plain.remote(ledger.path, "probe", 1), timeout=5) == 4


def test_work_outlives_stop_app(stage: Stage, workload: Workload):
    workload.submit(SUBMISSIONS)
    stage.rabbitmq.ctl("stop_app")
    try:
        workload.submit(SUBMISSIONS // 2)
    finally:
        stage.rabbitmq.ctl("start_app")
    stage.healed()
    stage.recovery("stop_app and start_app", lambda: probe(workload.ledger))
    workload.submit(SUBMISSIONS // 2)
    workload.finish()


def test_publishers_that_are_blocked_by_a_memory_alarm_go_on_afterwards(stage: Stage, workload: Workload):
    workload.submit(SUBMISSIONS)
    stage.rabbitmq.evaluate("vm_memory_monitor:set_vm_memory_high_watermark({absolute, 1000000}).")
    try:
        wait_until(lambda: "memory" in stage.rabbitmq.evaluate("rabbit_alarm:get_alarms()."), "the alarm is on")
        workload.submit(SUBMISSIONS // 2)
        blocked = plain.remote(workload.ledger.path, "blocked", 1)
        ready, _ = rabbitry.wait([blocked], timeout=1.0)
        assert not ready, "the alarm blocks nobody"
        workload.ledger.add("blocked", blocked, 4)
    finally:
        stage.rabbitmq.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.4).")
    stage.healed()
    stage.recovery("a memory alarm", lambda: probe(workload.ledger))
    workload.finish()


def test_a_queue_that_is_deleted_under_its_consumers_comes_back(stage: Stage, ledger: Ledger):
    """Messages that wait in a queue are deleted with it, whoever does that; what runs already is not lost."""
    for number in range(2 * NODE_CPUS):
        key = f"long-{number}"
        ledger.add(key, long.options(max_retries=0).remote(ledger.path, key, LONG_SECONDS), LONG_SECONDS, runs=1)
    wait_until(lambda: len(ledger.effects()) == 2 * NODE_CPUS, "the long tasks have begun")
    client = current.client()
    name = client.endpoint.prefix + "task.CPU=1"
    vhost = stage.rabbitmq.url.rpartition("/")[2]
    stage.rabbitmq.evaluate(
        f'{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{name}">>)), '
        '{ok, _} = rabbit_amqqueue:delete(Queue, false, false, <<"test">>).'
    )
    stage.healed()
    for number in range(20):
        key = f"plain-{number}"
        ledger.add(key, plain.remote(ledger.path, key, number), number * 3 + 1)
    ledger.check()
    stage.recovery("a deleted queue", lambda: probe(ledger))
    time.sleep(0.5)
    ledger.check()
