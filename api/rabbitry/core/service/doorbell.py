"""The doorbell of the service thread: whoever has work for it rings."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Doorbell:
    """Wakes the service thread, and has it started if it does not run yet. Any thread may ring. HOT PATH.

    Attributes:
        start: starts whoever answers; None once somebody does, or nobody is to any more.
    """

    def __init__(self) -> None:
        self._rung = threading.Event()
        self._urgent = threading.Event()
        self.start: Callable[[], None] | None = None

    def ring(self) -> None:
        """There is work for the service thread."""
        start = self.start
        if start is not None:
            start()
        if not self._urgent.is_set():
            self._urgent.set()
            self._rung.set()

    def ring_later(self) -> None:
        """There is work that others may join first: nobody waits for it."""
        start = self.start
        if start is not None:
            start()
        if not self._rung.is_set():
            self._rung.set()

    def is_rung(self) -> bool:
        """True from a ring until it is answered."""
        return self._rung.is_set()

    def wait(self, seconds: float) -> None:
        """Wait for a ring, so long at most."""
        self._rung.wait(seconds)

    def let_gather(self, soon: float, later: float) -> None:
        """After a ring: let more come for `later` seconds, but only `soon` seconds from when something is urgent."""
        if self._urgent.wait(later):
            time.sleep(soon)

    def answer(self) -> None:
        """What was rung for is seen to from now on."""
        self._rung.clear()
        self._urgent.clear()
