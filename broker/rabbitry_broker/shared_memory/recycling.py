"""Shared-memory files used again: pages that exist are written three to six times faster than fresh ones.

A process reuses files that it made itself and deletes itself (a driver that puts, uses and drops in a loop). Such a
file moves through these states:

    IN USE  (named by its object, unlocked)   --discard-->  SPARE  (named `free.*`, locked by us alone)
    SPARE                                     --write-->    IN USE of another object
    SPARE                                     --trim-->     gone

What it deletes and another process made goes to the pool of the host (`shared_memory.pool`).

It becomes spare only if we get the exclusive lock, that is, if nobody maps it; otherwise it is unlinked and its
memory goes with the last view. After the first reuse our own mapping is kept too, which saves faulting its pages in
again; whoever else deletes the object empties the file first, so that our mapping keeps no memory in being.
"""

from __future__ import annotations

import fcntl
import itertools
import mmap
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rabbitry_broker.shared_memory.files import unlink
from rabbitry_broker.shared_memory.pool import SMALLEST_BYTES, Pool

# A spare file may be larger than the object by an eighth: it takes what it takes, however little is in it.
_WASTE_SHARE: Final = 8
# Objects remembered as made by us; beyond, the oldest are deleted as if others had made them.
_REMEMBERED: Final = 4096
_POPULATE: Final = getattr(mmap, "MAP_POPULATE", 0)


@dataclass(slots=True)
class _Segment:
    file: int
    capacity: int
    mapping: mmap.mmap | None = None
    name: str = ""
    since: float = 0.0

    def close(self) -> None:
        if self.mapping is not None:
            self.mapping.close()
        os.close(self.file)


