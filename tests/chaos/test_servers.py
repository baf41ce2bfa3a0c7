"""Servers that are killed, and connections that are cut."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

import rabbitry
from tests.chaos.conftest import LONG
from tests.chaos.stage import Stage
from tests.chaos.workload import Workload, plain

SUBMISSIONS = 600 if LONG else 150
TIMES = 4 if LONG else 1

FAULTS: list[tuple[str, Callable[[Stage], None]]] = [
    ("kill -9 of RabbitMQ", Stage.restart_rabbitmq),
    ("kill -9 of Redis", Stage.restart_redis),
    ("CLIENT KILL", Stage.kill_clients),
    ("connections closed by RabbitMQ", Stage.close_connections),
]


def submit_beside(workload: Workload, fault: Callable[[], None]) -> None:
    """Submit while a fault is going on."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            fault()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="fault")
    thread.start()
    for _ in range(SUBMISSIONS // 2):
        if not thread.is_alive():
            break
        workload.submit(1)
        time.sleep(0.03)
    thread.join()
    if failures:
        raise failures[0]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        pytest.param(name, fault, id=name.replace(" ", "-"), marks=[pytest.mark.in_every_run] * name.startswith("kill"))
        for name, fault in FAULTS
    ],
)
def test_work_outlives_its_servers(stage: Stage, workload: Workload, name: str, fault: Callable[[Stage], None]):
    def probe() -> None:
        assert rabbitry.get(plain.remote(workload.ledger.path, "probe", 1), timeout=5) == 4

    for _ in range(TIMES):
        workload.submit(SUBMISSIONS // 2)
        time.sleep(stage.random.uniform(0.1, 0.5))
        submit_beside(workload, lambda: fault(stage))
        stage.healed()
        stage.recovery(name, probe)
        workload.submit(SUBMISSIONS // 2)
    workload.finish()
