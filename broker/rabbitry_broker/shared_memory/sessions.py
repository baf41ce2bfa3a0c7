"""Who takes part in a session of shared memory, and what becomes of its files when nobody does any more.

`rabbitry-{session}-lock` is locked, shared, by every process that takes part; if nobody holds it the session is dead,
and the last to leave deletes the session's files. What killed processes leave (the lock file as well), the next
session's start deletes, of whatever session it is; so it does with files that have no lock file any more.

`rabbitry-{session}-keeper` is locked by the one process that looks after the session's objects (see `Session.keep`).
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from typing import Final

from rabbitry_broker.shared_memory.files import is_orphan, unlink

_NAME: Final = "rabbitry-"
LOCK: Final = "lock"
_KEEPER: Final = "keeper"


class Session:
    """One process's part in a session. Any thread may call anything.

    Args:
        directory: where the files are.
        session_id: of the session.

    Attributes:
        start: what the paths of all files of the session begin with.
    """

    def __init__(self, directory: str, session_id: str) -> None:
        self._directory = directory
        self.start = f"{directory}/{_NAME}{session_id}-"
        self._lock: int | None = None
        self._keeper: int | None = None

    def join(self) -> None:
        """Take part: lock the session's lock file, and clear up after dead sessions if we are the first of ours."""
        path = self.start + LOCK
        while self._lock is None:
            first = not os.path.exists(path)
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(lock, fcntl.LOCK_SH)
            try:
                same = os.path.samestat(os.fstat(lock), os.stat(path))
            except FileNotFoundError:
                same = False
            if not same:
                # Swept away between opening and locking.
                os.close(lock)
                continue
            self._lock = lock
            if first:
                sweep_dead_sessions(self._directory)

    def leave(self) -> None:
        """Take part no more; whoever leaves last deletes the session's files. May be called twice."""
        self.stop_keeping()
        lock, self._lock = self._lock, None
        if lock is not None:
            _sweep(self.start, lock)
            os.close(lock)

    def keep(self) -> bool:
        """Look after the session's objects until this process ends or says not to; False if another one does.

        All processes of the session see that (`is_kept`). May be called again, to find out or to take over. One that
        just looks may be in the way for a moment: call it again later.
        """
        if self._keeper is not None:
            return True
        file = os.open(self.start + _KEEPER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._keeper = file
        return True

    def stop_keeping(self) -> None:
        """Take back what `keep` said. May be called twice."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            os.close(keeper)

    def is_kept(self) -> bool:
        """True if a process looks after the session's objects (see `keep`). HOT PATH: three system calls."""
        # Shared, so that those who look are not in each other's way.
        if self._keeper is not None:
            return True
        try:
            file = os.open(self.start + _KEEPER, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False

    def files(self) -> Iterator[os.DirEntry[str]]:
        """Yield the session's files, its lock file as well."""
        start = os.path.basename(self.start)
        with os.scandir(self._directory) as entries:
            for entry in entries:
                # A dash in the rest would be another session, whose id begins like ours.
                if entry.name.startswith(start) and "-" not in entry.name[len(start) :]:
                    yield entry

    def used_bytes(self) -> int:
        """Return the bytes that the session's files take (those without a name, still viewed, not counted)."""
        used = 0
        for entry in self.files():
            try:
                used += entry.stat(follow_symlinks=False).st_blocks * 512
            except FileNotFoundError:
                continue
        return used


def default_directory() -> str:
    """Return where shared-memory files go on this machine."""
    if sys.platform == "linux" and os.access("/dev/shm", os.W_OK | os.X_OK):
        return "/dev/shm"
    # Not at the top: it costs 10 ms of import, and Linux has no need of it.
    import tempfile

    return tempfile.gettempdir()


def sweep_dead_sessions(directory: str | None = None) -> int:
    """Delete the files of sessions that no process takes part in any more; return how many sessions.

    Args:
        directory: None for the default one.
    """
    directory = directory or default_directory()
    swept = 0
    names = [name for name in os.listdir(directory) if name.startswith(_NAME)]
    locks = {name for name in names if name.endswith(f"-{LOCK}")}
    for name in locks:
        path = os.path.join(directory, name)
        try:
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        swept += _sweep(path.removesuffix(LOCK), lock)
        os.close(lock)
    for name in names:
        # Written by a process that did not notice its session's end, and was killed before it left.
        start, dash, rest = name.rpartition("-")
        if start.startswith(_NAME) and rest != LOCK and f"{start}{dash}{LOCK}" not in locks:
            path = os.path.join(directory, name)
            if _is_object(rest) and is_orphan(path):
                _unlink_stray(os.path.join(directory, start + dash), [name])
    return swept


def _is_object(rest: str) -> bool:
    """Return True for what stands in the name of an object's file, finished or not, behind the session."""
    return len(rest) > 16 and all(each in "0123456789abcdef" for each in rest.partition(".")[0])


def _unlink_stray(start: str, names: list[str]) -> None:
    """Delete files that were there before one looks again that the session has no lock file.

    Who joins the session anew makes its lock file before any other file.
    """
    if not os.path.lexists(start + LOCK):
        directory = os.path.dirname(start)
        for name in names:
            unlink(os.path.join(directory, name))


def _files_of(start: str) -> list[str]:
    """Return the names of all files of a session but its lock file."""
    directory, name = os.path.split(start)
    return [
        other
        for other in os.listdir(directory)
        if other.startswith(name) and "-" not in other[len(name) :] and other != name + LOCK
    ]


def _sweep(start: str, lock: int) -> bool:
    """Delete the session's files if nobody else holds its lock file, which is open as `lock`."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    files = _files_of(start)
    try:
        if not os.path.samestat(os.fstat(lock), os.stat(start + LOCK)):
            return False
    except FileNotFoundError:
        # Cleared while we took part: what was written since is there without a lock file that would tell of it.
        _unlink_stray(start, files)
        return False
    for other in files:
        unlink(os.path.join(os.path.dirname(start), other))
    # Last, while it is locked: a process that joins now sees that its file has gone and makes a new one.
    unlink(start + LOCK)
    return True
