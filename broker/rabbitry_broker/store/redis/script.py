"""A Lua script as something to call: its source goes to the server once a connection, its digest afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from rabbitry_broker.errors import StoreError

Argument = bytes | str | int | float | memoryview
Command = tuple[Argument, ...]

# Source of every script made in this process, by digest: what NOSCRIPT is answered with.
SOURCES: Final[dict[bytes, str]] = {}


def with_source(command: Command) -> Command:
    """Return the command that sends a script with its source, for one that sent its digest."""
    digest = command[1]
    assert isinstance(digest, bytes)  # Only called for commands that Script made.
    return (b"EVAL", SOURCES[digest], *command[2:])


class RunsScripts(Protocol):
    """What a script needs of its connection.

    Attributes:
        anchor: the key that goes along in a Redis Cluster.
        loaded: digests of the scripts whose source has crossed the wire.
    """

    anchor: tuple[bytes, ...]
    loaded: set[bytes]

    def call(self, *args: Argument) -> Any:
        """Send one command and return its reply."""


class Script:
    """A Lua script on one connection: its source crosses the wire once a connection, its digest afterwards."""

    __slots__ = ("connection", "digest", "source")

    def __init__(self, connection: RunsScripts, source: str) -> None:
        self.connection = connection
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest().encode()
        SOURCES[self.digest] = source

    def command(self, keys: Sequence[Argument] = (), args: Iterable[Argument] = ()) -> Command:
        """Return the command that runs the script, for `pipeline` and `send`.

        The first one on a connection carries the source (so that a pipeline keeps its order); send what you ask for.
        In a Redis Cluster the connection's anchor goes along as the key: a server that does not serve its slot, or is
        about to give it away, refuses before the script runs, and not in the middle of it.
        """
        keys = keys or self.connection.anchor
        loaded = self.connection.loaded
        if self.digest in loaded:
            return (b"EVALSHA", self.digest, len(keys), *keys, *args)
        loaded.add(self.digest)
        return (b"EVAL", self.source, len(keys), *keys, *args)

    def __call__(self, keys: Sequence[Argument] = (), args: Iterable[Argument] = ()) -> Any:
        """Run the script and return its reply.

        Raises:
            StoreError: as `Connection.call`; also errors that the script itself raises.
        """
        command = self.command(keys, args)
        try:
            return self.connection.call(*command)
        except StoreError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        # The server forgot it (SCRIPT FLUSH). Nothing has run, so it may be repeated.
        return self.connection.call(*with_source(command))
