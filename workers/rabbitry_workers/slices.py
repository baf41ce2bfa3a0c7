"""Commits of many results in slices: Redis runs a script to its end before it answers anybody else.

A task's results count as there when the last one is (`node.outcome.redelivery`), and its owner takes the task for ended
when it has the first one. So these two go with the last slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from rabbitry_broker.ids import TASK_BYTES

SLICE_RESULTS: Final = 4000
"""Results that one script commits, about: 20 ms. Owners look through all they wait for with each slice."""


def in_slices(items: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Cut results (id, record, id, record, ...) into slices.

    All results of a task that has no more than a slice stay together. At least one slice comes, if only an empty one.

    >>> [len(part) // 2 for part in in_slices([b"t" * 28, b"record"] * 10000)]
    [4000, 4000, 1998, 2]
    """
    if len(items) <= 2 * SLICE_RESULTS:
        yield list(items)
        return
    whole: list[bytes] = []
    for _, group in groupby(range(0, len(items), 2), key=lambda at: items[at][:TASK_BYTES]):
        places = list(group)
        if len(places) > SLICE_RESULTS:
            inner = places[1:-1]
            for start in range(0, len(inner), SLICE_RESULTS):
                yield _pairs(items, inner[start : start + SLICE_RESULTS])
            places = [places[0], places[-1]]
        if len(whole) // 2 + len(places) > SLICE_RESULTS and whole:
            yield whole
            whole = []
        whole += _pairs(items, places)
    yield whole


def _pairs(items: Sequence[bytes], places: list[int]) -> list[bytes]:
    return [part for at in places for part in items[at : at + 2]]
