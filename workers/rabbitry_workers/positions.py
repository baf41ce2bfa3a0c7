"""Which of a caller's calls were seen: callers number their calls to an actor 1, 2, 3, ..."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable


class Positions:
    """A set of positive numbers that is nearly always 1..n, or m..n: it takes the room of its gaps.

    Attributes:
        bounds: first and last number of each run without a gap, ascending: `[1, 7, 9, 9]` for 1 to 7, and 9.
    """

    __slots__ = ("bounds",)

    def __init__(self, bounds: Iterable[int] = ()) -> None:
        self.bounds = list(bounds)

    def add(self, position: int) -> None:
        """Add one number; those below 1 (calls without a number) are ignored."""
        bounds = self.bounds
        if bounds and position == bounds[-1] + 1:
            bounds[-1] = position
            return
        if position < 1 or position in self:
            return
        at = bisect_left(bounds, position)  # between two runs, so even
        joins_left = at > 0 and bounds[at - 1] == position - 1
        joins_right = at < len(bounds) and bounds[at] == position + 1
        if joins_left and joins_right:
            del bounds[at - 1 : at + 1]
        elif joins_left:
            bounds[at - 1] = position
        elif joins_right:
            bounds[at] = position
        else:
            bounds[at:at] = (position, position)

    def update(self, others: Positions) -> None:
        """Add all that others have."""
        runs = sorted(zip(self.bounds[::2] + others.bounds[::2], self.bounds[1::2] + others.bounds[1::2], strict=True))
        bounds: list[int] = []
        for first, last in runs:
            if bounds and first <= bounds[-1] + 1:
                bounds[-1] = max(bounds[-1], last)
            else:
                bounds += (first, last)
        self.bounds = bounds

    def __contains__(self, position: int) -> bool:
        bounds = self.bounds
        if not bounds or position > bounds[-1]:
            return False
        at = bisect_left(bounds, position)
        return at % 2 == 1 or bounds[at] == position

    def has_all_below(self, position: int) -> bool:
        """True if no number from 1 to `position` - 1 is missing."""
        bounds = self.bounds
        return position <= 1 or (bool(bounds) and bounds[0] == 1 and bounds[1] >= position - 1)
