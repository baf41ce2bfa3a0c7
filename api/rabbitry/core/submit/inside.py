"""Placement groups as places: which bundle's queue the tasks of a plan go to, and whether they fit there at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from rabbitry.core.ports import Captured
from rabbitry.scheduling import PlacementGroupSchedulingStrategy
from rabbitry_broker import queue_names as names
from rabbitry_broker.queue_names import ANY_BUNDLE
from rabbitry_broker.store.groups import REMOVED

REFRESH_SECONDS: Final = 1.0


class Place(NamedTuple):
    """A place in a group.

    Attributes:
        queue: of the bundle, or of any of the group's.
        captures: what runs there has its children run in the group too.
        route: decides for each message; it leads to the same queue.
    """

    queue: str
    captures: bool
    route: InGroup


class GroupStore(Protocol):
    """What the store does for it; see `ObjectStore`."""

    def announce_queue(self, queue: str) -> None:
        """Have nodes look at a queue."""


class Inside:
    """Finds places in placement groups. Any thread may use it.

    Args:
        store: announces queues.
        bundles: returns the resources of each bundle of a group; None if there is no such group.
        state: returns the state of a group, "" if there is none.
        current: returns the group that the calling code runs in.
    """

    def __init__(
        self,
        store: GroupStore,
        *,
        bundles: Callable[[bytes], list[dict[str, float]] | None],
        state: Callable[[bytes], str],
        current: Callable[[], Captured],
    ) -> None:
        self._store = store
        self._bundles = bundles
        self._state = state
        self._current = current

    def find(
        self, strategy: Any, what: str, request: Mapping[str, float], placement: Mapping[str, float] | None
    ) -> Place | None:
        """Return where something runs under a strategy; None if in no group.

        Args:
            strategy: None, or a `PlacementGroupSchedulingStrategy`.
            what: what it is called, for errors.
            request: the resources that it holds.
            placement: for an actor, those that it is placed with.

        Raises:
            ValueError: the group has no such bundle, or none in which it fits.
            AssertionError: the strategy names something else than a group.
        """
        current = self._current()
        group, index, captures = _asked(strategy)
        if captures is None:
            captures = current.captures
        if group == "default":
            group_id = current.group if captures else b""
            bundles = self._bundles(group_id) or [] if group_id else []
        elif not group or group.is_empty:
            group_id, bundles = b"", []
        else:
            group_id, bundles = group.id.binary(), group.bundle_specs
        if not group_id:
            if index != ANY_BUNDLE:
                raise ValueError("If placement group is not set, the value of bundle index must be -1.")
            return None
        if not ANY_BUNDLE <= index < len(bundles):
            raise ValueError(
                f"placement group bundle index {index} is invalid. Valid placement group indexes: 0-{len(bundles)}"
            )
        check_fits(what, request, placement, bundles)
        queue = _queue(group_id, index, request, placement, bundles)
        return Place(queue, captures, InGroup(self._store, self._state, group_id, queue))


def _asked(strategy: Any) -> tuple[Any, int, bool | None]:
    if strategy is None:
        return "default", ANY_BUNDLE, None
    assert isinstance(strategy, PlacementGroupSchedulingStrategy)
    group = strategy.placement_group
    if group is not None and group != "default" and not hasattr(type(group), "bundle_specs"):
        raise AssertionError(f"{group!r} is not a placement group")
    return group, strategy.placement_group_bundle_index, strategy.placement_group_capture_child_tasks


def _queue(
    group_id: bytes,
    index: int,
    request: Mapping[str, float],
    placement: Mapping[str, float] | None,
    bundles: list[dict[str, float]],
) -> str:
    """Return the queue of the bundles that will do: a node that has others only could not run it."""
    if index != ANY_BUNDLE:
        return names.bundle_queue(group_id, index)
    needs = [request] if placement is None else [request, placement]
    fitting = [at for at, bundle in enumerate(bundles) if all(fits_a_bundle(each, [bundle]) for each in needs)]
    if len(fitting) == 1:
        return names.bundle_queue(group_id, fitting[0])
    return names.bundle_queue(group_id, ANY_BUNDLE, fitting if len(fitting) < len(bundles) else ())


def fits_a_bundle(request: Mapping[str, float], bundles: list[dict[str, float]]) -> bool:
    """Return True if one of the bundles has all that is asked for (Ray's own resource `bundle` aside)."""
    return any(
        all(bundle.get(name, 0) >= amount for name, amount in request.items() if name != "bundle") for bundle in bundles
    )


def check_fits(
    what: str,
    request: Mapping[str, float],
    placement: Mapping[str, float] | None,
    bundles: list[dict[str, float]],
) -> None:
    """Raise if something could run in none of a group's bundles.

    Raises:
        ValueError: so it is.
    """
    if not fits_a_bundle(request, bundles):
        raise ValueError(
            f"Cannot schedule {what} with the placement group because the resource request {dict(request)} cannot fit "
            f"into any bundles for the placement group, {bundles}."
        )
    if placement is not None and not fits_a_bundle(placement, bundles):
        raise ValueError(
            f"Cannot schedule {what} with the placement group because the actor requires {placement.get('CPU', 0)} CPU "
            f"for creation, but it cannot fit into any bundles for the placement group, {bundles}. Consider creating "
            "a placement group with CPU resources."
        )


class InGroup:
    """Sends the tasks of one plan to a place in a group. Any thread may use it.

    A group may be removed at any time, and nodes look after its queues for a while only: what is sent to it later is
    announced anew, and fails.
    """

    def __init__(self, store: GroupStore, state: Callable[[bytes], str], group_id: bytes, queue: str) -> None:
        self._store = store
        self._state = state
        self._group_id = group_id
        self._queue = queue
        self._read_at = time.monotonic()

    def next_queue(self) -> str:
        """Return the queue of the next message."""
        now = time.monotonic()
        if now - self._read_at > REFRESH_SECONDS:
            self._read_at = now
            if self._state(self._group_id) in ("", REMOVED):
                self._store.announce_queue(self._queue)
        return self._queue
