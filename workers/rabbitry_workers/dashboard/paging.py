"""Filter, order and cut lists that are short enough to be held whole: nodes, actors, jobs and the like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rabbitry_workers.dashboard.source import Query, Rows

Row = TypeVar("Row")


def part(rows: Sequence[Row], query: Query, texts: Callable[[Row], Sequence[str]]) -> Rows[Row]:
    """Return the part of `rows` that a query asks for.

    Args:
        rows: all of them, in the order that they have without `query.sort`.
        query: what is asked for. `state`, `job`, `node` and `actor` are compared with the attributes of that name,
            for rows that have them; an actor with `id`, too.
        texts: returns what of a row the text of a query is looked for in.
    """
    wanted = query.text.strip().lower()
    found = [
        row
        for row in rows
        if (not wanted or any(wanted in text.lower() for text in texts(row)))
        and (not query.state or getattr(row, "state", query.state) == query.state)
        and (not query.job or getattr(row, "job", query.job) == query.job)
        and (not query.node or getattr(row, "node", query.node) == query.node)
    ]
    if query.sort:
        found.sort(key=lambda row: order_of(getattr(row, query.sort, None)), reverse=query.descending)
    return Rows(found[query.offset : query.offset + query.limit], len(found))


def order_of(value: Any) -> tuple[Any, ...]:
    """Return what to sort a value by: what is not known comes first, texts without regard to case.

    Example:
        >>> sorted([3, None, 1], key=order_of)
        [None, 1, 3]
    """
    if value is None:
        return (0,)
    if isinstance(value, str):
        return (1, value.lower())
    if isinstance(value, (bool, int, float)):
        return (1, value)
    if isinstance(value, tuple) and len(value) == 2 and value[1]:  # (used, total)
        return (1, value[0] / value[1])
    return (1, len(value))
