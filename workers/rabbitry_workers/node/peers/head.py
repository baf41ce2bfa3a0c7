"""Which node has the resource `node:__internal_head__`: the first of the cluster, and another when that is gone.

No node is more than another here. Programs written for Ray ask for a small part of that resource to have something run
in one place that is the same for all, so exactly one node has it at a time:

    none --claim, nobody has it--> holds --lease not renewed, draining, goodbye--> none

What counts is the key `head` in Redis: the node's id, for as long as a node's lease. It is claimed and renewed along
with each sign of life, in the same round trip. A node that was silent for longer than its lease may find that another
has it: it has it no more from then on; what runs keeps what it was given, what waits goes back to its queue.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from rabbitry_broker.resources import HEAD, UNITS
from rabbitry_broker.store.nodes import Holder
from rabbitry_workers.node.model.ledger import Ledger
from rabbitry_workers.node.model.node import Node

log = logging.getLogger("rabbitry.node")

_FOR_EVER: Final = -1  # what PTTL says of a key without an end


class Head:
    """This node's claim. Loop thread only.

    Args:
        node: which claims it.
        ledger: gets the resource, and loses it.

    Attributes:
        holds: this node has it.
        on_change: called when that changed.
    """

    def __init__(self, node: Node, ledger: Ledger) -> None:
        self._node = node
        self._ledger = ledger
        self._key = node.keys.head
        self.holds = False
        self.on_change: Callable[[], None] = lambda: None

    def totals(self) -> dict[str, float]:
        """Return what the node has in all now."""
        return self._ledger.totals.to_floats()

    def claims(self, *, leaving: bool) -> bool | None:
        """Return what a sign of life says of the claim; `read` takes what that brings.

        Args:
            leaving: the node takes no more work: it gives the resource up.

        Returns:
            True to claim it or keep it, False to give it up, None for neither.
        """
        if not leaving:
            return True
        return False if self.holds else None

    def read(self, holder: Holder) -> bool:
        """Take in who has it; True if what the node has in all is different now."""
        if holder.left == _FOR_EVER and holder.node != self._node.id:
            log.warning("%s would not end: somebody else wrote it", self._key.decode("utf-8", "replace"))
            self._node.store.call(b"UNLINK", self._key)
        return self._set(holds=holder.node == self._node.id)

    def _set(self, *, holds: bool) -> bool:
        if holds == self.holds:
            return False
        self.holds = holds
        self._ledger.set_total(HEAD, UNITS if holds else 0)
        self.on_change()
        return True
