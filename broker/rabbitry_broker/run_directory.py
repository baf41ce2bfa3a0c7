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
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rabbitry_broker.errors import RabbitryBrokerError

SOCKET_PATH_BYTES: Final = 103 if sys.platform == "darwin" else 107
"""The longest path of a unix socket."""

_NAME: Final = "rabbitry-"
_LOCK: Final = "lock"
# A directory younger than this may be between its creation and its lock.
_GRACE_S: Final = 30.0
# What sockets in it may be called, at most.
_SOCKET_NAME_BYTES: Final = 32
_IN_MEMORY: Final = frozenset(("tmpfs", "ramfs", "devtmpfs", "hugetlbfs"))


class RunDirectoryError(RabbitryBrokerError):
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
    def create(cls, *, on_disk: bool = False) -> RunDirectory:
        """Make a new directory, and remove those of dead sessions beside it.

        Args:
            on_disk: it is for what memory has no room for: not in a file system that is memory itself.

        Raises:
            RunDirectoryError: nowhere is a place that is writable and short enough for sockets.
        """
        reasons = []
        for base in _disk_bases() if on_disk else _bases():
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
        if on_disk:
            raise RunDirectoryError(f"no place on a disk: {'; '.join(reasons) or 'all of them are in memory'}")
        raise RunDirectoryError(
            f"no place for sockets: {'; '.join(reasons)}. Set XDG_RUNTIME_DIR or TMPDIR to a short path that is yours"
        )

    @classmethod
    def free_path(cls, *, on_disk: bool = False) -> Path:
        """Return a path at which `join` can make a new directory; nothing is made.

        Args:
            on_disk: as for `create`.
        """
        bases = [base for base in (_disk_bases() if on_disk else _bases()) if os.access(base, os.W_OK | os.X_OK)]
        return (bases or [Path("/tmp")])[0] / f"{_NAME}{os.getpid()}-{os.urandom(4).hex()}"

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
    for path, lock in _locks(base, _GRACE_S):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        else:
            _remove_tree(path)
            removed += 1
        finally:
            os.close(lock)
    return removed


def places() -> list[Path]:
    """Return where directories of this user may be, first where `RunDirectory.create` would make one.

    A program without XDG_RUNTIME_DIR (started by cron, say) finds those of programs that have it, too.
    """
    return list(dict.fromkeys([*_bases(), Path(f"/run/user/{os.geteuid()}")]))


def in_use(base: Path) -> Iterator[Path]:
    """Yield the directories in `base` that a process of this user has its lock on.

    Args:
        base: a directory that `RunDirectory.create` makes directories in.
    """
    for path, lock in _locks(base, 0.0):
        try:
            # Nobody locks like this but who removes a directory, so that one in use is never taken from its user.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield path
        finally:
            os.close(lock)


def is_in_use(path: Path) -> bool:
    """Return True if a process has its lock on a directory that was made by `RunDirectory`."""
    try:
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _locks(base: Path, least_age: float) -> Iterator[tuple[Path, int]]:
    """Yield directories of this user in `base` and their lock files, opened; who iterates closes them."""
    try:
        entries = [entry for entry in os.scandir(base) if entry.name.startswith(_NAME)]
    except OSError:
        return
    for entry in entries:
        try:
            found = entry.stat(follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            if time.time() - found.st_ctime < least_age:
                continue
            # Without O_CREAT: what has no lock file is not ours, whatever its name.
            lock = os.open(os.path.join(entry.path, _LOCK), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        yield Path(entry.path), lock


def is_memory(path: str | os.PathLike[str], mounts: str = "/proc/self/mounts") -> bool:
    """Return True if what is written at `path` stays in memory (a tmpfs). Where that cannot be known: False.

    Args:
        path: of a file or directory; need not exist.
        mounts: the kernel's list of file systems.
    """
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.split() for line in file]
    except OSError:
        return False
    real = os.path.realpath(path)
    best, kind = -1, ""
    for _, at, type_, *_rest in (line for line in lines if len(line) > 2):
        # The last of several at one place counts: it hides the others. (Odd characters are written as octal.)
        at = at.encode("utf-8", "surrogateescape").decode("unicode_escape", "replace")
        inside = real == at or real.startswith(at.rstrip("/") + "/")
        if inside and len(at) >= best:
            best, kind = len(at), type_
    return kind in _IN_MEMORY


def _disk_bases() -> list[Path]:
    # What /var/tmp holds is on a disk by convention, even where /tmp is not.
    return [base for base in dict.fromkeys([*_bases(), Path("/var/tmp")]) if not is_memory(base)]


def _bases() -> list[Path]:
    # Not `tempfile.gettempdir()`: importing it costs an embedded start 10 ms, and it does not mind long paths.
    named = [os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"), "/tmp"]
    return [Path(name) for name in dict.fromkeys(named) if name and os.path.isabs(name)]


def _remove_tree(path: Path) -> None:
    # Not at the top: it is needed once, at the end, and costs 10 ms of import.
    import shutil

    # Others may be removing the same tree; what cannot be removed is left to the next sweep.
    shutil.rmtree(path, ignore_errors=True)
