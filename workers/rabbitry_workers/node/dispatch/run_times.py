"""How long tasks of a function take: how many of them go to an executor at once depends on it."""

from __future__ import annotations

from typing import Final

MEANS_KEPT: Final = 4096


class RunTimes:
    """Means of run times, the last tasks counting most. HOT PATH.

    Attributes:
        means: seconds, by function; all of them go when there are too many.
    """

    def __init__(self) -> None:
        self.means: dict[bytes, float] = {}

    def note(self, function: bytes, seconds: float) -> None:
        """Tasks of a function took so long each."""
        means = self.means
        mean = means.get(function)
        if mean is None and len(means) > MEANS_KEPT:
            means.clear()
        means[function] = seconds if mean is None else 0.5 * mean + 0.5 * seconds
