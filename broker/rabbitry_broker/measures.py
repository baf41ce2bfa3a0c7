"""What programs measure: counters, gauges and histograms, gathered in each process until they are sent.

Counters and histograms are sent as what they grew by, and added up in the store: it does not matter which process
counted, or that it has ended. Of a gauge each process has its own value, which goes with the process.

A series is named by MessagePack of (kind, name, part, [tag, value, ...], process): `part` is the number of a bucket of
a histogram, -1 for the sum of what was observed; `process` is b"" but for gauges.
"""

from __future__ import annotations

import bisect
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from rabbitry_broker.messages import decode, encode

COUNTER: Final = "counter"
GAUGE: Final = "gauge"
HISTOGRAM: Final = "histogram"
ABOUT: Final = "about"
SUM: Final = -1
SEND_SECONDS: Final = 2.0
PENDING_MAX: Final = 20_000
"""Series that may wait in a process to be sent; more are dropped."""
TEXT_BYTES: Final = 1024
"""A name, a tag and its value may have so many bytes."""

GREW: Final = "+"
IS: Final = "="

Series = tuple[str, str, int, tuple[str, ...], bytes]
Entry = tuple[str, Series, "float | bytes"]
"""GREW or IS, which series, and by how much, or what it is."""


class Measures:
    """What this process has measured and not sent. Any thread may call anything.

    Attributes:
        dropped: values that were dropped, there being too many series.
        wake: called when there is something to be sent again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._grown: dict[Series, float] = {}
        self._set: dict[Series, float] = {}
        self._about: dict[str, bytes] = {}
        self._new: dict[str, bytes] = {}
        self._gauges: dict[Series, None] = {}
        self.dropped = 0
        self.wake: Callable[[], object] = lambda: None

    def __bool__(self) -> bool:
        """True if something is to be sent."""
        return bool(self._grown or self._set)

    def describe(self, name: str, kind: str, description: str, boundaries: Sequence[float] = ()) -> None:
        """Say what a metric is."""
        about = encode((kind, description, list(boundaries)))
        with self._lock:
            if self._about.get(name) != about:
                self._about[name] = self._new[name] = about

    def add(self, name: str, tags: tuple[str, ...], amount: float) -> None:
        """Count something."""
        self._grow(((COUNTER, name, 0, tags, b""), amount))

    def observe(self, name: str, tags: tuple[str, ...], value: float, boundaries: Sequence[float]) -> None:
        """Take a value into a histogram."""
        bucket = bisect.bisect_left(boundaries, value)
        self._grow(((HISTOGRAM, name, bucket, tags, b""), 1.0), ((HISTOGRAM, name, SUM, tags, b""), value))

    def set(self, name: str, tags: tuple[str, ...], value: float) -> None:
        """Set a gauge."""
        with self._lock:
            first = not self
            if len(self._gauges) < PENDING_MAX:
                self._set[GAUGE, name, 0, tags, b""] = value
                self._gauges[GAUGE, name, 0, tags, b""] = None
            else:
                self.dropped += 1
        if first:
            self.wake()

    def _grow(self, *parts: tuple[Series, float]) -> None:
        with self._lock:
            first = not self
            if len(self._grown) < PENDING_MAX:
                for series, amount in parts:
                    self._grown[series] = self._grown.get(series, 0.0) + amount
            else:
                self.dropped += 1
        if first:
            self.wake()

    def take(self) -> list[Entry]:
        """Return what grew, what was set and what metrics are that have not been told of, and begin anew."""
        with self._lock:
            grown, self._grown = self._grown, {}
            fixed, self._set = self._set, {}
            about, self._new = self._new, {}
        entries: list[Entry] = [(IS, (ABOUT, name, 0, (), b""), told) for name, told in about.items()]
        entries += [(GREW, series, amount) for series, amount in grown.items()]
        entries += [(IS, series, value) for series, value in fixed.items()]
        return entries

    def put_back(self, entries: Iterable[Entry]) -> None:
        """What was taken could not be sent: it is kept for the next time."""
        with self._lock:
            for how, series, value in entries:
                if isinstance(value, bytes):
                    self._new.setdefault(series[1], value)
                elif how == GREW:
                    self._grown[series] = self._grown.get(series, 0.0) + value
                else:
                    self._set.setdefault(series, value)

    def gauges(self) -> list[Series]:
        """Return the gauges that this process has set."""
        with self._lock:
            return list(self._gauges)

    def for_another_job(self, wake: Callable[[], object]) -> None:
        """What is measured from now on goes to another job, to which nothing was told yet.

        Args:
            wake: called when there is something to be sent.
        """
        with self._lock:
            self.wake = wake
            self._new = dict(self._about)
            self._gauges.clear()

    def forget_in_child(self) -> None:
        """This is a child of a process that measured: what waits there is the parent's to send."""
        if not (self._about or self._grown or self._set or self._lock.locked()):
            return  # what is written to here is memory that the two share no longer
        self._lock = threading.Lock()
        self._grown, self._set, self._new, self._gauges = {}, {}, dict(self._about), {}
        self.wake = lambda: None


measures: Final = Measures()
"""Those of this process."""

os.register_at_fork(after_in_child=measures.forget_in_child)


def field_of(series: Series, process: bytes = b"") -> bytes:
    """Return the field of a series in the store."""
    return encode((*series[:4], process))


def read_field(field: bytes) -> tuple[str, str, int, list[str], bytes] | None:
    """Return (kind, name, part, tags, process) of a field; None if it is none: nobody signs them."""
    try:
        kind, name, part, tags, process = decode(field)
    except Exception:  # noqa: BLE001  bytes that anybody may have written
        return None
    good = (
        kind in (COUNTER, GAUGE, HISTOGRAM, ABOUT)
        and isinstance(name, str)
        and isinstance(part, int)
        and isinstance(tags, list)
        and len(tags) % 2 == 0
        and all(isinstance(each, str) for each in tags)
        and isinstance(process, bytes)
    )
    return (kind, name, part, tags, process) if good else None


def read_about(data: bytes) -> tuple[str, str, list[float]] | None:
    """Return (kind, description, boundaries) of a metric; None if that makes no sense."""
    try:
        kind, description, boundaries = decode(data)
        return str(kind), str(description), [float(each) for each in boundaries]
    except Exception:  # noqa: BLE001  bytes that anybody may have written
        return None


def shortened(values: dict[str, Any]) -> tuple[str, ...]:
    """Return tags in a fixed order, none of them longer than is sensible."""
    return tuple(text[:TEXT_BYTES] for each in sorted(values.items()) for text in each)
