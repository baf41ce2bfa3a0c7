"""Private directories for sockets and logs of one session, which nobody finds lying about later.

A directory is in use as long as a process holds a shared lock on its `lock` file. The kernel drops a lock when its
process ends, however it ends; so whoever can lock exclusively knows that all are gone, and clears up after them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import time
from pathlib import Path
from typing import Final

from warren_broker.errors import WarrenBrokerError

SOCKET_PATH_BYTES: Final = 103 if sys.platform == "darwin" else 107
"""The longest path of a unix socket."""

_NAME: Final = "warren-"
_LOCK: Final = "lock"
# A directory younger than this may be between its creation and its lock.
_GRACE_S: Final = 30.0
# What sockets in it may be called, at most.
_SOCKET_NAME_BYTES: Final = 32


class RunDirectoryError(WarrenBrokerError):
    """No directory for sockets can be made or used. Set XDG_RUNTIME_DIR or TMPDIR to a short path that is yours."""


class RunDirectory:
    """A directory with mode 0700 and this process's lock on it. Any thread may use it.

    Attributes:
        path: the directory.

    >>> directory = RunDirectory.create()
    >>> oct(directory.path.stat().st_mode)[-3:]
    '700'
    >>> directory.remove()
    >>> directory.path.exists()
    False
    """

    __slots__ = ("_lock", "path")

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock

    @classmethod
    def create(cls) -> RunDirectory:
        """Make a new directory, and remove those of dead sessions beside it.

        Raises:
            RunDirectoryError: nowhere is a place that is writable and short enough for sockets.
        """
        reasons = []
        for base in _bases():
            path = base / f"{_NAME}{os.getpid()}-{os.urandom(4).hex()}"
            if len(os.fsencode(path)) + 1 + _SOCKET_NAME_BYTES > SOCKET_PATH_BYTES:
                reasons.append(f"{base} is too long for a socket's path")
                continue
            try:
                path.mkdir(mode=0o700)
            except OSError as error:
                reasons.append(f"{base}: {error.strerror}")
                continue
            directory = cls.join(path)
            sweep(base)
            return directory
        raise RunDirectoryError(
            f"no place for sockets: {'; '.join(reasons)}. Set XDG_RUNTIME_DIR or TMPDIR to a short path that is yours"
        )

    @classmethod
    def join(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """Use a directory that exists (or is to be made there): it stays until this process is gone too.

        Raises:
            RunDirectoryError: it belongs to somebody else, or cannot be made.
        """
        path = Path(path)
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise RunDirectoryError(f"{path} is not a directory of yours; others could read what passes there")
            if found.st_mode & 0o077:
                path.chmod(0o700)
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise RunDirectoryError(f"{path} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise RunDirectoryError(f"{path} is being removed: its session has ended") from error
        return cls(path, lock)

    def leave(self) -> None:
        """Drop our lock and leave the directory to others. May be called twice."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def remove(self) -> None:
        """Delete it with all it holds, whoever else uses it. May be called twice."""
        _remove_tree(self.path)
        self.leave()


def sweep(base: Path) -> int:
    """Remove the directories in `base` that a session of this user left behind, and return how many.

    Args:
        base: a directory that `RunDirectory.create` makes directories in.
    """
    removed = 0
    try:
        entries = [entry for entry in os.scandir(base) if entry.name.startswith(_NAME)]
    except OSError:
        return 0
    for entry in entries:
        try:
            found = entry.stat(follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            if time.time() - found.st_ctime < _GRACE_S:
                continue
            # Without O_CREAT: what has no lock file is not ours, whatever its name.
            lock = os.open(os.path.join(entry.path, _LOCK), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        else:
            _remove_tree(Path(entry.path))
            removed += 1
        finally:
            os.close(lock)
    return removed


def _bases() -> list[Path]:
    # Not `tempfile.gettempdir()`: importing it costs an embedded start 10 ms, and it does not mind long paths.
    named = [os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"), "/tmp"]
    return [Path(name) for name in dict.fromkeys(named) if name and os.path.isabs(name)]


def _remove_tree(path: Path) -> None:
    # Not at the top: it is needed once, at the end, and costs 10 ms of import.
    import shutil

    # Others may be removing the same tree; what cannot be removed is left to the next sweep.
    shutil.rmtree(path, ignore_errors=True)
