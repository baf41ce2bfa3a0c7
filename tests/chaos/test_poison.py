"""Tasks that harm the process they run in: each ends with the promised error, and takes nobody with it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import rabbitry
from rabbitry.exceptions import OutOfMemoryError, WorkerCrashedError
from rabbitry_workers.node.services.memory import memory_of
from tests.chaos.conftest import LONG
from tests.chaos.ledger import Ledger
from tests.chaos.listener import Listener
from tests.chaos.poison import (
    RETRIES,
    close_everything,
    exit_in_a_child,
    leave_a_child_and_exit,
    raise_in_a_child,
    return_later,
    return_twice,
    size_of,
    suicide,
    take_all_memory,
)
from tests.chaos.stage import Stage, report
from tests.chaos.workload import Workload, plain
from tests.servers import wait_until

INNOCENTS = 60
ARGUMENT_BYTES = 100 << 20
OUTPUT_BYTES = (1 << 30) if LONG else (100 << 20)
KEPT_BYTES = (
    160 << 20
)  # of output, by nodes and Redis: 64 MiB for a subscriber that does not read, and what is on its way
DRIVER_BYTES = 200 << 20  # a driver has 60 MiB by itself
FILE_BYTES = 1 << 20
MEMORY_LIMIT = 256 << 20
HOG_BYTES = 400 << 20
HOGS = 4 if LONG else 1
SUBMISSIONS = 40


def run_files(stage: Stage) -> list[Path]:
    """Return the files that the nodes write: their logs, and what stands beside them."""
    directories = {node.log.parent for node in stage.cluster.list_all_nodes()}
    return [path for directory in directories for path in directory.rglob("*") if path.is_file()]


def innocents(ledger: Ledger, name: str) -> None:
    for number in range(INNOCENTS):
        key = f"{name}-{number}"
        ledger.add(key, plain.remote(ledger.path, key, number), number * 3 + 1)


@pytest.mark.in_every_run
def test_a_task_that_kills_its_process_each_time_takes_no_others_along(stage: Stage, ledger: Ledger):
    innocents(ledger, "before")
    poison = [suicide.remote(ledger.path, f"poison-{number}") for number in range(3)]
    innocents(ledger, "after")
    for ref in poison:
        with pytest.raises(WorkerCrashedError, match="suicide"):
            rabbitry.get(ref, timeout=30)
    ledger.check()
    effects = ledger.effects()
    assert [effects[f"poison-{number}"] for number in range(3)] == [RETRIES + 1] * 3


@pytest.mark.in_every_run
def test_an_executor_that_exits_beside_a_child_of_its_own_is_missed(stage: Stage, ledger: Ledger):
    started = time.monotonic()
    ref = leave_a_child_and_exit.remote(ledger.path, "poison")
    innocents(ledger, "beside")
    with pytest.raises(WorkerCrashedError):
        rabbitry.get(ref, timeout=15)
    print(f"noticed after {time.monotonic() - started:.2f} s")
    ledger.check()


@pytest.mark.in_every_run
def test_a_forked_child_never_answers_for_its_parent(stage: Stage, ledger: Ledger):
    for number in range(5):
        for task, right in (
            (return_twice, "parent"),
            (return_later, "parent"),
            (raise_in_a_child, "1"),
            (exit_in_a_child, "3"),
        ):
            key = f"fork-{right}-{number}"
            ledger.add(key, task.remote(ledger.path, key), right)
    innocents(ledger, "beside")
    ledger.check()
    innocents(ledger, "behind")
    ledger.check()


def test_an_executor_without_file_descriptors_is_replaced(stage: Stage, ledger: Ledger):
    for number in range(3):
        key = f"closed-{number}"
        ref = close_everything.remote(ledger.path, key)
        ledger.add(key, ref, "closed", errors=(WorkerCrashedError,), runs=1)
    innocents(ledger, "beside")
    ledger.check()


def test_arguments_of_100_mib(stage: Stage, ledger: Ledger):
    ledger.add("size", size_of.remote(ledger.path, "size", b"x" * ARGUMENT_BYTES), ARGUMENT_BYTES, runs=1)
    innocents(ledger, "beside")
    ledger.check()


@pytest.mark.parametrize("reads", [True, False], ids=["read", "unread"])
def test_very_much_output_stops_nobody(stage: Stage, ledger: Ledger, reads: bool):
    """Nor is it kept anywhere: not by the node, not by Redis, not by the driver, whether anybody reads it or not."""
    before = sum(map(memory_of, [*(node.pid for node in stage.nodes()), stage.redis.pid]))
    with Listener(stage.cluster.address, ledger.path, OUTPUT_BYTES, reads=reads) as listener:
        most = taken = 0

        def finished() -> bool:
            nonlocal most, taken
            processes = [*(node.pid for node in stage.nodes()), stage.redis.pid]
            most = max(most, sum(map(memory_of, processes)) - before)
            taken = max(taken, memory_of(listener.pid))
            return listener.finished()

        innocents(ledger, "beside")
        ledger.check()
        wait_until(finished, "the task has said everything", 120)
    files = sum(path.stat().st_size for path in run_files(stage))
    told = (
        f"{OUTPUT_BYTES >> 20} MiB of output, {'read' if reads else 'unread'}: "
        f"nodes and Redis took {most >> 20} MiB more, "
        f"the driver had {taken >> 20} MiB, files of the nodes have {files >> 10} KiB"
    )
    report(told)
    assert most < KEPT_BYTES and taken < DRIVER_BYTES and files < FILE_BYTES, told


def test_a_task_that_takes_all_memory_is_named_and_takes_nobody_along(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    monkeypatch.setenv("RABBITRY_EXECUTOR_MEMORY_LIMIT", str(MEMORY_LIMIT))  # before the nodes start
    stage: Stage = request.getfixturevalue("stage")
    workload: Workload = request.getfixturevalue("workload")
    ledger = workload.ledger

    def probe() -> None:
        assert rabbitry.get(plain.remote(ledger.path, "probe", 1), timeout=5) == 4

    for number in range(HOGS):
        workload.submit(SUBMISSIONS)
        hog = take_all_memory.remote(ledger.path, f"hog-{number}", HOG_BYTES)
        again = take_all_memory.options(max_retries=1).remote(ledger.path, f"again-{number}", HOG_BYTES)
        workload.submit(SUBMISSIONS)
        for ref in (hog, again):
            with pytest.raises(OutOfMemoryError, match=r"take_all_memory.*256 MiB"):
                rabbitry.get(ref, timeout=40)
        stage.healed()
        stage.recovery(
            "a task that took all memory", lambda: rabbitry.get(plain.remote(ledger.path, "probe", 1), timeout=5)
        )
    workload.finish()
    effects = ledger.effects()
    assert [effects[f"hog-{number}"] for number in range(HOGS)] == [1] * HOGS
    assert [effects[f"again-{number}"] for number in range(HOGS)] == [2] * HOGS
