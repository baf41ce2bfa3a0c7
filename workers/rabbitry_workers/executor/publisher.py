"""How an executor publishes on a cluster: through its agent, which holds the only broker connection of the node."""

from __future__ import annotations

from rabbitry_broker.queues.protocol import OnConfirm
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
