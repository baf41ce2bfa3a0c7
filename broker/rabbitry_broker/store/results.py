"""Results of tasks: how they are committed, and what is left to do for those who wait for them.

HOT PATH (watched by all of `benchmarks/`, for Redis by `benchmarks.commits`); `lua/commit.lua` is the other half.
Most commits need little of it: their owner lives, and nobody else waits. Those are `PlainCommits`, which cost less.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from rabbitry_broker.errors import ConnectionLost, StoreError
from rabbitry_broker.ids import CLIENT_BYTES
from rabbitry_broker.messages import PRIORITIES
from rabbitry_broker.queue_names import parse
from rabbitry_broker.signing import Signer
from rabbitry_broker.store import scripts
from rabbitry_broker.store.aside import Aside
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.redis.script import Argument, Command
from rabbitry_broker.store.server import Connection, Server
from rabbitry_broker.store.specs import Dependant, Specs
from rabbitry_broker.store.tags import Tags

_PRIORITIES = frozenset(b"%d" % each for each in PRIORITIES)

NOT_DURABLE = (b"", b"", b"", b"")
"""(actor key, epoch, state, calls it contains) of a commit that belongs to no durable actor."""
NO_CONTINUATION = (b"", b"", b"")
"""(spec, tag, suffix) of a commit that ends no continuation."""


def _destination(queue: bytes, priority: bytes) -> tuple[str, int]:
    """Return where a parked task goes, and how urgent it is.

    Raises:
        ValueError: that is no queue, or no priority: nobody signs them.
    """
    place = queue.decode("utf-8", "replace")
    parse(place)
    if priority not in _PRIORITIES:
        raise ValueError(f"{priority!r} is no priority")
    return place, int(priority)


OWNER_GONE: Final = -1
"""First of what `Results.commit` returns if it wrote nothing, since the owner is gone."""
_DONE: Final = 0

_FIRST_RESULT: Final = 16  # of what `Results.commit_arguments` returns
_TOGETHER_RESULTS: Final = 6  # from so many on a transaction costs Redis less than a script
_MARK_BYTES: Final = 8


class PlainCommits:
    """The cheap way to commit, on one connection: for results of an owner that lives and that nobody else waits for.

    What it does not do is left to `commit.lua`, which may run after it, and does what is missing.

    Args:
        connection: of the executor.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._few = connection.script(scripts.source_of("commit_plain"))
        self._many = connection.script(scripts.source_of("commit_many"))

    @staticmethod
    def takes(arguments: Sequence[bytes]) -> bool:
        """Return True if that is all that these arguments of `commit.lua` ask for."""
        entry, must_live, actor, preparer, ends = (arguments[at] for at in (2, 4, 6, 10, 13))
        return must_live == b"1" and not (actor or preparer or ends) and entry != b"" and len(arguments) > _FIRST_RESULT

    def commands(self, arguments: Sequence[bytes]) -> list[Command]:
        """Return what to send; one reply is owed for each, see `read`."""
        prefix, tag, entry, ttl = arguments[:4]
        results = arguments[_FIRST_RESULT:]
        if len(results) < 2 * _TOGETHER_RESULTS or ttl != b"0":
            return [self._few.command((), (prefix, tag, entry, ttl, *results))]
        objects = b"%so%s:" % (prefix, tag)
        suffixes = results[::2]
        mark = os.urandom(_MARK_BYTES)
        written: list[Argument] = [b"MSETNX"]
        for suffix, record in zip(suffixes, results[1::2], strict=True):
            written += (objects + suffix, record)
        written += (b"%sz%s" % (prefix, tag), mark)
        rest = self._many.command((), (prefix, tag, entry, mark, b"".join(suffixes)))
        return [(b"MULTI",), tuple(written), rest, (b"EXEC",)]

    def read(self, commands: int) -> bool:
        """Read the replies to so many commands; True if all is done, False if it is for `commit.lua` now.

        Raises:
            ConnectionLost: it is unknown what was done.
        """
        reply: Any = None
        for _ in range(commands):
            try:
                reply = self._connection.read()
            except ConnectionLost:
                raise
            except StoreError:  # commit.lua gets the same answer, unless it is about these commands alone
                reply = None
        if commands > 1 and reply:
            reply = reply[-1]  # of the script, whose own error stands there too
            if isinstance(reply, StoreError):
                self._connection.loaded.clear()  # it was forgotten (SCRIPT FLUSH)
        return bool(reply == _DONE)


