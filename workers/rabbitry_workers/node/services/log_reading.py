"""Reading what executors printed out of the files of a node: whole files, or the part of one task or actor.

Whoever reads keeps the place: [number of the file, position, inside of the wanted part]. A file that was rotated in
between is read to its end first.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from rabbitry_broker.output_marks import IN_FILE, read_file_mark, unescape
from rabbitry_workers.node.services.log_files import streams_of

READ_BYTES: Final = 1 << 20
READ_BYTES_LEAST: Final = 4096  # no mark is longer
TAIL_BYTES_MAX: Final = 4 << 20
_NAME: Final = re.compile(r"worker-(?P<worker>[0-9a-f]+)-(?P<job>[0-9a-f]+)-(?P<pid>\d+)\.(?P<suffix>out|err)")

Place = list[Any]
"""[number of the file, position, inside of the wanted part]"""


class LogReader:
    """Reads files of a directory. Any thread.

    Args:
        directory: of one node's files; need not exist.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def answers(self) -> dict[str, Callable[[dict[str, Any]], Callable[[], Any]]]:
        """Return what a node says about its files, by word."""
        return {
            "logs.list": lambda asked: lambda: self.names(asked["glob"]),
            "logs.find": lambda asked: lambda: self.find(**asked),
            "logs.read": lambda asked: lambda: self.read(**asked),
        }

    def names(self, glob: str = "*") -> dict[str, list[str]]:
        """Return the names of files by what they are."""
        return streams_of(name for name in self._all() if fnmatch.fnmatch(name, glob))

    def _all(self) -> Iterator[str]:
        try:
            yield from os.listdir(self._directory)
        except FileNotFoundError:
            return

    def find(
        self, *, task: str = "", actor: str = "", worker: str = "", job: str = "", pid: int = 0, suffix: str = ""
    ) -> list[str]:
        """Return the names of files in which there is something of a task, actor, worker, job or process.

        Args:
            task: id in hexadecimal; "" for any.
            actor: the same.
            worker: the same, or its beginning.
            job: the same.
            pid: of the process; 0 for any.
            suffix: "out", "err" or "" for both.
        """
        found = []
        for name in sorted(self._all()):
            facts = _NAME.fullmatch(name)
            if facts is None or (suffix and facts["suffix"] != suffix):
                continue
            if (worker and not facts["worker"].startswith(worker) and not worker.startswith(facts["worker"])) or (
                job and facts["job"] != job
            ):
                continue
            if pid and int(facts["pid"]) != pid:
                continue
            if (task or actor) and not any(self._mentions(each, task, actor) for each in (f"{name}.1", name)):
                continue
            found.append(name)
        return found

    def _mentions(self, name: str, task: str, actor: str) -> bool:
        wanted = f" task={task}" if task else f" actor={actor} "
        try:
            return wanted.encode() in (self._directory / name).read_bytes()
        except OSError:
            return False

    def read(
        self,
        *,
        file: str,
        place: Place | None = None,
        task: str = "",
        actor: str = "",
        tail: int = -1,
        limit: int = READ_BYTES,
    ) -> tuple[bytes, Place, bool]:
        """Return the next piece of a file.

        Args:
            file: its name.
            place: where to go on; None for the beginning.
            task: only what this task printed (id in hexadecimal); "" for all.
            actor: the same of an actor.
            tail: from the beginning, only so many lines at the end; -1 for all.
            limit: bytes to read, about.

        Returns:
            (text without marks, where to go on, True if that is the end for now).

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: that is no name of a file.
        """
        if os.sep in file or file in ("", ".", "..", "lock"):
            raise ValueError(f"{file!r} is no name of a log file")
        wanted = (task, actor)
        if place is None and tail >= 0:
            return self._tail(file, wanted, tail)
        limit = max(READ_BYTES_LEAST, min(limit, READ_BYTES))
        path, place = self._at(file, place)
        with open(path, "rb") as opened:
            opened.seek(place[1])
            data = opened.read(limit)
        end = data.rfind(b"\n") + 1
        if not end and (len(data) >= limit or not self._is_last(path, file)):
            end = len(data)  # a line that is longer than that, or that a full disk has cut
        lines, inside = _part(data[:end], wanted, bool(place[2]))
        place = [place[0], place[1] + end, inside]
        return b"".join(lines), place, not end and self._is_last(path, file)

    def _is_last(self, path: Path, file: str) -> bool:
        return path.name == file

    def _at(self, file: str, place: Place | None) -> tuple[Path, Place]:
        """Return which file is to be read, and where."""
        current, before = self._directory / file, self._directory / f"{file}.1"
        numbers = {}
        for path in (before, current):
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            numbers[path] = (found.st_ino, found.st_size)
        if current not in numbers:
            raise FileNotFoundError(f"this node has no log file {file!r}")
        for path, (number, size) in numbers.items():
            if place is None:
                return path, [number, 0, False]
            if number == place[0]:
                if path == before and place[1] >= size:
                    return current, [numbers[current][0], 0, False]
                return path, place
        first = next(iter(numbers))  # what was read is gone
        return first, [numbers[first][0], 0, False]

    def _tail(self, file: str, wanted: tuple[str, str], count: int) -> tuple[bytes, Place, bool]:
        kept: deque[bytes] = deque(maxlen=count)
        place: Place | None = None
        while True:
            path, at = self._at(file, place)
            with open(path, "rb") as opened:
                opened.seek(at[1])
                data = opened.read(READ_BYTES)
            end = data.rfind(b"\n") + 1
            if not end and (len(data) == READ_BYTES or not self._is_last(path, file)):
                end = len(data)
            lines, inside = _part(data[:end], wanted, bool(at[2]))
            kept.extend(lines)
            place = [at[0], at[1] + end, inside]
            if not end and self._is_last(path, file):
                break
        size = sum(map(len, kept))
        while size > TAIL_BYTES_MAX:
            size -= len(kept.popleft())
        return b"".join(kept), place, True


def _part(data: bytes, wanted: tuple[str, str], inside: bool) -> tuple[list[bytes], bool]:
    """Return the lines of the wanted part (all, if nothing in particular is), and whether it goes on behind them."""
    task, actor = wanted
    lines: list[bytes] = []
    for line in data.splitlines(keepends=True) if b"\r" not in data else _lines(data):
        mark = read_file_mark(line.rstrip(b"\n")) if line.startswith(IN_FILE) else None
        if mark is not None:
            inside = (not task or mark[0] == task) and (not actor or mark[1] == actor)
        elif inside or not (task or actor):
            lines.append(unescape(line))
    return lines, inside


def _lines(data: bytes) -> list[bytes]:
    """Return lines by newlines alone."""
    parts = data.split(b"\n")
    last = parts.pop()
    return [part + b"\n" for part in parts] + ([last] if last else [])
