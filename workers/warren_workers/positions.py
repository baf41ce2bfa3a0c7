"""Which of a caller's calls were seen: callers number their calls to an actor 1, 2, 3, ..."""

from __future__ import annotations


class Positions:
    """A set of positive numbers that is nearly always 1..n: kept as `low` (all up to it) and those above."""

    __slots__ = ("above", "low")

    def __init__(self, low: int = 0, above: list[int] | None = None) -> None:
        self.low = low
        self.above = set(above or ())

    def add(self, position: int) -> None:
        """Add one number; those below 1 (calls without a number) are ignored."""
        if position == self.low + 1:
            self.low = position
            while self.above and self.low + 1 in self.above:
                self.low += 1
                self.above.discard(self.low)
        elif position > self.low:
            self.above.add(position)

    def __contains__(self, position: int) -> bool:
        return 0 < position <= self.low or position in self.above
