"""Specs of tasks: those that wait for dependencies, which were started, and how often each was tried."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from rabbitry_broker.ids import CLIENT_BYTES, NODE_BYTES
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.room import Room
from rabbitry_broker.store.server import Server
from rabbitry_broker.store.tags import Tags

PARK_AT_ONCE = 1000  # dependencies in one call of a script: Redis answers nobody else meanwhile
LAUNCHED_AT_ONCE = 1000

Dependant = tuple[bytes, bytes, str, int, bytes, bytes]
"""What one dependant needs to be published: (spec key, frame, queue, priority, tag, suffix of the object)."""


class Specs:
    """Parks specs and keeps marks of tasks. Any thread may call anything."""

    def __init__(self, server: Server, keys: Keys, tags: Tags, room: Room) -> None:
        self._server = server
        self._keys = keys
        self._tags = tags
        self._room = room

    def park(self, specs: Sequence[tuple[bytes, bytes, str, int, Sequence[bytes]]]) -> list[bool]:
        """Keep specs (task id, frame, queue, priority, dependencies) until their dependencies are there.

        Returns:
            True for each spec that waits for nothing: it is not kept, the caller publishes it.
        """
        arguments: list[tuple[Any, ...]] = []
        lasts: list[int] = []
        for task_id, frame, queue, priority, dependencies in specs:
            key = self._keys.spec(task_id)
            pieces = [dependencies[at : at + PARK_AT_ONCE] for at in range(0, len(dependencies), PARK_AT_ONCE)]
            for piece in pieces[:-1]:
                arguments.append((self._keys.prefix, key, b"", queue, priority, b"part", *self._tags.pairs(piece)))
            rest = pieces[-1] if pieces else ()
            slice_ = b"last" if len(pieces) > 1 else b""
            lasts.append(len(arguments))
            arguments.append((self._keys.prefix, key, frame, queue, priority, slice_, *self._tags.pairs(rest)))

        replies = self._room.when_room(lambda: self._server.pipeline_of_scripts([("park", each) for each in arguments]))
        return [replies[at] == 1 for at in lasts]

    def start_once(self, node: bytes, task_ids: Sequence[bytes], token: bytes = b"") -> list[bytes]:
        """Mark tasks of one client, which may run once only, as started by a node.

        Args:
            node: which.
            task_ids: the tasks.
            token: 8 bytes; who calls again after an error, with the same ones, may start what the first call marked.

        Returns:
            For each task: b"" if it may start now, else the node that started it before.
        """
        # The script runs again if its reply is lost: what it marked the first time must not look like an older mark.
        mark = node + (token or secrets.token_bytes(8))
        before = self._server.script(
            "start_once", self._keys.prefix, self._tags.of(task_ids[0][:CLIENT_BYTES]), mark, *task_ids
        )
        return [each[:NODE_BYTES] for each in before]

    def started_by(self, task_id: bytes) -> bytes | None:
        """Return the node that marked a task with `start_once`; None if none did, or it took the mark back."""
        mark = self._server.call(b"HGET", self._keys.starts(task_id[:CLIENT_BYTES]), task_id)
        return None if mark is None else mark[:NODE_BYTES]

    def count_attempts(self, task_ids: Sequence[bytes]) -> list[int]:
        """Count one more attempt of each of these tasks of one client; return the counts."""
        rest = [task_id[CLIENT_BYTES:] for task_id in task_ids]
        counts: list[int] = self._server.script(
            "count_attempts", self._keys.prefix, self._tags.of(task_ids[0][:CLIENT_BYTES]), *rest
        )
        return counts

    def launched(self, dependants: Sequence[Dependant]) -> None:
        """Dependants are on their queues for certain: forget their specs."""
        calls: list[tuple[str, tuple[Any, ...]]] = []
        for at in range(0, len(dependants), LAUNCHED_AT_ONCE):
            arguments: list[bytes] = []
            for spec, _, _, _, tag, suffix in dependants[at : at + LAUNCHED_AT_ONCE]:
                arguments += (tag, suffix, spec)
            calls.append(("launched", (self._keys.prefix, *arguments)))
        self._server.pipeline_of_scripts(calls)
