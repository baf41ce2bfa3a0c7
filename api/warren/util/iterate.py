"""Going through results as they become ready."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from warren.calls import get, wait
from warren.object_ref import ObjectRef


def as_completed(
    refs: Sequence[ObjectRef[Any]], *, chunk_size: int = 10, yield_obj_refs: bool = False, **wait_options: Any
) -> Iterator[Any]:
    """Yield results as they become ready, in no order.

    Args:
        refs: what to wait for.
        chunk_size: how many are fetched at a time.
        yield_obj_refs: yield refs, not values.
        wait_options: further arguments of `warren.wait`.

    Raises:
        ValueError: `chunk_size` is below 1, or `num_returns` is among the options.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    if "num_returns" in wait_options:
        raise ValueError("num_returns is set by chunk_size here")
    return _as_completed(list(refs), chunk_size, yield_obj_refs, wait_options)


def _as_completed(
    waiting: list[ObjectRef[Any]], chunk_size: int, yield_obj_refs: bool, wait_options: dict[str, Any]
) -> Iterator[Any]:
    while waiting:
        ready, waiting = wait(waiting, num_returns=min(chunk_size, len(waiting)), **wait_options)
        yield from ready if yield_obj_refs else get(ready)


def map_unordered(
    remote_function: Any,
    items: Iterable[Any],
    *,
    backpressure_size: int | None = 100,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
) -> Iterator[Any]:
    """Call a remote function (or actor method) on each item; yield results as they become ready, in no order.

    Args:
        remote_function: called as `remote_function.remote(item)`.
        items: what to call it on.
        backpressure_size: how many may be under way at once; None for all.
        chunk_size: how many are fetched at a time.
        yield_obj_refs: yield refs, not values.

    Raises:
        ValueError: a size is below 1.
    """
    limit = float("inf") if backpressure_size is None else backpressure_size
    if chunk_size < 1 or limit < chunk_size:
        raise ValueError(f"chunk_size ({chunk_size}) must be at least 1, and backpressure_size ({limit}) no less")
    return _map_unordered(remote_function, items, limit, chunk_size, yield_obj_refs)


def _map_unordered(
    remote_function: Any, items: Iterable[Any], limit: float, chunk_size: int, yield_obj_refs: bool
) -> Iterator[Any]:
    under_way: list[ObjectRef[Any]] = []
    for item in items:
        under_way.append(remote_function.remote(item))
        while len(under_way) >= limit:
            ready, under_way = wait(under_way, num_returns=min(chunk_size, len(under_way)))
            yield from ready if yield_obj_refs else get(ready)
    yield from as_completed(under_way, chunk_size=chunk_size, yield_obj_refs=yield_obj_refs)
