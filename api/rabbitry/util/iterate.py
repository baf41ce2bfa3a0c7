"""Going through results as they become ready."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar, overload

from rabbitry.arguments import shown, whole, wrong_type
from rabbitry.calls import get, wait
from rabbitry.object_ref import ObjectRef

T = TypeVar("T")


@overload
def as_completed(
    refs: Sequence[ObjectRef[T]], *, chunk_size: int = 10, yield_obj_refs: Literal[True], **wait_options: Any
) -> Iterator[ObjectRef[T]]: ...
@overload
def as_completed(
    refs: Sequence[ObjectRef[T]], *, chunk_size: int = 10, yield_obj_refs: Literal[False] = False, **wait_options: Any
) -> Iterator[T]: ...
@overload
def as_completed(
    refs: Sequence[ObjectRef[Any]], *, chunk_size: int = 10, yield_obj_refs: bool, **wait_options: Any
) -> Iterator[Any]: ...
def as_completed(
    refs: Sequence[ObjectRef[Any]], *, chunk_size: int = 10, yield_obj_refs: bool = False, **wait_options: Any
) -> Iterator[Any]:
    """Yield results as they become ready, in no order.

    Args:
        refs: what to wait for.
        chunk_size: how many are fetched at a time.
        yield_obj_refs: yield refs, not values.
        wait_options: further arguments of `rabbitry.wait`.

    Raises:
        TypeError: `refs` is no list, or `chunk_size` no int.
        ValueError: `chunk_size` is below 1, or `num_returns` is among the options.
    """
    chunk_size = whole("chunk_size", chunk_size, least=1, expected="an int of 1 or more")
    if "num_returns" in wait_options:
        raise ValueError("num_returns is set by chunk_size here")
    if not isinstance(refs, Iterable):
        raise wrong_type("refs", refs, "a list of ObjectRefs")
    return _as_completed(list(refs), chunk_size, yield_obj_refs, wait_options)


def _as_completed(
    waiting: list[ObjectRef[Any]], chunk_size: int, yield_obj_refs: bool, wait_options: dict[str, Any]
) -> Iterator[Any]:
    while waiting:
        ready, waiting = wait(waiting, num_returns=min(chunk_size, len(waiting)), **wait_options)
        yield from ready if yield_obj_refs else get(ready)


def map_unordered(
    fn: Any,
    items: Iterable[Any],
    *,
    backpressure_size: int | None = 100,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
) -> Iterator[Any]:
    """Call a remote function (or actor method) on each item; yield results as they become ready, in no order.

    Args:
        fn: called as `fn.remote(item)`.
        items: what to call it on.
        backpressure_size: how many may be under way at once; None for all.
        chunk_size: how many are fetched at a time.
        yield_obj_refs: yield refs, not values.

    Raises:
        TypeError: `fn` has no `remote`, `items` cannot be iterated over, or a size is no int.
        ValueError: a size is below 1, or `backpressure_size` below `chunk_size`.
    """
    chunk_size = whole("chunk_size", chunk_size, least=1, expected="an int of 1 or more")
    limit = float("inf")
    if backpressure_size is not None:
        limit = whole("backpressure_size", backpressure_size, least=1, expected="an int of 1 or more, or None")
    if limit < chunk_size:
        raise ValueError(f"backpressure_size ({limit}) must be no less than chunk_size ({chunk_size}).")
    if not hasattr(fn, "remote"):
        raise TypeError(f"map_unordered() takes a remote function or an actor's method, got {shown(fn)}.")
    if not isinstance(items, Iterable):
        raise wrong_type("items", items, "an iterable")
    return _map_unordered(fn, items, limit, chunk_size, yield_obj_refs)


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
