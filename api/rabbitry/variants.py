"""Variants of a remote function or method: equal options get the same one, with its plan.

`f.options(name="x").remote()` in a loop is a common way of writing. Without this, each turn checks the options, makes a
plan and encodes its header anew: thirty times the cost of `f.remote()`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, Generic, TypeVar

from rabbitry.scheduling import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

T = TypeVar("T")

VARIANTS_KEPT: Final = 128
"""Of one function or method; the one that was made first makes room. A variant in use lives on without this."""

_PLAIN: Final = frozenset((str, int, float, bool, bytes, type(None), NodeAffinitySchedulingStrategy))
# Where tasks go is decided by the nodes there are when a plan is made: not to be kept.
_MOMENTARY: Final = frozenset(("fallback_strategy",))


class Variants(Generic[T]):
    """The variants of one function or method. Any thread may use it."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[Hashable, T] = {}

    def get(self, options: Mapping[str, Any], make: Callable[[], T]) -> T:
        """Return the variant with these options; `make` makes it."""
        if not _MOMENTARY.isdisjoint(options):
            return make()
        try:
            key = _frozen(options)
        except (_OddError, RecursionError):  # the latter for lists in themselves, which `make` refuses
            return make()
        kept = self._kept
        variant = kept.get(key)
        if variant is None:
            variant = make()
            if len(kept) >= VARIANTS_KEPT:
                kept.pop(next(iter(list(kept)), None), None)
            kept[key] = variant
        return variant


class _OddError(Exception):
    """A value that may change, or of which is not known what makes two of them equal."""


def _frozen(value: Any) -> Hashable:
    """Return what is equal for equal options only: 1, 1.0 and True are different here."""
    kind = type(value)
    if kind in _PLAIN:
        return kind, value
    if kind is dict:
        return kind, tuple([(_frozen(key), _frozen(each)) for key, each in value.items()])
    if kind is list or kind is tuple:
        return kind, tuple([_frozen(each) for each in value])
    if isinstance(value, type):
        return kind, value  # a class of exceptions
    if kind is PlacementGroupSchedulingStrategy:
        try:
            hash(value)
        except TypeError:
            raise _OddError from None
        return kind, value, type(value.placement_group_capture_child_tasks)
    raise _OddError
