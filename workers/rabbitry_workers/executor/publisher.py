"""How an executor publishes: through its agent, which knows what of it need not go to a queue at all.

On a cluster the agent holds the only broker connection of the node, and gets all of it. On the embedded engine tasks go
to their queues from here, without that detour.
"""

from __future__ import annotations

from rabbitry_broker.queue_names import is_exclusive
from rabbitry_broker.queues.protocol import OnConfirm, Publisher
from rabbitry_workers.channel import PUBLISH, BlockingChannel


class AgentPublisher:
    """A `Publisher` that hands frames to the agent. If the agent dies, this process and its unsent work die with it."""

    def __init__(self, channel: BlockingChannel) -> None:
        self._channel = channel

    def publish(self, queue: str, body: bytes, *, priority: int = 0, on_confirm: OnConfirm | None = None) -> None:
        """Hand `body` to the agent."""
        self._channel.send([PUBLISH, queue, priority, body])
        if on_confirm is not None:
            on_confirm()

    def flush(self, timeout: float | None = None) -> bool:
        """Nothing is buffered here."""
        return True

    def close(self) -> None:
        """Nothing to let go of."""


class CallsByAgent:
    """A `Publisher` that hands calls to actors to the agent, and all else to another publisher.

    Args:
        agent: gets the calls.
        queues: gets the rest.
    """

    def __init__(self, agent: Publisher, queues: Publisher) -> None:
        self._agent = agent
        self._queues = queues

    def publish(self, queue: str, body: bytes, *, priority: int = 0, on_confirm: OnConfirm | None = None) -> None:
        """Send `body`, one way or the other."""
        publisher = self._agent if is_exclusive(queue) else self._queues
        publisher.publish(queue, body, priority=priority, on_confirm=on_confirm)

    def flush(self, timeout: float | None = None) -> bool:
        """See `Publisher.flush`."""
        return self._queues.flush(timeout)

    def close(self) -> None:
        """See `Publisher.close`."""
        self._queues.close()
