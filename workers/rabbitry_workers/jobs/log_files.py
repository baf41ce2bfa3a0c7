"""The log of a job: what its entrypoint prints, in files on its node that hold no more than a limit.

A log is a stream of bytes. It is kept in segments, each named after the position of its first byte; the oldest go when
all of them hold more than the limit. Who reads asks by position, so that following a log needs no state here, and says
so when the beginning is not there any more.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final, NamedTuple

SEGMENTS: Final = 8
DEFAULT_LIMIT: Final = 64 << 20
SHORTEST_SEGMENT: Final = 4096
READ_AT_ONCE: Final = 1 << 20
FOLDER: Final = "jobs"
OWNER: Final = "submission"
_DIGITS: Final = 20
_SUFFIX: Final = ".log"


def log_directory(node_files: Path, submission_id: str, submitted: float) -> Path:
    """Return where the log of a job is: any text may be an id, and no two share a directory.

    Args:
        node_files: the node's directory.
        submission_id: of the job.
        submitted: when it was; an id may be used again as soon as a job is deleted, whose log goes a little later.
    """
    one = f"{submitted!r} {submission_id}".encode("utf-8", "replace")
    return node_files / FOLDER / hashlib.blake2b(one, digest_size=16).hexdigest()


def make_log_directory(directory: Path, submission_id: str) -> None:
    """Make it, with a file that says whose it is."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(directory / OWNER, "w", encoding="utf-8", opener=_private) as file:
        file.write(submission_id)


def logs_kept(node_files: Path) -> dict[Path, str]:
    """Return the directories of logs on a node, and whose they are; "" if that does not stand there (yet)."""
    found: dict[Path, str] = {}
    try:
        directories = list((node_files / FOLDER).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return found
    for directory in directories:
        try:
            found[directory] = (directory / OWNER).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            found[directory] = ""
    return found


class Part(NamedTuple):
    """A piece of a log.

    Attributes:
        data: its bytes.
        start: position of the first of them; later than asked for if what was before is gone.
        end: position after the last of them.
    """

    data: bytes
    start: int
    end: int


class LogWriter:
    """Appends to a job's log. One process at a time; a later one goes on where the log ends.

    Args:
        directory: of the log; exists.
        limit: bytes that it may hold.
    """

    def __init__(self, directory: Path, limit: int = DEFAULT_LIMIT) -> None:
        self._directory = directory
        self._segment = max(SHORTEST_SEGMENT, limit // SEGMENTS)
        self._kept = max(2, limit // self._segment)
        segments = _segments(directory)
        self._start = segments[-1] if segments else 0
        self._file = open(_path(directory, self._start), "ab", buffering=0, opener=_private)  # noqa: SIM115
        self._size = self._file.tell()

    @property
    def end(self) -> int:
        """Position after the last byte."""
        return self._start + self._size

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            OSError: the disk is full, or the directory is gone.
        """
        left = memoryview(data)
        while left:
            if self._size >= self._segment:
                self._next_segment()
            written = self._file.write(left[: self._segment - self._size])
            self._size += written
            left = left[written:]

    def _next_segment(self) -> None:
        self._file.close()
        self._start += self._size
        self._size = 0
        self._file = open(_path(self._directory, self._start), "ab", buffering=0, opener=_private)  # noqa: SIM115
        for start in _segments(self._directory)[: -self._kept]:
            _path(self._directory, start).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_log(directory: str | os.PathLike[str], position: int, limit: int = READ_AT_ONCE) -> Part:
    """Return what a log holds from a position on.

    Args:
        directory: of the log; one that does not exist (yet) holds nothing.
        position: of the first byte; a negative one counts from the end.
        limit: bytes at most.
    """
    directory = Path(directory)
    for _ in range(3):  # a segment may go while it is looked for
        segments = _segments(directory)
        if not segments:
            break
        if position < 0:
            position = max(0, _end(directory, segments) + position)
        position = max(position, segments[0])
        at = max(start for start in segments if start <= position)
        try:
            with open(_path(directory, at), "rb") as file:
                file.seek(position - at)
                data = file.read(limit)
        except FileNotFoundError:
            continue
        later = [start for start in segments if start > at]
        if not data and later and later[0] > position:
            position = later[0]  # cannot be, but for a file that somebody has cut
            continue
        return Part(data, position, position + len(data))
    return Part(b"", max(0, position), max(0, position))


def read_tail(directory: str | os.PathLike[str], lines: int, limit: int) -> str:
    """Return the last lines of a log.

    Args:
        directory: of the log.
        lines: how many at most.
        limit: characters at most.
    """
    directory = Path(directory)
    segments = _segments(directory)
    end = _end(directory, segments) if segments else 0
    data, position = b"", max(0, end - limit)
    while position < end:
        part = read_log(directory, position)
        if not part.data:
            break
        data, position = data + part.data, part.end
    text = "".join(data.decode("utf-8", "replace").splitlines(keepends=True)[-lines:])
    return text[-limit:]


def _segments(directory: Path) -> list[int]:
    """Return the positions at which segments begin, in order."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(
        int(name[:_DIGITS])
        for name in names
        if len(name) == _DIGITS + len(_SUFFIX) and name.endswith(_SUFFIX) and name[:_DIGITS].isdigit()
    )


def _end(directory: Path, segments: list[int]) -> int:
    try:
        return segments[-1] + _path(directory, segments[-1]).stat().st_size
    except FileNotFoundError:
        return segments[-1]


def _path(directory: Path, start: int) -> Path:
    return directory / f"{start:0{_DIGITS}}{_SUFFIX}"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # what a job prints is for this user alone
