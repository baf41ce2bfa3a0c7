"""How long to wait before the next try: twice as long each time, up to a limit, and never all at the same moment."""

from __future__ import annotations

import random

_MOST_DOUBLINGS = 16  # a float would go on, but nobody waits that long


def backoff(attempts: int, first: float, longest: float) -> float:
    """Return the seconds to wait after so many failed attempts.

    Half to all of `first`, doubled with each attempt, `longest` at most.

    Example:
        >>> 0.4 <= backoff(3, first=0.1, longest=1.0) <= 0.8
        True
        >>> backoff(1000, first=0.1, longest=1.0) <= 1.0
        True
    """
    return min(longest, first * 2.0 ** min(attempts, _MOST_DOUBLINGS)) * random.uniform(0.5, 1.0)
