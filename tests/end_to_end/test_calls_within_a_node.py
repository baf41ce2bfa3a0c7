"""Calls from actors and tasks to actors on the same node, which their agent hands over: in order, and none is lost."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

import rabbitry
from rabbitry.exceptions import ActorDiedError, ActorUnavailableError
from tests.servers import wait_until

pytestmark = pytest.mark.timeout(120)

TIMEOUT = 60.0


@rabbitry.remote(num_cpus=0, max_restarts=-1)
class Log:
    """Notes who called, with which number."""

    def __init__(self) -> None:
        self.noted: dict[str, list[int]] = {}

    def note(self, caller: str, number: int) -> int:
        self.noted.setdefault(caller, []).append(number)
        return number

    def crash(self) -> None:
        os._exit(1)

    def read(self) -> dict[str, list[int]]:
        return self.noted


@rabbitry.remote(num_cpus=0)
class Caller:
    def __init__(self, name: str, log: Any) -> None:
        self.name, self.log = name, log

    def in_bursts(self, sizes: list[int]) -> int:
        """Send so many calls at once, read them, and so on."""
        number = 0
        for size in sizes:
            refs = [self.log.note.remote(self.name, number + at) for at in range(size)]
            assert rabbitry.get(refs, timeout=TIMEOUT) == list(range(number, number + size))
            number += size
        return number

    def whatever_happens(self, count: int) -> list[int]:
        """Send one call after the other; return the numbers of those that were answered with their value."""
        answered = []
        for number in range(count):
            try:
                answered.append(rabbitry.get(self.log.note.remote(self.name, number), timeout=TIMEOUT))
            except (ActorUnavailableError, ActorDiedError):
                continue
        return answered


@rabbitry.remote(num_cpus=0)
class Gate:
    """Lets nobody through before it is opened."""

    def __init__(self) -> None:
        self.opened, self.waiting = asyncio.Event(), 0

    async def wait(self) -> int:
        self.waiting += 1
        await self.opened.wait()
        return self.waiting

    async def count(self) -> int:
        return self.waiting

    async def open(self) -> None:
        self.opened.set()


def one_by_one(gate: Any, count: int) -> list[Any]:
    """Wait at a gate so many times at once, each by a message of its own; return what these calls return."""
    refs = []
    for _ in range(count):
        refs.append(gate.wait.remote())
        rabbitry.wait(refs[-1:], timeout=0.001)
    return refs


@rabbitry.remote(num_cpus=0)
def wait_within_a_task(gate: Any, count: int) -> list[int]:
    values: list[int] = rabbitry.get(one_by_one(gate, count), timeout=TIMEOUT)
    return values


@rabbitry.remote(num_cpus=0)
def from_a_task(name: str, log: Any, count: int) -> int:
    for number in range(count):
        log.note.remote(name, number)
    return int(rabbitry.get(log.note.remote(name, count), timeout=TIMEOUT))


def test_each_caller_s_calls_run_in_their_order(session: str) -> None:
    log = Log.remote()
    callers = {name: Caller.remote(name, log) for name in "abc"}
    sizes = [1, 2, 300, 1, 1, 64, 65, 1]  # more than a node hands to an actor at once, too
    refs = [caller.in_bursts.remote(sizes) for caller in callers.values()]
    ours = [log.note.remote("driver", number) for number in range(100)]
    tasks = [from_a_task.remote(f"task {at}", log, 150) for at in range(3)]
    assert rabbitry.get(refs, timeout=TIMEOUT) == [sum(sizes)] * 3
    assert rabbitry.get(tasks, timeout=TIMEOUT) == [150] * 3
    assert rabbitry.get(ours, timeout=TIMEOUT) == list(range(100))
    noted = rabbitry.get(log.read.remote(), timeout=TIMEOUT)
    expected = {**dict.fromkeys("abc", sum(sizes)), "driver": 100, **{f"task {at}": 151 for at in range(3)}}
    assert noted == {name: list(range(count)) for name, count in expected.items()}


def is_there(log: Any) -> bool:
    try:
        rabbitry.get(log.read.remote(), timeout=TIMEOUT)
    except ActorUnavailableError:
        return False
    return True


def test_calls_to_an_actor_that_crashes_are_answered_and_later_ones_run(session: str) -> None:
    log = Log.remote()
    callers = {name: Caller.remote(name, log) for name in "ab"}
    refs = {name: caller.whatever_happens.remote(400) for name, caller in callers.items()}
    for _ in range(4):
        with pytest.raises((ActorUnavailableError, ActorDiedError)):
            rabbitry.get(log.crash.remote(), timeout=TIMEOUT)
    answered = {name: rabbitry.get(ref, timeout=TIMEOUT) for name, ref in refs.items()}
    wait_until(lambda: is_there(log), "the actor is there again", TIMEOUT)
    noted = rabbitry.get(log.read.remote(), timeout=TIMEOUT)
    for name, numbers in answered.items():
        assert numbers == sorted(set(numbers))
        last = noted.get(name, [])
        assert last == sorted(set(last)), "no call runs twice, none overtakes another"
        assert set(last) <= set(numbers), "what ran was answered"
        assert rabbitry.get(callers[name].in_bursts.remote([3]), timeout=TIMEOUT) == 3


@pytest.mark.parametrize("local", [True, False])
def test_hundreds_of_calls_that_wait_do_not_keep_away_the_one_they_wait_for(session: str, local: bool) -> None:
    gate, count = Gate.remote(), 300
    values = wait_within_a_task.remote(gate, count) if local else one_by_one(gate, count)
    wait_until(lambda: rabbitry.get(gate.count.remote(), timeout=TIMEOUT) == count, "all of them wait", TIMEOUT)
    rabbitry.get(gate.open.remote(), timeout=TIMEOUT)
    assert rabbitry.get(values, timeout=TIMEOUT) == [count] * count
