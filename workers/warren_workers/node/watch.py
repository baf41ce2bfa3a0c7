"""The node's ear: Redis channels on which new queues and control messages are announced.

Announcements may be lost (a broken connection); so the set of queues is read again every `RESCAN_SECONDS`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from warren_broker.errors import WarrenBrokerError
from warren_broker.store.connection import Connection
from warren_workers.node.periodic import every

if TYPE_CHECKING:
    from warren_workers.node.agent import Agent

log = logging.getLogger("warren.node")

RESCAN_SECONDS = 2.0
AGAIN_SECONDS = 0.1  # until a broken connection is opened again


def connection_name(node_id: bytes) -> str:
    """Return the name under which Redis lists this connection of a node; others see by it that the node is there."""
    return f"warren-watch-{node_id.hex()}"


class ControlWatch:
    """Service on the agent's loop."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._connection: Connection | None = None
        self._fd = -1

    def start(self) -> None:
        """Listen from now on."""
        self._listen()
        every(self._agent, RESCAN_SECONDS, self.run_once)

    def _listen(self) -> None:
        agent = self._agent
        connection = agent.store.open_connection(connection_name(agent.node_id).removeprefix("warren-"))
        connection.send(b"SUBSCRIBE", agent.keys.queues_channel, agent.keys.control_channel)
        self._connection = connection
        self._fd = connection.fileno()
        agent.loop.add_handler(self._fd, self._on_event, agent.loop.READ)

    def _listen_again(self) -> None:
        """Soon, and not with the next rescan: until then nobody here hears of calls to cancel and actors to kill."""
        if self._connection is not None:
            return
        try:
            self.run_once()
        except WarrenBrokerError:
            self._agent.loop.call_later(AGAIN_SECONDS, self._listen_again)

    def _on_event(self, fd: int, events: int) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            messages = connection.poll()
        except WarrenBrokerError as error:
            log.warning("the connection for announcements broke: %s", error)
            self._agent.loop.remove_handler(fd)
            self._connection = None
            self._agent.loop.call_later(AGAIN_SECONDS, self._listen_again)
            return
        queues: list[bytes] = []
        for message in messages:
            if isinstance(message, list) and message[0] == b"message":
                if message[1] == self._agent.keys.queues_channel:
                    queues.append(message[2])
                else:
                    self._take(message[2])
        if queues:
            agent = self._agent
            self._consider(queues, agent.store.call(b"SMEMBERS", agent.keys.prioritized), announced=True)

    def _take(self, message: bytes) -> None:
        try:
            self._agent.on_control(message)
        except Exception:
            # Those behind it have been read, too, and come only once.
            log.exception("acting on a control message failed")

    def run_once(self) -> None:
        """Look for queues whose announcement was missed; listen again if the connection broke."""
        if self._connection is None:
            self._listen()
        keys = self._agent.keys
        queues, prioritized = self._agent.store.pipeline([(b"SMEMBERS", keys.queues), (b"SMEMBERS", keys.prioritized)])
        self._consider(queues, prioritized, announced=False)
        self._agent.sources.tidy()

    def _consider(self, queues: Iterable[bytes], prioritized: Collection[bytes], *, announced: bool) -> None:
        for queue in dict.fromkeys(queues):
            self._agent.sources.consider(
                queue.decode("utf-8", "replace"), announced=announced, prioritized=queue in prioritized
            )
