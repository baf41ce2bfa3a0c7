"""Frees what failures leave behind: tracebacks make cycles, and these may hold refs."""

from __future__ import annotations

import gc
import time

TIDY_SECONDS = 1.0  # between two collections of cycles


class Tidying:
    """Collects cycles after failures, now and then. Any thread may call anything."""

    def __init__(self) -> None:
        self._untidy = False
        self._tidy_at = 0.0

    def failed(self) -> bool:
        """A task failed here. Returns False if there is no time for tidying just yet: somebody must come back to it."""
        self._untidy = True
        return time.monotonic() >= self._tidy_at

    def run_once(self) -> None:
        """Free what failures left in cycles, if that was not done just now."""
        if self._untidy and time.monotonic() >= self._tidy_at:
            self._untidy = False
            gc.collect()  # with a large heap this takes longer than the pause
            self._tidy_at = time.monotonic() + TIDY_SECONDS
