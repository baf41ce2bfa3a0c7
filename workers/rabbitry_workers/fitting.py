"""How many nodes would have to come for what is asked for: bins that are filled, first fit, the largest first.

What is requested counts as a whole, so it is laid into nodes as if they were empty. What waits is laid into what is
free, and into nodes that come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rabbitry.demand import Demand, GroupNeed, Need
from rabbitry.labels import matches
from rabbitry.nodes import labels_of
from rabbitry_broker.resources import ResourceRequest

COUNTED: Final = 10_000  # of one kind: more nodes than that nobody has


@dataclass(frozen=True)
class Shape:
    """What a node has that comes.

    Attributes:
        totals: its resources.
        labels: its labels.
    """

    totals: ResourceRequest
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fit:
    """What it comes to.

    Attributes:
        coming: nodes that have to come.
        hopeless: what fits neither a node that is there nor one that may come: (resource class, selector).
    """

    coming: int
    hopeless: tuple[tuple[str, str], ...] = ()


class _Bin:
    def __init__(self, free: ResourceRequest, labels: Mapping[str, str]) -> None:
        self.free = free.to_units()
        self.labels = labels

    def times(self, request: ResourceRequest, selector: str, at_most: int) -> int:
        """Return how many fit, up to `at_most`."""
        if not matches(selector, self.labels):
            return 0
        free = self.free
        return min([free.get(name, 0) // units for name, units in request.units], default=at_most)

    def take(self, request: ResourceRequest, count: int) -> None:
        for name, units in request.units:
            self.free[name] = self.free.get(name, 0) - units * count


class _Bins:
    """Nodes that are there, and those that come."""

    def __init__(self, there: list[_Bin], shape: Shape, coming: int) -> None:
        self._there = there
        self._shape = shape
        self.coming = [self._new() for _ in range(coming)]

    def _new(self) -> _Bin:
        return _Bin(self._shape.totals, self._shape.labels)

    def put(self, request: ResourceRequest, selector: str, count: int) -> bool:
        """Lay so many of one kind into bins; False if a node that comes could not take one of those that are left."""
        for each in (*self._there, *self.coming):
            taken = min(count, each.times(request, selector, count))
            each.take(request, taken)
            count -= taken
        while count:
            new = self._new()
            taken = min(count, new.times(request, selector, count))
            if not taken:
                return False
            new.take(request, taken)
            count -= taken
            self.coming.append(new)
        return True

    def put_apart(self, bundles: list[tuple[ResourceRequest, str]]) -> bool:
        """Lay bundles into bins of which each takes one."""
        used: set[int] = set()
        for request, selector in bundles:
            for each in (*self._there, *self.coming):
                if id(each) not in used and each.times(request, selector, 1):
                    break
            else:
                each = self._new()
                if not each.times(request, selector, 1):
                    return False
                self.coming.append(each)
            each.take(request, 1)
            used.add(id(each))
        return True

    def put_group(self, group: GroupNeed) -> bool:
        """Lay the bundles of a placement group into bins, as its strategy says."""
        bundles = [(ResourceRequest.parse(resources), selector) for resources, selector in group.bundles]
        if group.strategy == "STRICT_PACK":
            total: dict[str, int] = {}
            for request, _ in bundles:
                for name, units in request.units:
                    total[name] = total.get(name, 0) + units
            selector = ";".join(sorted({part for _, each in bundles for part in each.split(";") if part}))
            return self.put(ResourceRequest.from_units(total), selector, 1)
        if group.strategy == "STRICT_SPREAD":
            return self.put_apart(bundles)
        fitting = [self.put(request, selector, 1) for request, selector in bundles]
        return all(fitting)


def fit(demand: Demand, shape: Shape, *, on_their_way: int = 0, without: Iterable[bytes] = ()) -> Fit:
    """Return how many nodes have to come, beyond those on their way.

    Args:
        demand: what is asked for.
        shape: what a node has that comes.
        on_their_way: nodes that were asked for and have not come yet.
        without: ids of nodes that are left out, as if they were gone.
    """
    left_out = frozenset(without)
    nodes = [node for node in demand.nodes if not node["draining"] and node["id"] not in left_out]
    hopeless: list[tuple[str, str]] = []
    whole = _Bins([_bin(node, "totals") for node in nodes], shape, on_their_way)
    _put_all(whole, demand.requested, hopeless)
    free = _Bins([_bin(node, "available") for node in nodes], shape, len(whole.coming))
    for group in demand.groups:
        if not free.put_group(group):
            hopeless += group.bundles
    _put_all(free, demand.queued, hopeless)
    return Fit(len(free.coming) - on_their_way, tuple(dict.fromkeys(hopeless)))


def _bin(node: Mapping[str, Any], field: str) -> _Bin:
    return _Bin(ResourceRequest.free(node[field]), labels_of(node))


def _put_all(bins: _Bins, needs: Iterable[Need], hopeless: list[tuple[str, str]]) -> None:
    parsed = [(ResourceRequest.parse(need.resources), need) for need in needs]
    # What is hard to place goes first, for what is easy fits into what is left.
    parsed.sort(key=lambda each: _hardness(each[0]), reverse=True)
    for request, need in parsed:
        if not bins.put(request, need.selector, min(need.number, COUNTED)):
            hopeless.append((need.resources, need.selector))


def _hardness(request: ResourceRequest) -> tuple[int, int]:
    return len(request.units), max([units for _, units in request.units], default=0)
