"""What a cancelled task has begun to submit or to store is done to its end, and only its own thread is interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry.core.holding_back import hold_back
from rabbitry_workers.executor.interrupts import Interrupts


def test_what_a_task_submits_is_done_to_its_end() -> None:
    interrupts, done = Interrupts(), []

    def work(*args: Any) -> None:
        interrupts.arrived()  # the signal comes here
        done.append(args)

    part = SimpleNamespace(submit=work)
    hold_back(interrupts, part, "submit")
    with pytest.raises(KeyboardInterrupt):
        part.submit(1)
    assert done == [(1,)]
    assert not interrupts.held


def test_other_threads_neither_hold_back_nor_are_interrupted() -> None:
    interrupts, seen = Interrupts(), []

    def other() -> None:
        with interrupts:
            seen.append(interrupts.held)

    def stretch() -> None:
        with interrupts:
            interrupts.arrived()
            run(other)
            seen.append(interrupts.held)

    with pytest.raises(KeyboardInterrupt):
        stretch()
    assert seen == [True, True]
    run(other)
    assert seen[2:] == [False]


def run(body: Callable[[], None]) -> None:
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
