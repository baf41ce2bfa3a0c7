"""Processes that are killed: executors, actor hosts, agents, templates, the driver."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import pytest

import rabbitry
from rabbitry import current
from rabbitry.exceptions import NodeDiedError, WorkerCrashedError
from rabbitry_broker.store.actors import RESTARTING, ActorRecords
from tests.chaos import driver
from tests.chaos.conftest import LONG
from tests.chaos.ledger import Ledger
from tests.chaos.stage import CLIENT_LEASE, NODE_LEASE, Stage, children
from tests.chaos.workload import Echo, Workload, long, once, plain
from tests.servers import wait_until

SUBMISSIONS = 1500 if LONG else 200
ROUNDS = 40 if LONG else 6
TEMPLATE_ROUNDS = 10 if LONG else 3
CALLS = 20


def probe(workload: Workload) -> None:
    """Run one task."""
    assert rabbitry.get(plain.remote(workload.ledger.path, "probe", 1), timeout=5) == 4


@pytest.mark.in_every_run
def test_killed_executors_and_actor_hosts_lose_nothing(stage: Stage, workload: Workload):
    for _ in range(ROUNDS):
        workload.submit(SUBMISSIONS // ROUNDS)
        stage.kill_worker()
        time.sleep(stage.random.uniform(0.05, 0.4))
    stage.healed()
    stage.recovery("kill -9 of executors and actor hosts", lambda: probe(workload))
    workload.finish()


@pytest.mark.in_every_run
def test_a_killed_agent_is_made_good_by_the_others(stage: Stage, workload: Workload):
    for _ in range(4 if LONG else 1):
        workload.submit(SUBMISSIONS // 4)
        time.sleep(0.3)
        stage.kill_node()
        stage.healed()
        stage.recovery("kill -9 of an agent", lambda: probe(workload))
        workload.submit(SUBMISSIONS // 8)
    workload.finish()


def test_a_killed_template_does_not_end_its_node(stage: Stage, workload: Workload):
    """Nor does it lose a new actor, whose creation may go from node to node until there is a template again."""
    for number in range(TEMPLATE_ROUNDS):
        actor = Echo.options(max_restarts=-1, max_task_retries=-1).remote(workload.ledger.path)
        workload.submit(SUBMISSIONS // 2 // TEMPLATE_ROUNDS)
        for call in range(CALLS):
            key = f"new-{number}-{call}"
            workload.ledger.add(key, actor.say.remote(key, call), call)
        time.sleep(stage.random.uniform(0.0, 0.5))
        for template in stage.templates():
            with suppress(ProcessLookupError):
                os.kill(template, signal.SIGKILL)
        stage.healed()
        stage.recovery("kill -9 of the templates", lambda: probe(workload))
    workload.finish()


def test_an_actor_outlives_the_agent_that_was_about_to_restart_it(stage: Stage, ledger: Ledger):
    """Only that agent knows of the restart: no message is on any queue, and no process belongs to the actor."""
    first = stage.cluster.add_node(num_cpus=1, resources={"here": 1})
    options = {"max_restarts": -1, "max_task_retries": -1, "resources": {"here": 1}}
    actor = Echo.options(**options).remote(ledger.path)
    ledger.add("before", actor.say.remote("before", 1), 1)
    ledger.check()
    (template,) = children(first.pid)
    os.kill(template, signal.SIGSTOP)  # it starts nothing
    for worker in children(template):
        os.kill(worker, signal.SIGKILL)
    records = ActorRecords(current.client().store)
    wait_until(lambda: records.states([actor._actor_id.binary()])[0][0] == RESTARTING, "the actor is to be restarted")
    first.kill()
    os.kill(template, signal.SIGKILL)  # stopped as it is, it would not notice that
    stage.healed()
    stage.cluster.add_node(num_cpus=1, resources={"here": 1})
    ledger.add("after", actor.say.remote("after", 2), 2)
    stage.recovery(
        "kill -9 of an agent that was about to restart an actor", lambda: rabbitry.get(actor.pid.remote(), timeout=5)
    )
    ledger.check()


def test_a_paused_agent_overwrites_nothing_and_runs_nothing_twice(stage: Stage, ledger: Ledger):
    """SIGSTOP for longer than the lease: others take over; then SIGCONT, and the late agent must do no harm."""
    seconds = NODE_LEASE + 2
    for number in range(6):
        key = f"once-{number}"
        ref = once.options(num_cpus=0.5).remote(ledger.path, key, number)
        ledger.add(key, ref, -number, errors=(NodeDiedError, WorkerCrashedError), runs=1)
        key = f"long-{number}"
        ref = long.options(num_cpus=0.5).remote(ledger.path, key, seconds)
        ledger.add(key, ref, seconds)
    time.sleep(0.3)
    victim = stage.random.choice(stage.nodes())
    os.kill(victim.pid, signal.SIGSTOP)
    try:
        for number in range(6, 12):
            key = f"once-{number}"
            ref = once.remote(ledger.path, key, number)
            ledger.add(key, ref, -number, errors=(NodeDiedError, WorkerCrashedError), runs=1)
        time.sleep(seconds)
    finally:
        os.kill(victim.pid, signal.SIGCONT)
    stage.healed()
    stage.recovery("SIGSTOP beyond the lease", lambda: rabbitry.get(plain.remote(ledger.path, "probe", 1), timeout=5))
    ledger.check()
    time.sleep(0.5)  # what the late agent still had to say is said
    ledger.check()


def test_detached_work_of_a_killed_driver_ends_and_the_rest_goes_with_it(stage: Stage, ledger: Ledger):
    driver.abandon_work(stage.cluster.address, ledger.path)
    expected = driver.names("")
    wait_until(lambda: expected <= set(ledger.effects()), "the chains of the dead driver end", timeout=20)
    detached = rabbitry.get_actor("detached", namespace="chaos")
    assert rabbitry.get(detached.say.remote("late", 7), timeout=10) == 7

    def mine_is_gone() -> bool:
        try:
            rabbitry.get_actor("mine", namespace="chaos")
        except ValueError:
            return True
        return False

    wait_until(mine_is_gone, "the actor of the dead driver is gone", timeout=CLIENT_LEASE + 15)
    rabbitry.kill(detached)
