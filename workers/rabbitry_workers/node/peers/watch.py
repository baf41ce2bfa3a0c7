"""The node's ear: Redis channels on which new queues and control messages are announced.

Announcements may be lost (a broken connection); so every `RESCAN_SECONDS` the set of queues is read again if it may
have changed: there are more or less of them than were read, the connection was opened again, what this node can serve
or who is there has changed. And now and then in any case.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable
from typing import Final, Protocol

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.store.server import Connection
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.peers.names import connection_name

log = logging.getLogger("rabbitry.node")

RESCAN_SECONDS: Final = 2.0
RESCAN_ALL_SECONDS: Final = 10.0
RESCAN_SECONDS_A_QUEUE: Final = 0.01  # what a node reads each second must not grow with their number
AGAIN_SECONDS: Final = 0.1  # until a broken connection is opened again


class Considers(Protocol):
    """Takes work from queues that it can serve."""

    def consider(self, queue: str, *, announced: bool = True, prioritized: bool = False) -> None:
        """Consume a queue if this node can serve it."""

    def tidy(self, announced: Collection[bytes] | None) -> None:
        """All queues on record were seen; None: it is known that they are those of the last time."""


class ControlWatch:
    """Service on the agent's loop.

    Args:
        node: which listens.
        sources: hear of queues.
        on_control: hears each control message.
        on_listening: called when control messages are heard from now on; those before may have been missed.
    """

    def __init__(
        self,
        node: Node,
        sources: Considers,
        on_control: Callable[[bytes], None],
        on_listening: Callable[[], object],
    ) -> None:
        self._node = node
        self._sources = sources
        self._on_control = on_control
        self._on_listening = on_listening
        self._connection: Connection | None = None
        self._fd = -1
        self._is_stale = True
        self._read_at = 0.0
        self._counts = (-1, -1)

    def start(self) -> None:
        """Listen from now on."""
        self._listen()
        self._node.periodic.every(RESCAN_SECONDS, self.run_once)

    def _listen(self) -> None:
        node = self._node
        connection = node.store.open_connection(connection_name(node.id).removeprefix("rabbitry-"))
        connection.send(b"SUBSCRIBE", node.keys.queues_channel, node.keys.control_channel)
        self._connection = connection
        self._fd = connection.fileno()
        self._is_stale = True  # what was announced meanwhile was not heard
        node.loop.add_handler(self._fd, self._on_event, node.loop.READ)

    def _listen_again(self) -> None:
        """Soon, and not with the next rescan: until then nobody here hears of calls to cancel and actors to kill."""
        if self._connection is not None:
            return
        try:
            self.run_once()
        except RabbitryBrokerError:
            self._node.loop.call_later(AGAIN_SECONDS, self._listen_again)

    def _on_event(self, fd: int, events: int) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            messages = connection.poll()
        except RabbitryBrokerError as error:
            log.warning("the connection for announcements broke: %s", error)
            self._node.loop.remove_handler(fd)
            self._connection = None
            self._node.loop.call_later(AGAIN_SECONDS, self._listen_again)
            return
        queues: list[bytes] = []
        for message in messages:
            if isinstance(message, list) and message[:2] == [b"subscribe", self._node.keys.control_channel]:
                self._on_listening()
            elif isinstance(message, list) and message[0] == b"message":
                if message[1] == self._node.keys.queues_channel:
                    queues.append(message[2])
                else:
                    self._take(message[2])
        if queues:
            prioritized = self._node.store.call(b"SMEMBERS", self._node.keys.prioritized)
            self._consider(queues, prioritized, announced=True)

    def _take(self, message: bytes) -> None:
        try:
            self._on_control(message)
        except Exception:
            # Those behind it have been read, too, and come only once.
            log.exception("acting on a control message failed")

    def look_soon(self) -> None:
        """The node can serve queues that it could not serve before: look for them now, not with the next rescan."""
        self._node.loop.call_later(0.0, self._look)

    def _look(self) -> None:
        self._is_stale = True
        try:
            self.run_once()
        except RabbitryBrokerError as error:
            log.info("cannot look for queues now, but soon again: %s", error)

    def look_again(self) -> None:
        """What is there may concern this node in another way than before: read it with the next look."""
        self._is_stale = True

    def told(self, counts: tuple[int, int]) -> None:
        """So many queues are on record, and so many of them have priorities."""
        if counts != self._counts:
            self._is_stale = True

    def run_once(self) -> None:
        """Look for queues whose announcement was missed; listen again if the connection broke."""
        if self._connection is None:
            self._listen()
        now = time.monotonic()
        trusted = self._node.store.trusts_leases(self._node.config.lease)
        least = max(RESCAN_ALL_SECONDS, RESCAN_SECONDS_A_QUEUE * self._counts[0])
        if not self._is_stale and trusted and now - self._read_at < least:
            self._sources.tidy(None)
            return
        keys = self._node.keys
        queues, prioritized = self._node.store.pipeline([(b"SMEMBERS", keys.queues), (b"SMEMBERS", keys.prioritized)])
        self._counts, self._read_at = (len(queues), len(prioritized)), now
        self._is_stale = not trusted  # nobody's queue counts as abandoned now
        self._consider(queues, prioritized, announced=False)
        self._sources.tidy(queues)

    def _consider(self, queues: Iterable[bytes], prioritized: Collection[bytes], *, announced: bool) -> None:
        for queue in dict.fromkeys(queues):
            self._sources.consider(
                queue.decode("utf-8", "replace"), announced=announced, prioritized=queue in prioritized
            )
