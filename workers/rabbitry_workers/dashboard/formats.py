"""Numbers, times and sizes as people read them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

_CLIENT_BYTES, _NUMBER_BYTES = 12, 8
ID_CHARACTERS = 12
"""Of an id in a table; the whole one stands on its page, and in the tooltip."""


def count(number: float | None) -> str:
    """Return a number with separators between thousands.

    Example:
        >>> count(1234567), count(0.5), count(None)
        ('1,234,567', '0.5', '')
    """
    if number is None:
        return ""
    return f"{number:,.0f}" if number == int(number) else f"{number:,.1f}"


def size(number: float | None) -> str:
    """Return a number of bytes.

    Example:
        >>> size(512), size(1536), size(3 << 30)
        ('512 B', '1.5 KiB', '3.0 GiB')
    """
    if number is None:
        return ""
    if number < 1024:
        return f"{number:.0f} B"
    units = ("KiB", "MiB", "GiB", "TiB")
    power = min(len(units), int(math.log(number, 1024)))
    return f"{number / 1024**power:.1f} {units[power - 1]}"


def duration(seconds: float | None) -> str:
    """Return how long something took.

    Example:
        >>> duration(0.00042), duration(1.5), duration(75), duration(7300), duration(200_000)
        ('0.4 ms', '1.5 s', '1 min 15 s', '2 h 1 min', '2 d 7 h')
    """
    if seconds is None:
        return ""
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def ago(when: float | None, now: float | None = None) -> str:
    """Return how long ago something was.

    Example:
        >>> ago(100.0, 103.4), ago(100.0, 100.2), ago(None)
        ('3 s ago', 'now', '')
    """
    if when is None:
        return ""
    seconds = int((time.time() if now is None else now) - when)
    if seconds < 1:
        return "now"
    return f"{seconds} s ago" if seconds < 60 else f"{duration(seconds)} ago"


def moment(when: float | None) -> str:
    """Return a time, in UTC: whoever looks may be in another zone than the cluster.

    Example:
        >>> moment(0.5)
        '1970-01-01 00:00:00.500 UTC'
    """
    if when is None:
        return ""
    whole = int(when)
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(whole)) + f".{int((when - whole) * 1000):03d} UTC"


def short(identity: str) -> str:
    """Return the beginning of an id."""
    return identity[:ID_CHARACTERS]


def short_of_many(identity: str) -> str:
    """Return what tells ids of tasks and objects of one client apart: they begin and end alike.

    Example:
        >>> short_of_many("7a66c27a56e89881e7e15fdf" + "000000000001a2b3" + "37aa346c")
        '7a66c27a…1a2b3'
        >>> short_of_many("7a66")
        '7a66'
    """
    if len(identity) < 2 * (_CLIENT_BYTES + _NUMBER_BYTES):
        return short(identity)
    number = identity[2 * _CLIENT_BYTES :][: 2 * _NUMBER_BYTES].lstrip("0")
    return f"{identity[:8]}…{number or '0'}"


def amounts(resources: Mapping[str, float]) -> str:
    """Return resources in one line.

    Example:
        >>> amounts({"CPU": 1.0, "memory": float(1 << 30)})
        'CPU 1, memory 1.0 GiB'
    """
    return ", ".join(f"{name} {amount(name, number)}" for name, number in resources.items())


def amount(name: str, number: float) -> str:
    """Return how much of a resource."""
    return size(number) if name in ("memory", "object_store_memory") else f"{number:g}"
