"""Processes that are killed: executors, actor hosts, agents, templates, the driver."""

from __future__ import annotations

import time

import warren
from tests.chaos.conftest import LONG
from tests.chaos.stage import Stage
from tests.chaos.workload import Workload, plain

SUBMISSIONS = 1500 if LONG else 200
ROUNDS = 40 if LONG else 6


def probe(workload: Workload) -> None:
    """Run one task."""
    assert warren.get(plain.remote(workload.ledger.path, "probe", 1), timeout=5) == 4


def test_killed_executors_and_actor_hosts_lose_nothing(stage: Stage, workload: Workload):
    for _ in range(ROUNDS):
        workload.submit(SUBMISSIONS // ROUNDS)
        stage.kill_worker()
        time.sleep(stage.random.uniform(0.05, 0.4))
    stage.healed()
    stage.recovery("kill -9 of executors and actor hosts", lambda: probe(workload))
    workload.finish()


def test_a_killed_agent_is_made_good_by_the_others(stage: Stage, workload: Workload):
    for _ in range(4 if LONG else 1):
        workload.submit(SUBMISSIONS // 4)
        time.sleep(0.3)
        stage.kill_node()
        stage.healed()
        stage.recovery("kill -9 of an agent", lambda: probe(workload))
        workload.submit(SUBMISSIONS // 8)
    workload.finish()
