"""Waiting for conditions, in tests and in the code that they send."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

TIMEOUT = 20.0  # seconds


def wait_until(condition: Callable[[], object]) -> None:
    """Return when `condition()` is true."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"not so after {TIMEOUT} s"
        time.sleep(0.01)


def wait_for_file(path: Path) -> None:
    """Return when a file exists."""
    wait_until(path.exists)
