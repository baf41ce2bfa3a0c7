"""Chains of dependent tasks, which executors follow by themselves, on both engines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import warren
from tests.servers import wait_until
from warren.exceptions import TaskCancelledError, WorkerCrashedError

pytestmark = pytest.mark.usefixtures("session")


@warren.remote
def increment(value: int) -> int:
    return value + 1


@warren.remote
def note(value: int, directory: str, number: int) -> int:
    """Write down that link `number` ran; with a file `hold-<number>` there, wait until it is gone."""
    with open(Path(directory, "ran"), "a") as file:
        file.write(f"{number} {os.getpid()}\n")
    hold = Path(directory, f"hold-{number}")
    wait_until(lambda: not hold.exists(), "the test lets go", 30.0)
    return value + 1


def ran(directory: Path) -> list[int]:
    path = directory / "ran"
    return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


def last_process(directory: Path) -> int:
    return int((directory / "ran").read_text().split()[-1])


def chain(directory: Path, links: int) -> list[warren.ObjectRef[int]]:
    refs = [note.remote(0, str(directory), 0)]
    for number in range(1, links):
        refs.append(note.remote(refs[-1], str(directory), number))
    return refs


def test_every_link_runs_once_and_in_order(tmp_path):
    refs = chain(tmp_path, 120)  # more than one streak
    assert warren.get(refs[-1], timeout=30) == 120
    assert ran(tmp_path) == list(range(120))


def test_links_see_large_values_and_keep_what_they_share():
    @warren.remote
    def longer(text, _shared):
        return text + "x" * 5_000

    shared = warren.put("shared")
    ref = longer.remote("", shared)
    for _ in range(9):
        ref = longer.remote(ref, shared)
    assert len(warren.get(ref, timeout=30)) == 50_000


def test_an_error_runs_through_a_chain():
    @warren.remote
    def fail(value):
        raise ValueError(f"link {value}")

    ref = fail.remote(increment.remote(increment.remote(0)))
    for _ in range(5):
        ref = increment.remote(ref)
    with pytest.raises(ValueError, match="link 2"):
        warren.get(ref, timeout=30)


def test_a_link_that_is_retried_goes_on(tmp_path):
    @warren.remote(retry_exceptions=[OSError], max_retries=3)
    def flaky(value):
        path = tmp_path / "failed"
        with open(path, "a") as file:
            file.write("x")
        if path.stat().st_size < 3:
            raise OSError("not yet")
        return value + 1

    ref = increment.remote(flaky.remote(increment.remote(0)))
    assert warren.get(ref, timeout=30) == 3
    assert (tmp_path / "failed").read_text() == "xxx"


def test_an_executor_killed_within_a_chain_runs_that_link_again(tmp_path):
    (tmp_path / "hold-5").touch()
    refs = chain(tmp_path, 10)
    wait_until(lambda: ran(tmp_path)[-1:] == [5], "link 5 runs")
    os.kill(last_process(tmp_path), 9)
    wait_until(lambda: ran(tmp_path)[-2:] == [5, 5], "link 5 runs again")
    (tmp_path / "hold-5").unlink()
    assert warren.get(refs[-1], timeout=30) == 10
    assert ran(tmp_path) == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9]


def test_a_link_without_retries_fails_with_its_executor(tmp_path):
    (tmp_path / "hold-1").touch()
    ref = note.options(max_retries=0).remote(note.remote(0, str(tmp_path), 0), str(tmp_path), 1)
    wait_until(lambda: ran(tmp_path) == [0, 1], "link 1 runs")
    os.kill(last_process(tmp_path), 9)
    with pytest.raises(WorkerCrashedError):
        warren.get(ref, timeout=30)
    assert ran(tmp_path) == [0, 1]


@pytest.mark.parametrize("force", [False, True])
def test_a_running_link_is_cancelled(tmp_path, force):
    (tmp_path / "hold-3").touch()
    refs = chain(tmp_path, 5)
    wait_until(lambda: ran(tmp_path)[-1:] == [3], "link 3 runs")
    warren.cancel(refs[3], force=force)
    with pytest.raises(TaskCancelledError):
        warren.get(refs[4], timeout=30)
    assert ran(tmp_path) == [0, 1, 2, 3]


def test_a_link_that_waits_for_others_gives_its_cpu_back():
    @warren.remote
    def both(value):
        return value + sum(warren.get([increment.remote(1), increment.remote(2)]))

    ref = increment.remote(0)
    for _ in range(4):
        ref = both.remote(ref)
    assert warren.get(ref, timeout=40) == 21


def test_other_work_gets_its_turn_beside_a_chain(tmp_path):
    ref = increment.remote(0)
    for _ in range(2_000):
        ref = increment.remote(ref)
    aside = [increment.options(num_cpus=2).remote(number) for number in range(3)]
    assert warren.get(aside, timeout=30) == [1, 2, 3]
    assert warren.get(ref, timeout=60) == 2_001
