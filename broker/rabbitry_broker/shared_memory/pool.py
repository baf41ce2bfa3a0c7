"""Shared-memory files of deleted objects, for the next object that any process of the host makes.

Pages that exist are written three times as fast as fresh ones. A process keeps what it both made and deleted for itself
(`shared_memory.recycling`); what others made goes through here: results that a node's sweep deletes, copies of values
of other hosts, what a driver drops that its tasks made.

    an object's file --offer (nobody maps it)--> POOL (`pool.{capacity}.{n}`) --take--> being written --> an object's
                                                  '--trim, too old--> gone

Who holds the exclusive lock of such a file may take or delete it. It gets another name while it is locked, before it is
written: nobody may find it in the pool when its writer has unlocked it. What a killed writer leaves is an orphan
(`SharedMemoryStore.remove_orphans`).
"""

from __future__ import annotations

import fcntl
import itertools
import os
import threading
import time
from typing import Final

SMALLEST_BYTES: Final = 1 << 20
"""Below this a fresh file costs less than the search for an old one."""

KEPT_SECONDS: Final = 5.0
"""How long a file waits to be used again: longer than between two sweeps."""

_MARK: Final = "pool."
_WASTE_SHARE: Final = 8  # a file may be larger than the object by an eighth
_LOOK_SECONDS: Final = 0.01  # between two looks at the directory, by one process


def capacity_in(name: str) -> int | None:
    """Return the capacity of a pool's file, by what follows the session in its name; None for any other file."""
    if not name.startswith(_MARK):
        return None
    digits = name.split(".", 2)[1]
    return int(digits) if digits.isdigit() else None


class Pool:
    """The pool of one host, as one process sees it. Any thread may call anything.

    Args:
        start: what the names of the session's files begin with.
        limit_bytes: what it may hold; 0 for nothing.
    """

    def __init__(self, start: str, limit_bytes: int) -> None:
        self._directory, self._prefix = os.path.split(start)
        self._limit = limit_bytes
        self._numbers = itertools.count()
        self._known: dict[str, int] = {}
        self._looked_at = 0.0
        self.forget_in_child()

    def forget_in_child(self) -> None:
        """Start anew in a forked child, where another thread may have held the lock."""
        self._lock = threading.Lock()

    def offer(self, file: int, path: str, capacity: int) -> bool:
        """Take in the file at `path`, whose exclusive lock the caller holds by `file`; False if there is no room."""
        if capacity < SMALLEST_BYTES:
            return False
        with self._lock:
            self._look()
            if sum(self._known.values()) + capacity > self._limit:
                return False
            name = f"{_MARK}{capacity}.{os.getpid()}.{next(self._numbers)}"
            try:
                os.rename(path, self._path(name))
            except FileNotFoundError:
                return False
            self._known[name] = capacity
        os.close(file)
        return True

    def take(self, size: int, path: str) -> int | None:
        """Return the descriptor, exclusively locked, of a file that fits and is at `path` now; None if there is none.

        Args:
            size: bytes that are to be written.
            path: where it is to be, in the same directory.
        """
        if size < SMALLEST_BYTES or not self._limit:
            return None
        with self._lock:
            while True:
                fitting = [name for name, held in self._known.items() if size <= held <= size + size // _WASTE_SHARE]
                if not fitting:
                    if not self._look():
                        return None
                    continue
                name = fitting[0]
                del self._known[name]
                file = self._locked(self._path(name))
                if file is not None:
                    try:
                        os.rename(self._path(name), path)
                    except FileNotFoundError:
                        os.close(file)  # the session was cleared
                        return None
                    return file

    def trim(self, max_age: float) -> int:
        """Delete files that have waited for longer than `max_age` seconds; return how many bytes they had."""
        freed = 0
        with self._lock:
            self._look(now=True)
            for name, capacity in list(self._known.items()):
                path = self._path(name)
                try:
                    if time.time() - os.stat(path, follow_symlinks=False).st_ctime < max_age:
                        continue
                except FileNotFoundError:
                    del self._known[name]
                    continue
                file = self._locked(path)
                if file is not None:
                    os.ftruncate(file, 0)  # mappings that nothing views keep no memory in being
                    os.unlink(path)
                    os.close(file)
                    freed += capacity
                del self._known[name]
        return freed

    def _look(self, *, now: bool = False) -> bool:
        """Read which files there are, unless that was done just now; False then."""
        at = time.monotonic()
        if not now and at - self._looked_at < _LOOK_SECONDS:
            return False
        self._looked_at = at
        found = {}
        for name in os.listdir(self._directory):
            if name.startswith(self._prefix):
                capacity = capacity_in(name[len(self._prefix) :])
                if capacity is not None:
                    found[name[len(self._prefix) :]] = capacity
        self._known = found
        return True

    def _locked(self, path: str) -> int | None:
        """Open a file and lock it exclusively; None if another one did, or it is gone."""
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False)):
                return file
        except (BlockingIOError, FileNotFoundError):
            os.close(file)
            return None
        os.close(file)
        return None

    def _path(self, name: str) -> str:
        return f"{self._directory}/{self._prefix}{name}"
