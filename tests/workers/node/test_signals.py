"""Signals as events of a loop: see `rabbitry_workers.node.signals`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from rabbitry_broker.loop import Loop
from rabbitry_workers.node import signals
from rabbitry_workers.node.signals import SignalWatch

WATCHED = (signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def heard() -> list[int]:
    return []


@pytest.fixture
def watch(loop: Loop, heard: list[int]) -> Iterator[SignalWatch]:
    watch = SignalWatch(loop, WATCHED, heard.append)
    yield watch
    watch.close()


def until(loop: Loop, condition: Callable[[], object]) -> None:
    for _ in range(1000):
        if condition():
            return
        loop.run_once(0.01)
    raise AssertionError("nothing was heard")


@pytest.mark.usefixtures("watch")
def test_each_signal_is_told_on_the_loop_and_not_before(loop: Loop, heard: list[int]) -> None:
    for number in WATCHED:
        os.kill(os.getpid(), number)
    assert heard == []
    until(loop, lambda: len(heard) == 2)
    assert heard == [signal.SIGUSR1, signal.SIGUSR2]


def test_signals_of_others_are_passed_over(loop: Loop, watch: SignalWatch, heard: list[int]) -> None:
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    try:
        os.kill(os.getpid(), signal.SIGALRM)
        os.kill(os.getpid(), signal.SIGUSR1)
        until(loop, lambda: heard)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert heard == [signal.SIGUSR1]
    watch._on_event(watch._reader, 0)  # woken for nothing
    assert heard == [signal.SIGUSR1]


@pytest.mark.usefixtures("watch")
def test_a_loop_that_hears_nothing_is_ended_by_the_third(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(signals.os, "_exit", ended.append)
    for _ in range(signals.LAST_SIGNAL - 1):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert ended == []
    os.kill(os.getpid(), signal.SIGUSR1)
    assert ended == [128 + signal.SIGUSR1]


def test_it_leaves_all_as_it_was(loop: Loop) -> None:
    before = [signal.getsignal(number) for number in WATCHED]
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    watch = SignalWatch(loop, WATCHED, lambda number: None)
    assert [signal.getsignal(number) for number in WATCHED] != before
    watch.close()
    assert [signal.getsignal(number) for number in WATCHED] == before
    assert signal.set_wakeup_fd(wakeup) == wakeup
