"""How an executor publishes on a cluster: through its agent, which holds the only broker connection of the node."""

from __future__ import annotations

import threading
from typing import Final

from rabbitry_broker.queues.protocol import Needed, OnConfirm
from rabbitry_workers.channel import PUBLISH, BlockingChannel

NEEDED_MOST: Final = 32
"""Messages that are looked at each time something is published."""


class AgentPublisher:
    """A `Publisher` that hands frames to the agent. If the agent dies, this process and its unsent work die with it.

    Messages that matter for a moment are numbered; with the next one the agent hears which of them matter no more. It
    takes the last ones for needed too long: they are sent again for nothing, once.
    """

    def __init__(self, channel: BlockingChannel) -> None:
        self._channel = channel
        self._lock = threading.RLock()  # a `__del__` may publish while we hold it
        self._needed: dict[int, Needed] = {}  # by number
        self._numbered = 0

    def publish(
        self,
        queue: str,
        body: bytes,
        *,
        priority: int = 0,
        on_confirm: OnConfirm | None = None,
        needed: Needed | None = None,
    ) -> None:
        """Hand `body` to the agent."""
        number = 0
        with self._lock:
            over = [each for each, tells in list(self._needed.items()) if not tells()]
            for each in over:
                self._needed.pop(each, None)
            if needed is not None and len(self._needed) < NEEDED_MOST:
                self._numbered += 1
                number = self._numbered
                self._needed[number] = needed
        self._channel.send([PUBLISH, queue, priority, body, number, over])
        if on_confirm is not None:
            on_confirm()

    def flush(self, timeout: float | None = None) -> bool:
        """Nothing is buffered here."""
        return True

    def close(self) -> None:
        """Nothing to let go of."""
