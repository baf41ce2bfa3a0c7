"""Where the tasks of a plan go under their scheduling strategy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from rabbitry.core.ports import NodeRecords
from rabbitry.core.submit.inside import InGroup, Inside
from rabbitry.core.submit.routes import Bound, Preferred, RouteStore, Spread
from rabbitry.labels import any_of
from rabbitry.scheduling import PlacementGroupSchedulingStrategy
from rabbitry_broker import queue_names as names
from rabbitry_broker.resources import ResourceRequest
from rabbitry_broker.store.keys import Keys

SPREADS_KEPT = 256  # resource classes, with labels, whose turns are known


class PlacementOptions(Protocol):
    """The options that say where something runs; see `TaskOptions` and `ActorOptions`."""

    @property
    def scheduling_strategy(self) -> Any:
        """A strategy, or the name of one."""

    @property
    def label_selector(self) -> str:
        """Canonical text of a label selector, "" for none."""

    @property
    def fallback_strategy(self) -> Sequence[str]:
        """Selectors that would do as well."""


class Placement(NamedTuple):
    """Where the tasks of a plan go.

    Attributes:
        queue: the queue they go to.
        elsewhere: as `TaskHeader.elsewhere`.
        impatient: as `TaskHeader.impatient`.
        route: decides for each message instead of `queue`; None if all go there.
        bundle: as `TaskHeader.bundle`.
        captures: as `TaskHeader.captures`.
    """

    queue: str
    elsewhere: str = ""
    impatient: bool = False
    route: Bound | Preferred | Spread | InGroup | None = None
    bundle: str = ""
    captures: bool = False

    def next_queue(self) -> str:
        """Return the queue of the next message."""
        return self.route.next_queue() if self.route is not None else self.queue


class Placements:
    """Finds the queues for options. Any thread may use it.

    Args:
        store: knows which nodes live.
        keys: of the cluster.
        nodes: returns the records of all nodes.
        inside: finds places in placement groups.
        class_queue: returns the queue of a resource class and label selector.
    """

    def __init__(
        self,
        store: RouteStore,
        keys: Keys,
        nodes: NodeRecords,
        inside: Inside,
        class_queue: Callable[[str, str], str],
    ) -> None:
        self._store = store
        self._keys = keys
        self._nodes = nodes
        self._inside = inside
        self._class_queue = class_queue
        self._spread: dict[str, Spread] = {}  # by the queue that tasks go on to

    def of(
        self,
        options: PlacementOptions,
        request: ResourceRequest,
        *,
        what: str,
        holds: Mapping[str, float],
        placed_with: Mapping[str, float] | None = None,
    ) -> Placement:
        """Return where tasks go under their scheduling strategy.

        Args:
            options: of the tasks.
            request: what a node must have free.
            what: what they are called, for errors.
            holds: the resources that one holds, as it was written.
            placed_with: for an actor, those that it is placed with.

        Raises:
            ValueError: they could never run in their placement group.
        """
        strategy = options.scheduling_strategy
        if strategy is None or isinstance(strategy, PlacementGroupSchedulingStrategy):
            place = self._inside.find(strategy, what, holds, placed_with)
            if place is not None:
                return Placement(place.queue, route=place.route, bundle=place.queue, captures=place.captures)
        preferred = _selectors(options)
        selector = any_of(preferred)
        queue = self._class_queue(request.class_name, selector)
        node = getattr(strategy, "node_id", None)
        if node is not None:
            elsewhere = queue if strategy.soft else ""
            impatient = strategy._spill_on_unavailable or strategy._fail_on_unavailable
            node_id = bytes.fromhex(node)
            route = Bound(self._store, self._keys, node_id, elsewhere)
            return Placement(names.node_queue(node_id), elsewhere, impatient, route)
        if strategy == "SPREAD":
            return Placement(queue, queue, True, self._spreading(request, selector, queue))
        if len(preferred) > 1:
            return Placement(queue, queue, True, Preferred(self._nodes, request, preferred, queue))
        return Placement(queue)

    def _spreading(self, request: ResourceRequest, selector: str, queue: str) -> Spread:
        """Return who deals out all that goes on to this queue: actors have a plan each, and take turns all the same."""
        spread = self._spread.get(queue)
        if spread is None:
            if len(self._spread) >= SPREADS_KEPT:
                self._spread.clear()
            spread = self._spread[queue] = Spread(self._nodes, request, selector, queue)
        return spread


def _selectors(options: PlacementOptions) -> list[str]:
    """Return the label selectors that would do, the best first."""
    wanted = options.label_selector
    preferred = [wanted, *options.fallback_strategy]
    soft = getattr(options.scheduling_strategy, "soft_selector", None)
    if soft is not None and soft():
        preferred.insert(0, ";".join(sorted({*wanted.split(";"), *soft().split(";")} - {""})))
    return preferred
