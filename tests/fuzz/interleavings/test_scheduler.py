"""The scheduler finds what it is for."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from tests.fuzz.interleavings.scheduler import Deadlock, Scheduler

HERE = sys.modules[__name__]


def run(seed: int, *targets: object) -> Scheduler:
    scheduler = Scheduler(seed, (HERE,))
    for target in targets:
        scheduler.spawn(lambda target=target: target(scheduler))  # type: ignore[operator, misc]
    return scheduler


def test_it_finds_an_update_that_gets_lost() -> None:
    totals = set()
    for seed in range(60):
        count = [0]

        def add(_: object, count: list[int] = count) -> None:
            for _ in range(3):
                count[0] += 1

        run(seed, add, add).run()
        totals.add(count[0])
    assert 6 in totals
    assert min(totals) < 6


def test_a_lock_keeps_it() -> None:
    for seed in range(60):
        scheduler = Scheduler(seed, (HERE,))
        lock, count = scheduler.threading.Lock(), [0]

        def add(lock: object = lock, count: list[int] = count) -> None:
            for _ in range(3):
                with lock:  # type: ignore[attr-defined]
                    count[0] += 1

        scheduler.spawn(add)
        scheduler.spawn(add)
        scheduler.run()
        assert count[0] == 6


def test_it_finds_a_deadlock_and_shows_who_waits() -> None:
    found = []
    for seed in range(80):
        scheduler = Scheduler(seed, (HERE,))
        first, second = scheduler.threading.Lock(), scheduler.threading.Lock()

        def take(one: object, other: object) -> None:
            with one, other:  # type: ignore[attr-defined]
                pass

        scheduler.spawn(lambda a=first, b=second: take(a, b))  # type: ignore[misc]
        scheduler.spawn(lambda a=second, b=first: take(a, b))  # type: ignore[misc]
        try:
            scheduler.run()
        except Deadlock as error:
            found.append(str(error))
    assert 0 < len(found) < 80
    assert all("in take" in text for text in found)


def test_time_passes_only_when_all_wait() -> None:
    scheduler = Scheduler(0)
    event = scheduler.threading.Event()
    seen = []

    def late() -> None:
        scheduler.sleep(3)
        event.set()

    def waits() -> None:
        seen.append((event.wait(1), scheduler.now))
        seen.append((event.wait(), scheduler.now))

    scheduler.spawn(late)
    scheduler.spawn(waits)
    scheduler.run()
    assert seen == [(False, 1), (True, 3)]


def test_one_that_takes_its_time_is_no_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[Scheduler.__module__], "REAL_SECONDS", 0.7)
    scheduler = Scheduler(0)
    ends = time.monotonic() + 1.5

    def slow() -> None:
        while time.monotonic() < ends:
            time.sleep(0.01)  # a quick machine would use up the switches of a run
            scheduler.switch()

    scheduler.spawn(slow)
    scheduler.run()
    waits = Scheduler(0)
    waits.spawn(lambda: threading.Event().wait(3.0))
    with pytest.raises(Deadlock):
        waits.run()


def test_what_a_thread_raises_is_raised() -> None:
    scheduler = Scheduler(0)
    scheduler.spawn(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scheduler.run()


def test_the_same_seed_gives_the_same_order() -> None:
    def order(seed: int) -> list[int]:
        seen: list[int] = []
        scheduler = Scheduler(seed)
        for number in range(4):

            def body(number: int = number) -> None:
                for _ in range(3):
                    seen.append(number)
                    scheduler.switch()

            scheduler.spawn(body)
        scheduler.run()
        return seen

    assert order(1) == order(1)
    assert order(1) != order(2)
