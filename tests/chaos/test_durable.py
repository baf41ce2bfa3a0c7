"""A durable actor counts each call once, whatever is killed meanwhile, and each caller is told each number once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

import rabbitry
from tests.chaos import caller
from tests.chaos.conftest import LONG
from tests.chaos.stage import NODE_CPUS, Stage, report
from tests.chaos.workload import Counter
from tests.servers import wait_until

INCREMENTS = 10_000 if LONG else 1_000
CALLERS = 4
ROUNDS = 4 if LONG else 1
OUTCOME_TIMEOUT = 300.0 if LONG else 45.0


def start_caller(address: str, name: str, path: Path) -> subprocess.Popen[bytes]:
    """Start a driver that makes its share of the calls."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    arguments = [caller.__file__, address, name, str(INCREMENTS // CALLERS), str(path)]
    return subprocess.Popen([sys.executable, *arguments], env=environment)


def told(path: Path) -> list[int]:
    """Return the numbers that a caller has written down (but for an unfinished line)."""
    return [int(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


@pytest.mark.in_every_run
def test_a_durable_actor_counts_each_call_once(stage: Stage, tmp_path: Path):
    name = "durable counter"
    counter = Counter.options(name=name, namespace="chaos").remote()
    pid = rabbitry.get(counter.pid.remote(), timeout=20)
    files = [tmp_path / str(number) for number in range(CALLERS)]

    def count() -> int:
        return sum(len(told(file)) for file in files)

    def kill_process() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def kill_node() -> None:
        victims = [node for node in stage.nodes() if pid in stage.workers(node)]
        for victim in victims or stage.nodes()[:1]:
            victim.kill()
        stage.cluster.add_node(num_cpus=NODE_CPUS)

    faults: list[tuple[str, Callable[[], None]]] = [
        ("kill -9 of its process", kill_process),
        ("kill -9 of its node", kill_node),
        ("kill -9 of RabbitMQ", stage.restart_rabbitmq),
        ("kill -9 of Redis", stage.restart_redis),
    ]
    plan = [fault for _ in range(ROUNDS) for fault in stage.random.sample(faults, len(faults))]
    with ExitStack() as cleanup:
        callers = [start_caller(stage.cluster.address, name, file) for file in files]
        for process in callers:
            cleanup.callback(process.kill)

        def reached(share: int) -> bool:
            ended = [process.returncode for process in callers if process.poll()]
            assert not ended, f"callers ended with {ended}"
            return count() >= share

        # `init` does not wait for a server that is away: nobody may still be in it when the faults begin.
        wait_until(lambda: reached(0) and all(told(file) for file in files), "all callers are at work", 60)
        for number, (what, fault) in enumerate(plan, 1):
            share = INCREMENTS * number // (len(plan) + 1)
            wait_until(lambda share=share: reached(share), f"{share} increments", 60)
            pid = rabbitry.get(counter.pid.remote(), timeout=30)
            fault()
            stage.healed()
            before = count()
            if before < INCREMENTS:
                wait_until(lambda before=before: count() > before, f"the count grows after {what}", 30)
                report(f"recovery of a durable actor from {what}: {time.monotonic() - stage.healed_at:.2f} s")
        for process in callers:
            assert process.wait(OUTCOME_TIMEOUT) == 0
    numbers = [told(file) for file in files]
    assert sorted(number for each in numbers for number in each) == list(range(1, INCREMENTS + 1))
    assert all(each == sorted(each) for each in numbers), "calls of one caller take effect in their order"
    assert rabbitry.get(counter.increment.remote(), timeout=30) == INCREMENTS + 1
