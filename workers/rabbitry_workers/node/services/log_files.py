"""What executors print, in files of the node: one for each process and stream, with marks that say whose it is.

    <root>/node-<node id>/worker-<worker id>-<job id>-<pid>.out      and .err; what came before the last
                          worker-<worker id>-<job id>-<pid>.out.1    rotation, beside it

A file is made with its first line: what prints nothing leaves nothing. Nothing grows for ever: a file is rotated at
`FILE_BYTES`, of all files of a node the oldest go beyond `RABBITRY_LOG_BYTES`, and of the directories of nodes that
have ended the newest `ENDED_KEPT` stay, for a week. Whoever runs a node holds a lock on its directory.

The root is RABBITRY_LOG_DIR, or a directory of this user beside other temporary files. An embedded session that ends
without a crash takes its directory along.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from rabbitry_broker.environment import number
from rabbitry_broker.output_marks import for_file
from rabbitry_broker.run_directory import RunDirectory, RunDirectoryError, is_in_use

DIRECTORY_VARIABLE: Final = "RABBITRY_LOG_DIR"
BYTES_VARIABLE: Final = "RABBITRY_LOG_BYTES"
BYTES: Final = 512 << 20
FILE_BYTES: Final = 16 << 20
FILES: Final = 4000  # of one node, at most
ENDED_KEPT: Final = 10
ENDED_SECONDS: Final = 7 * 86400.0
GRACE_SECONDS: Final = 30.0  # a directory younger than this may be between its creation and its lock
_PREFIX: Final = "node-"
AGAIN_SECONDS: Final = 10.0  # until the next try when no file could be written
TELL_SECONDS: Final = 300.0
_TRIM_EVERY: Final = 64  # new files, or as many parts of what all may take

log = logging.getLogger("rabbitry.node")


def root() -> Path:
    """Return where the directories of nodes are."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    return Path(given) if given else Path(os.environ.get("TMPDIR") or "/tmp") / f"rabbitry-logs-{os.geteuid()}"


def of_ended_nodes() -> list[Path]:
    """Return the directories that ended nodes of this user have left on this machine, the newest first."""
    return [path for path in _directories(root()) if not is_in_use(path)]


def _directories(at: Path) -> list[Path]:
    found: list[tuple[float, Path]] = []
    with contextlib.suppress(OSError), os.scandir(at) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                state = entry.stat(follow_symlinks=False)
                if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False):
                    found.append((state.st_mtime, Path(entry.path)))
    return [path for _, path in sorted(found, reverse=True)]


