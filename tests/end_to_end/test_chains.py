"""Chains of dependent tasks, which executors follow by themselves, on both engines."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest

import rabbitry
from rabbitry.exceptions import TaskCancelledError, WorkerCrashedError
from rabbitry.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tests.servers import wait_until

pytestmark = pytest.mark.usefixtures("session")


@rabbitry.remote
def increment(value: int) -> int:
    return value + 1


@rabbitry.remote
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


@rabbitry.remote
def slow(seconds: float = 0.3) -> int:
    time.sleep(seconds)
    return 1


@rabbitry.remote(max_retries=2, retry_exceptions=True, retry_delay=0.05)
def at_the_second_try(directory: str) -> int:
    tried = Path(directory, "tried")
    if not tried.exists():
        tried.touch()
        raise ValueError
    return 1


@rabbitry.remote
def nested(cpus: float) -> int:
    return int(rabbitry.get(increment.options(num_cpus=cpus).remote(slow.remote())))


@rabbitry.remote
class Holder:
    def __init__(self, value: int) -> None:
        self.value = value

    def get(self) -> int:
        return self.value


def chain(directory: Path, links: int) -> list[rabbitry.ObjectRef[int]]:
    refs = [note.remote(0, str(directory), 0)]
    for number in range(1, links):
        refs.append(note.remote(refs[-1], str(directory), number))
    return refs


def test_every_link_runs_once_and_in_order(tmp_path):
    refs = chain(tmp_path, 120)  # more than one streak
    assert rabbitry.get(refs[-1], timeout=30) == 120
    assert ran(tmp_path) == list(range(120))


def test_links_see_large_values_and_keep_what_they_share():
    @rabbitry.remote
    def longer(text, _shared):
        return text + "x" * 5_000

    shared = rabbitry.put("shared")
    ref = longer.remote("", shared)
    for _ in range(9):
        ref = longer.remote(ref, shared)
    assert len(rabbitry.get(ref, timeout=30)) == 50_000


def test_an_error_runs_through_a_chain():
    @rabbitry.remote
    def fail(value):
        raise ValueError(f"link {value}")

    ref = fail.remote(increment.remote(increment.remote(0)))
    for _ in range(5):
        ref = increment.remote(ref)
    with pytest.raises(ValueError, match="link 2"):
        rabbitry.get(ref, timeout=30)


def test_a_link_that_is_retried_goes_on(tmp_path):
    @rabbitry.remote(retry_exceptions=[OSError], max_retries=3)
    def flaky(value):
        path = tmp_path / "failed"
        with open(path, "a") as file:
            file.write("x")
        if path.stat().st_size < 3:
            raise OSError("not yet")
        return value + 1

    ref = increment.remote(flaky.remote(increment.remote(0)))
    assert rabbitry.get(ref, timeout=30) == 3
    assert (tmp_path / "failed").read_text() == "xxx"


def test_an_executor_killed_within_a_chain_runs_that_link_again(tmp_path):
    (tmp_path / "hold-5").touch()
    refs = chain(tmp_path, 10)
    wait_until(lambda: ran(tmp_path)[-1:] == [5], "link 5 runs")
    os.kill(last_process(tmp_path), 9)
    wait_until(lambda: ran(tmp_path)[-2:] == [5, 5], "link 5 runs again")
    (tmp_path / "hold-5").unlink()
    assert rabbitry.get(refs[-1], timeout=30) == 10
    assert ran(tmp_path) == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9]


def test_a_link_without_retries_fails_with_its_executor(tmp_path):
    (tmp_path / "hold-1").touch()
    ref = note.options(max_retries=0).remote(note.remote(0, str(tmp_path), 0), str(tmp_path), 1)
    wait_until(lambda: ran(tmp_path) == [0, 1], "link 1 runs")
    os.kill(last_process(tmp_path), 9)
    with pytest.raises(WorkerCrashedError):
        rabbitry.get(ref, timeout=30)
    assert ran(tmp_path) == [0, 1]


@pytest.mark.parametrize("force", [False, True])
def test_a_running_link_is_cancelled(tmp_path, force):
    (tmp_path / "hold-3").touch()
    refs = chain(tmp_path, 5)
    wait_until(lambda: ran(tmp_path)[-1:] == [3], "link 3 runs")
    rabbitry.cancel(refs[3], force=force)
    with pytest.raises(TaskCancelledError):
        rabbitry.get(refs[4], timeout=30)
    assert ran(tmp_path) == [0, 1, 2, 3]


def test_a_link_that_waits_for_others_gives_its_cpu_back():
    @rabbitry.remote
    def both(value):
        return value + sum(rabbitry.get([increment.remote(1), increment.remote(2)]))

    ref = increment.remote(0)
    for _ in range(4):
        ref = both.remote(ref)
    assert rabbitry.get(ref, timeout=40) == 21


def test_other_work_gets_its_turn_beside_a_chain(tmp_path):
    ref = increment.remote(0)
    for _ in range(2_000):
        ref = increment.remote(ref)
    aside = [increment.options(num_cpus=2).remote(number) for number in range(3)]
    assert rabbitry.get(aside, timeout=30) == [1, 2, 3]
    assert rabbitry.get(ref, timeout=60) == 2_001


NEVER_SEEN = itertools.count(1)


def never_seen() -> float:
    """Return an amount of CPU that no task of this session has asked for before: nobody knows such a queue."""
    return 0.3 + next(NEVER_SEEN) / 10_000


def test_nodes_learn_of_a_queue_whose_first_task_was_released_by_a_result(tmp_path):
    here = rabbitry.nodes()[0]["NodeID"]
    affinity = NodeAffinitySchedulingStrategy
    dependants = {
        "cpus": {},
        "custom resource": {"resources": {"license": 0.5}},
        "gpu": {"num_gpus": 0.25},
        "memory": {"memory": 1000},
        "priority": {"priority": 7},
        "labels": {"label_selector": {"ray.io/node-id": here}},
        "hard affinity": {"scheduling_strategy": affinity(here, soft=False)},
        "soft affinity": {"scheduling_strategy": affinity(here, soft=True)},
        "affinity to a node that is gone": {"scheduling_strategy": affinity("ab" * 28, soft=True)},
        "spread": {"scheduling_strategy": "SPREAD"},
        "once only": {"max_retries": 0},
    }
    refs = {
        name: increment.options(num_cpus=never_seen(), **each).remote(slow.remote())
        for name, each in dependants.items()
    }
    refs["of a class not seen either"] = increment.options(num_cpus=never_seen()).remote(
        slow.options(num_cpus=never_seen()).remote()
    )
    refs["after a retry"] = increment.options(num_cpus=never_seen()).remote(at_the_second_try.remote(str(tmp_path)))
    refs["of a chain"] = increment.options(num_cpus=never_seen()).remote(increment.remote(slow.remote()))
    refs["of a task of a task"] = nested.remote(never_seen())
    actor = Holder.options(num_cpus=never_seen()).remote(slow.remote())
    refs["of an actor"] = increment.options(num_cpus=never_seen()).remote(actor.get.remote())
    refs["priority again"] = increment.options(num_cpus=never_seen(), priority=3).remote(refs["priority"])
    _, late = rabbitry.wait(list(refs.values()), num_returns=len(refs), timeout=20)
    assert not late, f"never ran: {[name for name, ref in refs.items() if ref in late]}"
    wrong = {
        name: value for name, value in zip(refs, rabbitry.get(list(refs.values())), strict=True) if value not in (2, 3)
    }
    assert not wrong