class Recycler:
    """The spare files of one process. Any thread may call anything.

    Args:
        start: what the names of the session's files begin with.
        limit_bytes: what spare files, and files in use whose mapping we keep, may take, each; 0 to reuse nothing.
        pool: of the host.
    """

    def __init__(self, start: str, limit_bytes: int, pool: Pool) -> None:
        self._pool = pool
        self._start = start
        self._limit = limit_bytes
        self._lock = threading.Lock()
        self._spare: list[_Segment] = []
        # Objects that we made; with their segment if it is kept mapped.
        self._made: dict[bytes, _Segment | None] = {}
        self._numbers = itertools.count()

    def made(self, object_id: bytes, size: int) -> None:
        """Remember that this process wrote a file for the object, which may be reused once it is deleted."""
        if SMALLEST_BYTES <= size <= self._limit:
            with self._lock:
                self._remember(object_id, None)

    def write(self, size: int, object_id: bytes, path: str, fill: Callable[[mmap.mmap], None]) -> bool:
        """Have `fill` write an object of `size` bytes into a spare file and name it `path`.

        Returns:
            False if there is no spare file of that size; nothing was done then.
        """
        if size < SMALLEST_BYTES or not self._spare:
            return False
        with self._lock:
            fitting = [s for s in self._spare if size <= s.capacity <= size + size // _WASTE_SHARE]
            if not fitting:
                return False
            # One that is mapped already is written at twice the speed.
            segment = max(fitting, key=lambda spare: spare.mapping is not None)
            self._spare.remove(segment)
        try:
            if segment.mapping is None:
                # The last page is whole in memory, whatever the length says.
                os.ftruncate(segment.file, segment.capacity)
                segment.mapping = mmap.mmap(segment.file, segment.capacity, flags=mmap.MAP_SHARED | _POPULATE)
            fill(segment.mapping)
            os.utime(segment.file)  # a mapping that is written says nothing of it
            # Before it gets its name: who opens it by that finds it unlocked.
            fcntl.flock(segment.file, fcntl.LOCK_UN)
            os.rename(segment.name, path)
        except FileNotFoundError:
            # The session was cleared meanwhile.
            segment.close()
            return False
        except BaseException:
            self._destroy(segment)
            raise
        with self._lock:
            self._remember(object_id, segment)
        return True

    def discard(self, object_id: bytes, path: str) -> None:
        """Delete the object at `path`, and keep the file if it is ours and nobody views it."""
        with self._lock:
            ours = object_id in self._made
            segment = self._made.pop(object_id, None)
        if segment is None:
            segment = _adopt(path)
            if segment is None:
                return
        if not _stands_for(path, segment.file):
            # The name may stand for another file by now, if the object was written twice.
            segment.close()
            unlink(path)
            return
        segment.name = path
        try:
            fcntl.flock(segment.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Somebody views it. The memory goes with the last view.
            unlink(path)
            segment.close()
            return
        if not _stands_for(path, segment.file):
            # Another one deleted it between our look and our lock: by now the file may be another object's.
            segment.close()
            return
        if self._keep(segment) if ours else self._pool.offer(segment.file, path, segment.capacity):
            return
        self._destroy(segment)

    def trim(self, max_age: float) -> None:
        """Delete the spare files that are older than `max_age` seconds, and let go of what others have deleted."""
        if not self._spare and not self._made:
            return
        oldest = time.monotonic() - max_age
        with self._lock:
            old = [segment for segment in self._spare if segment.since <= oldest]
            self._spare = [segment for segment in self._spare if segment.since > oldest]
            dead = [key for key, kept in self._made.items() if kept is not None and not os.fstat(kept.file).st_nlink]
            nameless = [self._made.pop(key) for key in dead]
        for segment in old:
            self._destroy(segment)
        for gone in nameless:
            if gone is not None:
                gone.close()

    def close(self) -> None:
        """Delete all spare files and let go of all mappings."""
        with self._lock:
            spare, self._spare = self._spare, []
            made, self._made = self._made, {}
        for segment in spare:
            self._destroy(segment)
        for kept in made.values():
            if kept is not None:
                kept.close()

    def abandon(self) -> None:
        """Let go of everything without touching the files: they belong to the process that forked us."""
        for segment in [*self._spare, *self._made.values()]:
            if segment is not None:
                segment.close()
        self._spare, self._made = [], {}

    def _remember(self, object_id: bytes, segment: _Segment | None) -> None:
        before = self._made.pop(object_id, None)
        if before is not None:
            before.close()
        self._made[object_id] = segment
        kept = sum(other.capacity for other in self._made.values() if other is not None) if segment else 0
        if kept > self._limit:
            for key, other in self._made.items():
                if other is not None and key != object_id:
                    other.close()
                    self._made[key] = None
                    kept -= other.capacity
                    if kept <= self._limit:
                        break
        if len(self._made) > _REMEMBERED:
            oldest = self._made.pop(next(iter(self._made)))
            if oldest is not None:
                oldest.close()

    def _keep(self, segment: _Segment) -> bool:
        """Make a locked file spare; False if there are enough."""
        with self._lock:
            if sum(spare.capacity for spare in self._spare) + segment.capacity > self._limit:
                return False
            name = f"{self._start}free.{os.getpid()}.{next(self._numbers)}"
            try:
                os.rename(segment.name, name)
            except FileNotFoundError:
                return False
            segment.name = name
            segment.since = time.monotonic()
            self._spare.append(segment)
            return True

    @staticmethod
    def _destroy(segment: _Segment) -> None:
        """Unlink a file that we hold the exclusive lock of; emptied first, since its maker may still have it mapped."""
        if segment.mapping is not None:
            segment.mapping.close()
            segment.mapping = None
        os.ftruncate(segment.file, 0)
        unlink(segment.name)
        segment.close()


def _adopt(path: str) -> _Segment | None:
    """Open the file at `path`; None if it is small (it is deleted then) or not there."""
    try:
        if os.lstat(path).st_size < SMALLEST_BYTES:
            os.unlink(path)
            return None
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, PermissionError):
        return None
    pages = -(-os.fstat(file).st_size // mmap.PAGESIZE)
    return _Segment(file, pages * mmap.PAGESIZE)


def _stands_for(path: str, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(file))
    except FileNotFoundError:
        return False
