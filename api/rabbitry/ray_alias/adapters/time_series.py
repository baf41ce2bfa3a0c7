"""Step functions of time, as Serve's autoscaling adds up and averages them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

ROUNDED_DIGITS = 2
"""Timestamps are rounded to hundredths of a second before they are put together."""


class Point(Protocol):
    """From `timestamp` (seconds) on, the function is `value`."""

    timestamp: float
    value: float


def merge_instantaneous_total(series: Sequence[Sequence[Point]]) -> Sequence[Point] | list[tuple[float, float]]:
    """Return the sum of step functions, each 0 before its first point, as (seconds, value) where it changes.

    Args:
        series: each in the order of time. A single one that has points is returned as it is.
    """
    filled = [each for each in series if each]
    if len(filled) == 1:
        return filled[0]
    changes: list[tuple[float, int, float]] = []
    for each in filled:
        before = 0.0
        for position, point in enumerate(each):
            changes.append((round(point.timestamp, ROUNDED_DIGITS), position, point.value - before))
            before = point.value
    total = 0.0
    merged: list[tuple[float, float]] = []
    changes.sort(key=lambda change: change[:2])
    for index, (time, _, change) in enumerate(changes):
        total += change
        last_of_its_time = index + 1 == len(changes) or changes[index + 1][0] != time
        if last_of_its_time and (not merged or merged[-1][1] != total):
            merged.append((time, total))
    return merged


def time_weighted_average(
    series: Sequence[Point], window_start: float, window_end: float, last_window_s: float
) -> float | None:
    """Return the mean of a step function over a window of time, None if the window or the function is empty.

    Args:
        series: in the order of time; 0 before its first point.
        window_start: seconds; minus infinity for the first point's.
        window_end: seconds; minus infinity for `last_window_s` after the last point's.
        last_window_s: how long the last value holds where the end is not given, seconds.
    """
    if not series:
        return None
    start = series[0].timestamp if math.isinf(window_start) else window_start
    end = series[-1].timestamp + last_window_s if math.isinf(window_end) else window_end
    if end <= start:
        return None
    area, value, since = 0.0, 0.0, start
    for point in series:
        if point.timestamp >= end:
            break
        if point.timestamp > start:
            area += value * (point.timestamp - since)
            since = point.timestamp
        value = point.value
    return (area + value * (end - since)) / (end - start)