class LogFiles:
    """The files of one node. Loop thread only, but for deleting.

    Args:
        node_id: of the node.
        passing: the node ends with a program that has seen its output: its files stay only if there was a crash.

    Attributes:
        keep: the files stay when the node ends.
        trims: how often files were deleted: one of them may still be open.
    """

    def __init__(self, node_id: bytes, *, passing: bool) -> None:
        self.keep = not passing
        self.path = root() / f"{_PREFIX}{node_id.hex()}"
        self._limit = number(BYTES_VARIABLE, int, BYTES, unit="bytes")
        self._directory: RunDirectory | None = None
        self._closed = False
        self._again_at = 0.0  # while there is no place for files; then the next one is tried
        self._tell_at = 0.0  # when it may be said again that there is none
        self._lock = threading.Lock()  # over the next two
        self._wanted: list[Callable[[], None]] = []
        self._deleting: threading.Thread | None = None
        self.trims = 0
        self._grown = 0  # bytes and files since the last look at all of them
        self._made = 0

    def __call__(self, name: str) -> LogFile | None:
        """Return a new file; None if none can be written."""
        if self._closed or not self._limit or time.monotonic() < self._again_at:
            return None
        try:
            if self._directory is None:
                self._open()
            self._made += 1
            self.grown(0)
            file = LogFile(self, self.path / name, min(FILE_BYTES, max(1, self._limit // 4)))
            self._again_at = 0.0
            return file
        except (OSError, RunDirectoryError) as error:
            self.failed(error)
            return None

    def failed(self, error: Exception) -> None:
        """Say that what is printed is not kept, now and then; a full disk may have room later."""
        now = time.monotonic()
        self._again_at = now + AGAIN_SECONDS
        if now >= self._tell_at:
            self._tell_at = now + TELL_SECONDS
            log.warning("what tasks print is not kept in %s: %s", self.path, error)

    def _open(self) -> None:
        above = self.path.parent
        above.mkdir(mode=0o700, parents=True, exist_ok=True)
        if above.stat().st_uid != os.geteuid():
            raise RunDirectoryError(f"{above} belongs to somebody else: set {DIRECTORY_VARIABLE}")
        self._directory = RunDirectory.join(self.path)
        self._delete(lambda: sweep(above))

    def grown(self, count: int) -> None:
        """So many bytes were written: now and then, delete the oldest files beyond the limit."""
        self._grown += count
        if self._grown > self._limit // _TRIM_EVERY or self._made >= _TRIM_EVERY:
            self._grown = self._made = 0
            self._delete(self._trim)

    def _delete(self, action: Callable[[], None]) -> None:
        """Delete files on a thread, that a slow disk may keep: the loop has other work. One thread at a time."""
        with self._lock:
            if action not in self._wanted:
                self._wanted.append(action)
            if self._deleting is None:
                self._deleting = threading.Thread(target=self._run_deleting, name="rabbitry-log-files", daemon=True)
                self._deleting.start()

    def _run_deleting(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._deleting = None
                    return
                action = self._wanted.pop(0)
            try:
                action()
            except Exception:
                log.exception("files of output cannot be deleted")

    def wait(self) -> None:
        """Return when what is being deleted is gone."""
        deleting = self._deleting
        if deleting is not None:
            deleting.join()

    def _trim(self) -> None:
        files: list[tuple[float, int, str]] = []
        with contextlib.suppress(OSError), os.scandir(self.path) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if entry.name != "lock":
                        files.append((found.st_mtime, found.st_size, entry.path))
        total = sum(size for _, size, _ in files)
        files.sort()
        while files and (total > self._limit or len(files) > FILES):
            _, size, path = files.pop(0)
            total -= size
            with contextlib.suppress(OSError):
                os.unlink(path)
        self.trims += 1

    def close(self) -> None:
        """The node ends."""
        if self._directory is None:
            return
        self.wait()
        directory, self._directory = self._directory, None
        self._closed = True
        if self.keep:
            directory.leave()
            return
        directory.remove()
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()  # if it was the last


def sweep(above: Path) -> None:
    """Delete the directories of nodes that ended, but for the newest ones."""
    # Not at the top: it is needed once, and costs 10 ms of import.
    import shutil

    kept = 0
    for path in _directories(above):
        with contextlib.suppress(OSError):
            age = time.time() - path.stat().st_mtime
            if age < GRACE_SECONDS or is_in_use(path):
                continue
            kept += 1
            if kept > ENDED_KEPT or age > ENDED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


class LogFile:
    """One file, which is rotated when it is full. What cannot be written (a full disk) is dropped."""

    def __init__(self, files: LogFiles, path: Path, limit: int) -> None:
        self.path = path
        self._files = files
        self._limit = limit
        self._of: tuple[bytes, bytes, str] | None = None
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._size = os.fstat(self._fd).st_size
        self._trims = self._files.trims

    def write(self, task_id: bytes, actor_id: bytes, name: str, data: bytes) -> None:
        """Append lines that a task has printed."""
        whose = (task_id, actor_id, name)
        try:
            if self._fd < 0:
                self._open()  # it could not be opened again
                self._of = None
            if self._trims != self._files.trims:
                self._trims = self._files.trims
                if not os.fstat(self._fd).st_nlink:
                    self._again()
            if self._size > self._limit:
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self.path, f"{self.path}.1")
                self._again()
            if whose != self._of:
                self._of = whose
                data = for_file(task_id, actor_id, name, time.time()) + data
            written = os.write(self._fd, data)
        except OSError as error:
            self._files.failed(error)
            return
        self._size += written
        self._files.grown(written)

    def _again(self) -> None:
        os.close(self._fd)
        self._fd = -1
        self._open()
        self._of = None

    def close(self) -> None:
        """Close it. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def streams_of(names: Iterator[str]) -> dict[str, list[str]]:
    """Return names of files by what they are: `worker_out`, `worker_err`, `other`; rotated ones are left out."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        if name.endswith(".1") or name == "lock":
            continue
        kind = "other"
        if name.startswith("worker-"):
            kind = {".out": "worker_out", ".err": "worker_err"}.get(name[-4:], "other")
        found.setdefault(kind, []).append(name)
    return found
