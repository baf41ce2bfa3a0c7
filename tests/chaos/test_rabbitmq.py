"""What RabbitMQ does besides dying: it stops and starts, blocks publishers, loses a queue."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

import rabbitry
from rabbitry import current
from rabbitry.util.state import list_actors
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


@rabbitry.remote(max_restarts=-1, max_task_retries=-1)
class Patient:
    """Calls to it last as long as a file is missing."""

    def wait_for(self, path: str, begun: str) -> int:
        """Say that the call has begun, and wait."""
        Path(begun).touch()
        wait_until(Path(path).exists, "the call may end", timeout=60.0)
        return 1


@rabbitry.remote
class Steps:
    """Counts the calls that it has run."""

    def __init__(self) -> None:
        self.count = 0

    def step(self) -> int:
        """Return how many there were, this one included."""
        self.count += 1
        return self.count


@pytest.mark.in_every_run
def test_a_lone_call_outlives_the_broker_that_did_not_write_it_down_and_the_node_that_had_it(
    stage: Stage, tmp_path: Path
):
    patient = Patient.remote()
    assert rabbitry.get(patient.__ray_ready__.remote(), timeout=30)
    begun, go = tmp_path / "begun", tmp_path / "go"
    ref = patient.wait_for.remote(str(go), str(begun))
    wait_until(begun.exists, "the call has begun")
    (host,) = [each["node_id"] for each in list_actors(filters=[("state", "=", "ALIVE")])]
    (victim,) = [node for node in stage.nodes() if node.node_id == host]
    stage.rabbitmq.kill()
    victim.kill()
    begun.unlink()
    stage.rabbitmq.start()
    stage.cluster.add_node(num_cpus=NODE_CPUS)
    wait_until(begun.exists, "the actor's next process has the call", timeout=60.0)
    go.touch()
    assert rabbitry.get(ref, timeout=30) == 1


@pytest.mark.in_every_run
def test_calls_in_turn_run_once_each_while_the_broker_ends_and_comes_back(stage: Stage):
    steps = Steps.remote()
    assert rabbitry.get(steps.step.remote(), timeout=30) == 1
    fault = threading.Thread(target=lambda: [stage.restart_rabbitmq() for _ in range(2)], name="fault")
    fault.start()
    count = 1
    while fault.is_alive():
        count += 1
        assert rabbitry.get(steps.step.remote(), timeout=60) == count
    refs = [steps.step.remote() for _ in range(100)]
    assert rabbitry.get(refs, timeout=60) == list(range(count + 1, count + 101))
