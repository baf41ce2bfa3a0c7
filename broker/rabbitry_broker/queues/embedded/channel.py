"""A connection to Redis whose replies arrive on a loop, in the order of the commands."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from rabbitry_broker.errors import ConnectionLost, StoreError
from rabbitry_broker.loop import Loop
from rabbitry_broker.store.redis.connection import Connection
from rabbitry_broker.store.redis.script import Argument, Command, Script

OnReply = Callable[[Any], object]

logger = logging.getLogger("rabbitry.queues")


class Channel:
    """Commands without waiting: each reply (a `StoreError`, if the server refused) goes to the callback of its command.

    Lives on the loop: methods are called, and callbacks run, by whoever holds its lock. When the connection breaks,
    callbacks that wait are dropped and `on_lost` runs once, from the loop.
    """

    def __init__(self, loop: Loop, url: str, name: str, on_lost: Callable[[], object]) -> None:
        self._loop = loop
        self._url = url
        self._name = name
        self._on_lost = on_lost
        self._waiting: deque[OnReply | None] = deque()
        self._fd = -1
        self.connection: Connection | None = None
        self.client_id = 0

    def open(self, timeout: float) -> None:
        """Connect, which blocks.

        Raises:
            ConnectError: see `Connection.open`.
        """
        connection = Connection.open(self._url, timeout=timeout, name=self._name)
        self.client_id = connection.call("CLIENT", "ID")
        self._waiting.clear()
        self._fd = connection.fileno()
        self._loop.add_handler(self._fd, self._on_readable, self._loop.READ)
        self.connection = connection

    def close(self) -> None:
        """Disconnect; callbacks that wait are dropped. May be called again."""
        connection, self.connection = self.connection, None
        self._waiting.clear()
        if connection is not None:
            self._loop.remove_handler(self._fd)
            connection.close()

    def send(self, command: Command, on_reply: OnReply | None = None) -> None:
        """Send a command. Without a callback, an error reply is logged. Nothing happens while disconnected."""
        connection = self.connection
        if connection is None:
            return
        self._waiting.append(on_reply)
        try:
            connection.send(*command)
        except ConnectionLost:
            self._lost()

    def send_many(self, commands: Sequence[Command], on_reply: OnReply | None = None) -> None:
        """Send commands in one write; the callback gets the reply of each."""
        connection = self.connection
        if connection is None:
            return
        self._waiting.extend([on_reply] * len(commands))
        try:
            connection.send_many(commands)
        except ConnectionLost:
            self._lost()

    def script(self, source: str) -> Script | None:
        """Return the script bound to the present connection; None while disconnected."""
        return None if self.connection is None else self.connection.script(source)

    def run(self, source: str, args: Sequence[Argument], on_reply: OnReply | None = None) -> None:
        """Run a script (all of its arguments in ARGV)."""
        script = self.script(source)
        if script is None:
            return

        def answered(reply: Any) -> None:
            if reply.__class__ is StoreError and str(reply).startswith("NOSCRIPT"):
                self.send((b"EVAL", source, 0, *args), on_reply)  # SCRIPT FLUSH; it has not run.
            elif on_reply is not None:
                on_reply(reply)
            elif reply.__class__ is StoreError:
                logger.warning("Redis refused a script: %s", reply)

        self.send(script.command((), args), answered)

    def _on_readable(self, _fd: int, _events: int) -> None:
        connection = self.connection
        if connection is None:
            return
        try:
            replies = connection.poll()
        except ConnectionLost:
            self._lost()
            return
        for reply in replies:
            on_reply = self._waiting.popleft()
            if on_reply is not None:
                try:
                    on_reply(reply)
                except Exception:
                    logger.exception("the callback of a reply failed")
                if self.connection is not connection:
                    return  # Closed by the callback.
            elif reply.__class__ is StoreError:
                logger.warning("Redis refused a command: %s", reply)

    def _lost(self) -> None:
        if self.connection is not None:
            self.close()
            # Not at once: the caller may be in the middle of something.
            self._loop.add_callback(self._on_lost)
