"""Settling: a delivery is acknowledged when nothing of it is outstanding.

outstanding --settle--> 0 --+-- of a queue -----> its custody ends, ack (unless custody did that), its source is told
'-- a continuation -> its note goes
"""

from __future__ import annotations

from collections.abc import Callable

from rabbitry_broker.queues.protocol import Delivery
from rabbitry_workers.node.model.work import Held


def _nobody(held: Held) -> None:
    """Nobody has to be told."""


class Settling:
    """Counts down what deliveries hold. Loop thread only. HOT PATH.

    Args:
        ack: acknowledges a delivery.

    Attributes:
        on_settled: told of each delivery of which nothing is outstanding, before it is acknowledged.
        on_released: told of each that was acknowledged.
        on_continued: told of what came by no delivery but was gone on with, and has ended.
    """

    def __init__(self, ack: Callable[[Delivery], object]) -> None:
        self._ack = ack
        self.on_settled: Callable[[Held], None] = _nobody
        self.on_released: Callable[[Held], None] = _nobody
        self.on_continued: Callable[[Held], None] = _nobody

    def settle(self, held: Held, count: int) -> None:
        """So many tasks (or other business) of a delivery are done; acknowledge it after the last."""
        held.outstanding -= count
        if held.outstanding <= 0:
            if held.delivery is not None:
                self.acknowledge(held)
            elif held.continues is not None:
                self.on_continued(held)

    def acknowledge(self, held: Held) -> None:
        """Nothing of it is outstanding."""
        assert held.delivery is not None
        self.on_settled(held)
        if not held.custody:
            self._ack(held.delivery)
        self.on_released(held)

    def release(self, held: Held) -> None:
        """Acknowledge it before its work is done: that is in custody now."""
        assert held.delivery is not None
        self._ack(held.delivery)
        self.on_released(held)
