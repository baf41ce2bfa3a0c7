"""How long things take, over a window of the last times."""

from __future__ import annotations

import time
from collections import deque


class Timer:
    """Measures what runs in `with timer: ...`; for one thread.

    Args:
        window_size: how many times the means are over.
    """

    def __init__(self, window_size: int = 10) -> None:
        self._durations: deque[float] = deque(maxlen=window_size)
        self._units: deque[float] = deque(maxlen=window_size)
        self._started: float | None = None
        self.total_time = 0.0
        self.count = 0

    def __enter__(self) -> None:
        assert self._started is None, "the timer runs already"
        self._started = time.time()

    def __exit__(self, *_: object) -> None:
        assert self._started is not None
        self.push(time.time() - self._started)
        self._started = None

    def push(self, duration: float) -> None:
        """Add a duration, in seconds."""
        self._durations.append(duration)
        self.total_time += duration
        self.count += 1

    def push_units_processed(self, count: float) -> None:
        """Note how many things were done in the last duration."""
        self._units.append(count)

    def has_units_processed(self) -> bool:
        """True if somebody noted how many things were done."""
        return bool(self._units)

    @property
    def mean(self) -> float:
        """Seconds, on average over the window; 0 before the first."""
        return sum(self._durations) / len(self._durations) if self._durations else 0.0

    @property
    def mean_units_processed(self) -> float:
        """Things that were done each time, on average over the window."""
        return sum(self._units) / len(self._units) if self._units else 0.0

    @property
    def mean_throughput(self) -> float:
        """Things done a second, over the window."""
        seconds = sum(self._durations)
        return sum(self._units) / seconds if seconds else 0.0
