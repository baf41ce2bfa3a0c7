"""What was fetched and built for environments, in a directory that all nodes of this user on this machine share.

    <cache>/entries/<name>/       what was built
    <cache>/entries/<name>.json   written when it is complete: an entry without it is none, and is built anew
    <cache>/entries/<name>.lock   held shared by who uses the entry, alone by who builds or removes it
    <cache>/logs/<name>.log       what builders said

The kernel drops a lock when its process ends, however that ends: a build that is killed leaves an entry that nobody
takes for complete, and nothing that would have to be unlocked. What a builder starts holds the lock, too: it is over
when all of these are gone.

An entry that nobody uses goes when it was not used for long, or when the cache is over its limit, the one that was not
used for the longest time first. Whoever has built something looks for that (`sweep`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from rabbitry_broker.environment import number
from rabbitry_broker.errors import RabbitryBrokerError

DIRECTORY_VARIABLE: Final = "RABBITRY_ENVIRONMENTS"
LIMIT_VARIABLE: Final = "RABBITRY_ENVIRONMENTS_LIMIT"
KEEP_VARIABLE: Final = "RABBITRY_ENVIRONMENTS_KEEP_SECONDS"
LIMIT_BYTES: Final = 10 << 30
KEEP_SECONDS: Final = 7 * 86400.0
JOB_KEEP_SECONDS: Final = 600.0
"""How long an entry of one job alone stays that nobody uses."""
LOGS_KEPT: Final = 200
OF_JOB: Final = "job-"
"""What names of entries of one job alone begin with."""

_POLL_SECONDS: Final = 0.02
_LONGEST_POLL_SECONDS: Final = 0.5
_GIB: Final = 1 << 30


class SetupError(RabbitryBrokerError):
    """An environment cannot be made on this node; the message says why, and what to do."""


class Entry(NamedTuple):
    """A complete entry, in use as long as `lock` is open.

    Attributes:
        name: of the entry.
        path: its directory.
        lock: descriptor of its lock.
    """

    name: str
    path: Path
    lock: int


def directory_from_environment() -> Path:
    """Return where environments are kept: RABBITRY_ENVIRONMENTS, else below the user's cache directory.

    Where that cannot be written, as in containers whose user has no home, it is in the directory for temporary files.
    """
    given = os.environ.get(DIRECTORY_VARIABLE)
    if given:
        return Path(given).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    found = Path(base).absolute() / "rabbitry" / "environments"
    there = next(each for each in (found, *found.parents) if each.exists())
    if os.access(there, os.W_OK | os.X_OK):
        return found
    return Path(tempfile.gettempdir()) / f"rabbitry-environments-{os.getuid()}"


class Cache:
    """The entries below a directory. One thread at a time; any number of processes.

    Args:
        directory: which it is, made if it is not there.
        limit: bytes that entries may have together before those that nobody uses go.
        keep: seconds after which an entry goes that nobody used.

    Raises:
        SetupError: the directory cannot be used.
    """

    def __init__(self, directory: Path, limit: int = LIMIT_BYTES, keep: float = KEEP_SECONDS) -> None:
        self.directory = directory
        self.limit = limit
        self.keep = keep
        self._entries = directory / "entries"
        self.logs = directory / "logs"
        try:
            for each in (directory, self._entries, self.logs):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = directory.stat()
        except OSError as error:
            raise SetupError(f"environments cannot be kept in {directory}: {error}. {_remedy()}") from error
        if facts.st_uid != os.getuid() or stat.S_IMODE(facts.st_mode) & 0o022:
            raise SetupError(f"environments cannot be kept in {directory}: others could write there. {_remedy()}")

    @classmethod
    def from_environment(cls) -> Cache:
        """Return the cache that the environment names.

        Raises:
            SetupError: it cannot be used.
            ValueError: a variable is no number.
        """
        return cls(
            directory_from_environment(),
            number(LIMIT_VARIABLE, int, LIMIT_BYTES, unit="bytes"),
            number(KEEP_VARIABLE, float, KEEP_SECONDS, unit="seconds"),
        )

    def path(self, name: str) -> Path:
        """Return the directory of an entry, whether it is there or not."""
        return self._entries / name

    def find(self, name: str) -> Entry | None:
        """Return an entry, in use from now on; None if it is not complete, or somebody is at it. Does not wait."""
        lock = self._open(name, fcntl.LOCK_SH, wait=False, create=False)
        if lock is None:
            return None
        if not self._is_complete(name):
            os.close(lock)
            return None
        self._used(name)
        return Entry(name, self.path(name), lock)

    def get(self, name: str, make: Callable[[Path, int], object]) -> Entry:
        """Return an entry, in use from now on; it is made if it is not there, once however many ask.

        Args:
            name: of the entry.
            make: fills its directory, which is empty; it is given the descriptor of the lock, which what it starts
                should keep open.

        Raises:
            SetupError: the disk is full.
            Exception: what `make` raises; nothing of it stays.
        """
        pause = _POLL_SECONDS
        while True:
            entry = self.find(name)
            if entry is not None:
                return entry
            lock = self._open(name, fcntl.LOCK_EX, wait=False)
            if lock is not None:
                break
            time.sleep(pause)  # somebody builds it, or looks whether it is there
            pause = min(2 * pause, _LONGEST_POLL_SECONDS)
        try:
            if not self._is_complete(name):
                self._make(name, lock, make)
            fcntl.flock(lock, fcntl.LOCK_SH)
        except BaseException:
            os.close(lock)
            raise
        return Entry(name, self.path(name), lock)

    def _make(self, name: str, lock: int, make: Callable[[Path, int], object]) -> None:
        path = self.path(name)
        remove_tree(path)
        try:
            path.mkdir(mode=0o700)
            make(path, lock)
            self._complete(name)
        except BaseException as error:
            remove_tree(path)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self.full(error) from error
            raise

    def full(self, error: BaseException) -> SetupError:
        """Return the error that says that there is no room."""
        free = shutil.disk_usage(self.directory).free
        return SetupError(
            f"the disk is full: {self.directory} is for environments and has {free / _GIB:.2f} GiB left ({error}). "
            f"Make room there, or: {_remedy()}"
        )

    def _complete(self, name: str) -> None:
        facts = {"size": size_of(self.path(name)), "made": time.time()}
        marker = self._entries / f"{name}.json"
        new = self._entries / f"{name}.new"
        new.write_text(json.dumps(facts))
        os.replace(new, marker)

    def _is_complete(self, name: str) -> bool:
        return (self._entries / f"{name}.json").exists()

    def _used(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.utime(self._entries / f"{name}.json")

    def _open(self, name: str, how: int, *, wait: bool, create: bool = True) -> int | None:
        """Lock an entry; None if others hold it, or there is none and none is to be made."""
        path = self._entries / f"{name}.lock"
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        while True:
            try:
                lock = os.open(path, flags, 0o600)
            except FileNotFoundError:
                return None
            try:
                fcntl.flock(lock, how if wait else how | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                return None
            try:
                if os.path.samestat(os.stat(path), os.fstat(lock)):
                    return lock
            except FileNotFoundError:
                pass
            os.close(lock)  # it was removed while we opened it: there is another one, or none

    # -- what goes ---------------------------------------------------------------------------------------------------

    def sweep(self) -> int:
        """Remove what nobody uses and what is too much; return the bytes that went."""
        entries = sorted(self._facts(), key=lambda entry: entry[1])
        total = sum(size for _, _, size in entries)
        now, went = time.time(), 0
        for name, used, size in entries:
            keep = JOB_KEEP_SECONDS if name.startswith(OF_JOB) else self.keep
            if (now - used > keep or total - went > self.limit) and self.remove(name):
                went += size
        self._sweep_logs()
        return went

    def _facts(self) -> Iterator[tuple[str, float, int]]:
        """Yield (name, when it was used last, bytes) of each entry, also of those that are not complete."""
        names = {each.name.removesuffix(".lock") for each in self._entries.glob("*.lock")}
        for name in names:
            marker = self._entries / f"{name}.json"
            try:
                used = marker.stat().st_mtime
                size = int(json.loads(marker.read_text())["size"])
            except FileNotFoundError:
                yield name, 0.0, 0  # a build that was killed, or that goes on: then its lock is held
            except (OSError, ValueError, LookupError, TypeError):
                yield name, 0.0, 0
            else:
                yield name, used, size

    def remove(self, name: str) -> bool:
        """Remove an entry; False if it is in use."""
        lock = self._open(name, fcntl.LOCK_EX, wait=False, create=False)
        if lock is None:
            return False
        try:
            for suffix in ("json", "new"):  # the latter of one who was killed before it was renamed
                (self._entries / f"{name}.{suffix}").unlink(missing_ok=True)
            remove_tree(self.path(name))
            with contextlib.suppress(FileNotFoundError):
                (self._entries / f"{name}.lock").unlink()
        finally:
            os.close(lock)
        return True

    def _sweep_logs(self) -> None:
        logs = sorted(self.logs.glob("*.log"), key=lambda path: _changed(path), reverse=True)
        for path in logs[LOGS_KEPT:]:
            with contextlib.suppress(OSError):
                path.unlink()


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _remedy() -> str:
    return f"Name another directory by {DIRECTORY_VARIABLE}."


def size_of(path: Path) -> int:
    """Return the bytes that the files below a directory take."""
    total = 0
    for directory, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(directory, name)).st_size
    return total


def remove_tree(path: Path) -> None:
    """Remove a directory with all below it, also what may not be written; it need not be there."""

    def again(function: Callable[[str], Any], name: str, _: Any) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(name), 0o700)
            os.chmod(name, 0o700, follow_symlinks=False) if os.chmod in os.supports_follow_symlinks else None
            function(name)

    if sys.version_info >= (3, 12):
        shutil.rmtree(path, onexc=again)
    else:
        shutil.rmtree(path, onerror=again)
