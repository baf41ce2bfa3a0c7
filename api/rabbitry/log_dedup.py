"""Lines that several processes print alike are shown once, and then how often they came.

A line is like another one if their words without digits are the same. The first is shown at once. Those from other
processes that follow within the window are counted; when it is over, the last of them is shown with their number.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from rabbitry import environment

WINDOW_SECONDS: Final = 5.0
PATTERNS_MAX: Final = 10_000  # that are remembered; beyond, the oldest are shown and forgotten

_NUMBER: Final = re.compile(rb"\d")
_HINT: Final = b" (lines that several processes print are shown once: RABBITRY_DEDUP_LOGS=0 shows all of them)"


class Source(NamedTuple):
    """Who printed a line.

    Attributes:
        prefix: what is shown before it.
        process: tells processes apart.
        is_error: it was printed to standard error.
    """

    prefix: str
    process: tuple[bytes, int]
    is_error: bool


class _Pattern:
    __slots__ = ("count", "line", "processes", "since", "source")

    def __init__(self, line: bytes, source: Source, since: float) -> None:
        self.line = line
        self.source = source
        self.since = since
        self.count = 0  # that came and were not shown
        self.processes = {source.process}


Shown = tuple[Source, bytes]


class Deduplicator:
    """For one thread.

    Args:
        window: seconds in which lines are counted.
        allow: a pattern of lines that are always shown; None for none.
        skip: a pattern of lines that are never shown; None for none.
        clock: in seconds.
    """

    def __init__(
        self,
        window: float = WINDOW_SECONDS,
        allow: re.Pattern[bytes] | None = None,
        skip: re.Pattern[bytes] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._window = window
        self._allow = allow
        self._skip = skip
        self._clock = clock
        self._patterns: dict[tuple[bool, bytes], _Pattern] = {}  # the oldest first
        self._hinted = False

    @classmethod
    def from_environment(cls) -> Deduplicator | None:
        """Return what the variables ask for: `RABBITRY_DEDUP_LOGS` and its companions, or Ray's; None for none.

        Raises:
            ValueError: one of them makes no sense.
        """
        if environment.is_off(*environment.DEDUP_LOGS):
            return None
        window = next(filter(None, (environment.number(each, float) for each in environment.DEDUP_WINDOW)), None)
        return cls(
            WINDOW_SECONDS if window is None else window,
            _pattern(environment.DEDUP_ALLOW),
            _pattern(environment.DEDUP_SKIP),
        )

    def take(self, source: Source, lines: list[bytes]) -> list[bytes]:
        """Return those of a process's lines that are shown now."""
        shown = []
        for line in lines:
            if self._allow is not None and self._allow.search(line):
                shown.append(line)
                continue
            if self._skip is not None and self._skip.search(line):
                continue
            words = b" ".join([word for word in line.split() if not _NUMBER.search(word)])
            if not words:
                shown.append(line)  # its numbers are all that it says
                continue
            key = (source.is_error, words)
            pattern = self._patterns.get(key)
            if pattern is None:
                self._patterns[key] = _Pattern(line, source, self._clock())
                shown.append(line)
                continue
            pattern.processes.add(source.process)
            if len(pattern.processes) == 1:
                shown.append(line)  # one process may say the same again and again
            else:
                pattern.count += 1
                pattern.line, pattern.source = line, source
        return shown

    def due(self) -> Iterator[Shown]:
        """Yield what is to be shown of patterns whose window is over."""
        now = self._clock()
        while self._patterns:
            key, pattern = next(iter(self._patterns.items()))
            if now - pattern.since < self._window and len(self._patterns) <= PATTERNS_MAX:
                return
            del self._patterns[key]
            if pattern.count:
                yield pattern.source, self._told(pattern)
            if pattern.count > 1:
                pattern.since, pattern.count = now, 0
                self._patterns[key] = pattern  # there may be more of it

    def rest(self) -> Iterator[Shown]:
        """Yield all that was kept back."""
        patterns, self._patterns = self._patterns, {}
        for pattern in patterns.values():
            if pattern.count:
                yield pattern.source, self._told(pattern)

    def _told(self, pattern: _Pattern) -> bytes:
        if pattern.count == 1:
            return pattern.line
        hint = b"" if self._hinted else _HINT
        self._hinted = True
        return pattern.line + b" [repeated %dx across cluster]" % pattern.count + hint


def _pattern(variables: tuple[str, ...]) -> re.Pattern[bytes] | None:
    text = environment.text(*variables)
    if not text:
        return None
    try:
        return re.compile(text.encode())
    except re.error as error:
        raise ValueError(f"{' (or '.join(variables)}) is {text!r}, which is no regular expression: {error}") from None