class Results:
    """Commits results. Any thread may call anything."""

    def __init__(
        self,
        server: Server,
        keys: Keys,
        tags: Tags,
        signer: Signer,
        aside: Aside,
        specs: Specs,
        *,
        ttl_milliseconds: int,
    ) -> None:
        self._server = server
        self._keys = keys
        self._tags = tags
        self._signer = signer
        self._aside = aside
        self._specs = specs
        self._ttl = str(ttl_milliseconds).encode()
        self._here = b"1" if server.traits.publishes_in_commit else b"0"

    def commit_arguments(
        self,
        owner: bytes,
        items: Sequence[bytes],
        entry: bytes,
        *,
        require_owner: bool,
        durable: tuple[bytes, bytes, bytes, bytes] = NOT_DURABLE,
        preparer: bytes = b"",
        to_run: str = "",
        continuations: bytes = b"",
        ends: tuple[bytes, bytes, bytes] = NO_CONTINUATION,
        publish: bool = True,
    ) -> list[bytes]:
        """Return the arguments of `commit.lua` for results of `owner`'s tasks (id, record, id, record, ...).

        Args:
            owner: whose tasks they are of.
            items: the results.
            entry: what the owner's inbox gets, b"" for nothing.
            require_owner: commit nothing if the owner is gone.
            durable: of the durable actor that made them.
            preparer: the client that prepared them (see `Lives.prepare`), which must be alive; b"" for none.
            to_run: a queue of which one released task is to be handed over instead of being published; "" for none.
            continuations: the key where it is noted then, and where `ends` is.
            ends: (spec, tag, suffix) of the continuation whose result this is.
            publish: on the embedded engine, publish what is released; False to have it returned.
        """
        arguments = [
            self._keys.prefix, self._tags.of(owner), entry, self._ttl, b"1" if require_owner else b"0",
            self._here if publish else b"0", *durable,
            self._keys.client(preparer) if preparer else b"", to_run.encode(), continuations, *ends,
        ]  # fmt: skip
        seal = self._signer.seal
        for at in range(0, len(items), 2):
            object_id = items[at]
            arguments += (object_id[CLIENT_BYTES:], seal(object_id, items[at + 1]))
        return arguments

    def commit(
        self, owner: bytes, items: Sequence[bytes], entry: bytes, *, require_owner: bool, publish: bool = True
    ) -> list[Any]:
        """Commit results; returns what `commit.lua` leaves to do."""
        arguments = self.commit_arguments(owner, items, entry, require_owner=require_owner, publish=publish)
        reply: list[Any] = self._server.script("commit", *arguments)
        return reply

    def dependants(self, owner: bytes, left: Sequence[Any]) -> tuple[list[Dependant], list[tuple[bytes, bytes]]]:
        """Read what `commit` left to do: (specs to publish, (client, suffix) pairs to tell)."""
        publish, tell, *_ = self.left_to_do(owner, left)
        return publish, tell

    def left_to_do(
        self, owner: bytes, left: Sequence[Any]
    ) -> tuple[list[Dependant], list[tuple[bytes, bytes]], list[bytes], Dependant | None]:
        """Read what `commit` left to do.

        Returns:
            (specs to publish, (client, suffix) pairs to tell, ids of the results that found another in their place,
            the task handed over to be run).
        """
        publish: list[Dependant] = []
        tell: list[tuple[bytes, bytes]] = []
        lost: list[bytes] = []
        to_run: Dependant | None = None
        at = 0
        tag = self._tags.of(owner)
        while at < len(left):
            if left[at] == b"c":
                tell.append((left[at + 1], left[at + 2]))
                at += 3
            elif left[at] == b"x":
                lost.append(owner + left[at + 1])
                at += 2
            else:
                kind, spec, frame, queue, priority, suffix = left[at : at + 6]
                at += 6
                try:
                    place, urgency = _destination(queue, priority)
                except ValueError as error:
                    self._aside.put("parked task", frame, str(error))
                    self._specs.launched([(spec, frame, "", 0, tag, suffix)])
                    continue
                dependant = (spec, frame, place, urgency, tag, suffix)
                if kind == b"r":
                    to_run = dependant
                else:
                    publish.append(dependant)
        return publish, tell, lost, to_run
