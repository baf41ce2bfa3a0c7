"""What becomes of files that no record needs: left by killed writers, deleted by others, expired."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Final

from rabbitry_broker import records
from rabbitry_broker.ids import OBJECT_BYTES
from rabbitry_broker.shared_memory import sweep_dead_sessions
from rabbitry_broker.signing import SIGNATURE_BYTES
from rabbitry_broker.store import spill
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.large.places import Places
from rabbitry_broker.store.large.tokens import NAME_BYTES, is_copy, original, writer_lives
from rabbitry_broker.store.server import Server

_FILES_A_SWEEP: Final = 500
_SESSIONS_SWEPT_SECONDS: Final = 60.0
# Where in a sealed record the token of a large value ends.
_HEAD_END: Final = SIGNATURE_BYTES + records.TOKEN_BYTES
# An unrecorded file of a living process is being committed; after so long it is not.
_ORPHAN_SECONDS: Final = 300.0


class Sweeping:
    """Deletes files of this host that no record needs. For agents: one thread at a time.

    Args:
        server: Redis, which has the records.
        keys: of the cluster.
        places: where values may be.
    """

    def __init__(self, server: Server, keys: Keys, places: Places) -> None:
        self._server = server
        self._keys = keys
        self._places = places
        self._swept = ""
        self._recorded: set[bytes] = set()  # files that had a record when `sweep` looked last
        self._sessions_swept_at = time.monotonic()

    def sweep(self) -> int:
        """Delete files of this host that no record needs; return how many. For agents, every few seconds.

        These are what killed writers left, copies of objects that were deleted elsewhere, and what expired. At most
        500 files are looked at; the next call goes on from there.
        """
        removed = 0
        memory = self._places.memory
        if memory is not None:
            memory.remove_orphans()
            if time.monotonic() >= self._sessions_swept_at + _SESSIONS_SWEPT_SECONDS:
                # Where one node runs for weeks, no other session starts that would do it.
                self._sessions_swept_at = time.monotonic()
                sweep_dead_sessions(memory.directory)
            names = memory.names()
            self._recorded.intersection_update(names)
            removed += self._sweep(names, memory.age, memory.delete, memory.is_settled)
        if self._places.spill is not None:
            removed += self._sweep_spill(self._places.spill)
        return removed

    def _sweep(
        self,
        names: list[bytes],
        age: Callable[[bytes], float],
        delete: Callable[[list[bytes]], None],
        is_settled: Callable[[bytes], bool] = lambda name: False,
    ) -> int:
        names = [name for name in names if len(name) == NAME_BYTES]
        if len(names) > _FILES_A_SWEEP:
            names.sort()
            after = [name for name in names if name.hex() > self._swept]
            names = (after or names)[:_FILES_A_SWEEP]
            self._swept = names[-1].hex()
        # Looked at before the records: what is settled in between is on record.
        settled = {name for name in names if is_settled(name)}
        recorded = self.recorded(names)
        doomed = [
            name
            for name in names
            if name not in recorded
            and (
                name in settled  # it was deleted, by another host
                or name in self._recorded  # the same
                or is_copy(name)
                or not writer_lives(name)
                or age(name) > _ORPHAN_SECONDS
            )
        ]
        delete(doomed)
        self._recorded.difference_update(names)
        self._recorded |= recorded
        return len(doomed)

    def _sweep_spill(self, place: spill.Spill) -> int:
        names = []
        for text in place.names():
            try:
                names.append(bytes.fromhex(text))
            except ValueError:
                continue  # being written
        paths = {name: place.url_of(name.hex()) for name in names}

        def age(name: bytes) -> float:
            try:
                return time.time() - os.stat(paths[name]).st_ctime
            except OSError:
                return 0.0

        def delete(doomed: list[bytes]) -> None:
            for name in doomed:
                spill.delete(paths[name])

        return self._sweep(names, age, delete)

    def recorded(self, names: Sequence[bytes]) -> set[bytes]:
        """Return those names (object id and token) of buffers that the records of their objects describe."""
        heads = self._server.pipeline(
            [(b"GETRANGE", self._keys.object(name[:OBJECT_BYTES]), SIGNATURE_BYTES, _HEAD_END) for name in names]
        )
        return {
            name
            for name, head in zip(names, heads, strict=True)
            if head == records.LARGE + original(name[OBJECT_BYTES:])
        }
