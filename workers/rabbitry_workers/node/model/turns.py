"""Whose turn it is at what one node does for all, as far as this node was told with its sign of life.

Nobody gives a turn up before its end, so one that was somebody's is so until then: who knows that need not ask.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Turns:
    """Turns that are taken, by their keys in Redis. Loop thread only.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[bytes, float] = {}  # so many keys as there are kinds of work
        self._left: dict[bytes, int] = {}

    def told(self, key: bytes, left: int) -> None:
        """A turn lasts so many milliseconds more; -2 if it is nobody's, -1 if it would never end."""
        self._left[key] = left
        self._until[key] = self._clock() + left / 1000

    def is_taken(self, key: bytes, longest: int) -> bool:
        """True if it is known that a turn, which lasts so many milliseconds at most, is somebody's now."""
        # One that lasts longer was written by somebody else: who asks for it finds that out.
        return 0 < self._left.get(key, 0) <= longest and self._clock() < self._until[key]
