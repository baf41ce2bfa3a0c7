"""One queue that a node takes work from; which, and how much of each, is up to `node.intake.sources`."""

from __future__ import annotations

import time
from typing import Final

from rabbitry_broker.queue_names import ANY_BUNDLE, QueueKind, QueueName
from rabbitry_broker.resources import ResourceRequest

ORPHAN_SECONDS: Final = 60.0  # that the queue of a node that is gone is looked after, since its last message


class Source:
    """One queue that this node can serve.

    Attributes:
        queue: its name.
        place: what the name says.
        request: what its tasks need; None for the queues of a node or bundle, where all kinds meet.
        open: False while it is paused.
        window: messages that may be outstanding.
        outstanding: messages that are.
        filled: the window was used up since it was set.
        prioritized: tasks with priorities use it, so that it matters which of them come first.
        foreign: the queue of another node, or of a placement group, which is gone; see `affinity` and `inside`.
        taken_at: when its last message came.
        told_at: what was put down of that last.
    """

    __slots__ = (
        "filled",
        "foreign",
        "open",
        "outstanding",
        "place",
        "prioritized",
        "queue",
        "request",
        "taken_at",
        "told_at",
        "window",
    )

    def __init__(self, queue: str, place: QueueName, window: int) -> None:
        self.queue = queue
        self.place = place
        self.request = ResourceRequest.parse(place.resource_class) if place.kind is QueueKind.TASK else None
        self.open = True
        self.window = window
        self.outstanding = 0
        self.filled = False
        self.prioritized = False
        self.foreign = False
        self.taken_at = time.monotonic()
        self.told_at = float("-inf")

    @property
    def is_shared(self) -> bool:
        """True if other nodes may take from it as well: this one takes no more of it than it can start."""
        return self.request is not None or (
            self.place.kind is QueueKind.BUNDLE and self.place.bundle_index == ANY_BUNDLE
        )

    def has(self, lane_class: str) -> bool:
        """True if what waits in a lane may come from here; by the first part of the lane's key."""
        if self.place.kind is QueueKind.BUNDLE:
            return lane_class.endswith(f" {self.queue}")
        return self.request is not None and self.place.resource_class == lane_class
