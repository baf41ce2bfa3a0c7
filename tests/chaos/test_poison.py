"""Tasks that harm the process they run in: each ends with the promised error, and takes nobody with it."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

import warren
from tests.chaos.conftest import LONG
from tests.chaos.ledger import Ledger, note
from tests.chaos.stage import Stage
from tests.chaos.workload import plain
from warren.exceptions import WorkerCrashedError

INNOCENTS = 60
ARGUMENT_BYTES = 100 << 20
OUTPUT_BYTES = (1 << 30) if LONG else (100 << 20)
LINE_BYTES = 1 << 16
RETRIES = 2
CHILD_SECONDS = 20


@warren.remote(max_retries=RETRIES)
def suicide(path: str, key: str) -> None:
    """Kill the executor, each time."""
    note(path, key)
    os.kill(os.getpid(), signal.SIGKILL)


@warren.remote(max_retries=0)
def leave_a_child_and_exit(path: str, key: str) -> None:
    """End the executor while a child of it holds all that it had open."""
    note(path, key)
    if os.fork() == 0:
        time.sleep(CHILD_SECONDS)
        os._exit(0)
    os._exit(1)


@warren.remote(max_retries=0)
def return_twice(path: str, key: str) -> str:
    """Fork, and let the child return from the task as well."""
    note(path, key)
    return "child" if os.fork() == 0 else "parent"


@warren.remote(max_retries=0)
def return_later(path: str, key: str) -> str:
    """Fork, and let the child return from the task first: the parent waits for it."""
    note(path, key)
    child = os.fork()
    if child == 0:
        return "child"
    os.waitpid(child, 0)
    time.sleep(0.1)
    return "parent"


@warren.remote(max_retries=0)
def raise_in_a_child(path: str, key: str) -> str:
    """Fork a child that ends by an exception."""
    note(path, key)
    child = os.fork()
    if child == 0:
        raise ValueError("raised in a child")
    return f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"


@warren.remote(max_retries=0)
def exit_in_a_child(path: str, key: str) -> str:
    """Fork a child that ends by sys.exit, through all that the executor has on its stack."""
    note(path, key)
    child = os.fork()
    if child == 0:
        sys.exit(3)
    return f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"


@warren.remote(max_retries=0)
def close_everything(path: str, key: str) -> str:
    """Close all file descriptors but the three standard ones."""
    note(path, key)
    os.closerange(3, 4096)
    return "closed"


@warren.remote(max_retries=0)
def size_of(path: str, key: str, data: bytes) -> int:
    """Return the size of an argument."""
    note(path, key)
    return len(data)


@warren.remote(max_retries=0)
def shout(path: str, key: str, size: int) -> int:
    """Print very much."""
    note(path, key)
    line = "x" * (LINE_BYTES - 1)
    for _ in range(size // LINE_BYTES):
        print(line)
    return size


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
            warren.get(ref, timeout=30)
    ledger.check()
    effects = ledger.effects()
    assert [effects[f"poison-{number}"] for number in range(3)] == [RETRIES + 1] * 3


@pytest.mark.in_every_run
def test_an_executor_that_exits_beside_a_child_of_its_own_is_missed(stage: Stage, ledger: Ledger):
    started = time.monotonic()
    ref = leave_a_child_and_exit.remote(ledger.path, "poison")
    innocents(ledger, "beside")
    with pytest.raises(WorkerCrashedError):
        warren.get(ref, timeout=15)
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


def test_very_much_output_stops_nobody(stage: Stage, ledger: Ledger):
    ledger.add("shout", shout.remote(ledger.path, "shout", OUTPUT_BYTES), OUTPUT_BYTES, runs=1)
    innocents(ledger, "beside")
    ledger.check()
