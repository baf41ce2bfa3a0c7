"""The life of a node, from the first look at its queues to the last word.

WORKING --drain--> DRAINING --nothing is left to do--> STOPPING
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final


class Phase(enum.Enum):
    """Where a node is in its life; see the module's head."""

    WORKING = "working"
    DRAINING = "draining"
    STOPPING = "stopping"


_MOVES: Final = {
    Phase.WORKING: {Phase.DRAINING},
    Phase.DRAINING: {Phase.STOPPING},
    Phase.STOPPING: frozenset[Phase](),
}


class Life:
    """Says whether the node takes work, and ends it when it has left. Loop thread only.

    Attributes:
        phase: where it is.
        draining: it takes no more work (and may be about to stop).
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self.phase = Phase.WORKING
        self.draining = False  # read for each delivery, hence no property
        self._stop = stop
        self._busy: list[Callable[[], object]] = []

    def lasts_while(self, busy: Callable[[], object]) -> None:
        """A node that leaves stays as long as this returns something true."""
        self._busy.append(busy)

    def drain(self) -> None:
        """The node takes no more work from now on."""
        self._move(Phase.DRAINING)
        self.draining = True

    def stop_if_drained(self) -> None:
        """If the node is leaving and nothing is left to do, leave."""
        if self.phase is Phase.DRAINING and not any(busy() for busy in self._busy):
            self._move(Phase.STOPPING)
            self._stop()

    def _move(self, phase: Phase) -> None:
        if phase not in _MOVES[self.phase]:
            raise AssertionError(f"the node: {self.phase} -> {phase}")
        self.phase = phase
