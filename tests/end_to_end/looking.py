"""Tasks that wait for a file, and waiting for what the state API tells."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import rabbitry
from rabbitry.util.state import get_task


@rabbitry.remote(num_cpus=0.1)
def add(left: int, right: int) -> int:
    return left + right


@rabbitry.remote(num_cpus=0.1)
def wait_for_file(path: str, *, also: Any = None) -> str:
    while not os.path.exists(path):
        time.sleep(0.02)
    return path


def wait_until(condition: Callable[[], object], timeout: float, shown: Callable[[], object]) -> None:
    """Wait for a condition, and say what was there instead."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"after {timeout:g} s: {shown()}"
        time.sleep(0.05)


def state_of(ref: Any) -> Any:
    """Return the one attempt of a task; None as long as nothing is known of it."""
    return get_task(ref)


def wait_for_state(ref: Any, state: str) -> Any:
    found: list[Any] = []

    def reached() -> bool:
        found[:] = [state_of(ref)]
        return found[0] is not None and found[0].state == state

    wait_until(reached, 15, lambda: f"{state}, but it is {found}")
    return found[0]
