"""What the pages read, read once for all of them, and not too often.

All browsers that look at a cluster share one reading of each kind. A reading is renewed when somebody asks for it and
it is a second old; one that takes long is renewed less often, so that looking costs a bounded share of one core.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

Value = TypeVar("Value")

FRESH_SECONDS: Final = 0.9
"""A bit less than the time between two updates of a page: each of them sees something new."""
SHARE: Final = 0.04
"""Of one core, at most: a reading that takes 100 ms is renewed every 2.5 s."""
SLOWEST_SECONDS: Final = 15.0
KEPT: Final = 200
"""Readings; of those that nobody asked for, the oldest are forgotten."""


class _Reading:
    __slots__ = ("fresh_until", "task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.fresh_until = float("inf")


class Readings:
    """Shares readings. For one loop.

    Args:
        clock: seconds, for tests.
        processor: seconds of the processor that this thread has taken, for tests.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, processor: Callable[[], float] = time.thread_time
    ) -> None:
        self._clock = clock
        self._processor = processor
        self._readings: OrderedDict[tuple[object, ...], _Reading] = OrderedDict()

    async def get(self, read: Callable[..., Value], *args: object) -> Value:
        """Return what `read(*args)` returns, or has returned just now. It runs in a thread.

        Args:
            read: a method of a source; readings are told apart by it and the arguments, which must be hashable.
            *args: of it.

        Raises:
            Exception: whatever `read` raises.
        """
        key = (read, *args)
        reading = self._readings.get(key)
        if reading is None or self._clock() >= reading.fresh_until:
            reading = _Reading(asyncio.create_task(self._read(key, read, args)))
            self._readings[key] = reading
        self._readings.move_to_end(key)
        while len(self._readings) > KEPT:
            self._readings.popitem(last=False)
        value: Any = await asyncio.shield(reading.task)
        return cast(Value, value)

    def forget(self) -> None:
        """Read everything anew: an action has changed the cluster."""
        self._readings.clear()

    async def _read(self, key: tuple[object, ...], read: Callable[..., Value], args: tuple[object, ...]) -> Value:
        took = 0.0

        def timed() -> Value:
            nonlocal took
            before = self._processor()
            try:
                return read(*args)
            finally:
                took = self._processor() - before

        try:
            return await asyncio.to_thread(timed)
        finally:
            reading = self._readings.get(key)
            if reading is not None and reading.task is asyncio.current_task():
                reading.fresh_until = self._clock() + min(SLOWEST_SECONDS, max(FRESH_SECONDS, took / SHARE))
