"""Placement groups, as a client deals with them: made, waited for, removed, looked up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from rabbitry.core.flight import Flight
from rabbitry.core.identity import Identity
from rabbitry.core.lives.references import References
from rabbitry.exceptions import TaskPlacementGroupRemoved, store_error
from rabbitry.nodes import why_group_infeasible
from rabbitry.object_ref import ObjectRef, made_here
from rabbitry_broker import records
from rabbitry_broker.ids import FIRST_INDEX, TaskIds, new_group_id
from rabbitry_broker.resources import ResourceRequest
from rabbitry_broker.store.groups import CREATED, PENDING, PREPARED, REMOVED, Group, GroupSpec

PENDING_KEPT: Final = 100
"""Groups that do not stand yet of which a client looks whether they ever could."""

BUNDLES_KEPT: Final = 1000
"""Groups whose bundles a client remembers, so that not each plan asks the store."""


class Records(Protocol):
    """The records of groups; see `rabbitry_broker.store.groups.GroupRecords`."""

    def create(self, group_id: bytes, spec: GroupSpec) -> bytes | None:
        """Register a group; return the id of the living one that has its name, None if none has."""

    def remove(self, group_id: bytes) -> str:
        """Remove a group."""

    def wait(self, group_id: bytes, object_id: bytes, record: bytes) -> str:
        """Have an object get a record once the group stands; return the state it is in."""

    def read(self, group_ids: Sequence[bytes]) -> list[Group | None]:
        """Return records."""

    def states(self, group_ids: Sequence[bytes]) -> list[str]:
        """Return the state of each group, "" where there is none."""

    def by_name(self, namespace: str, name: str) -> bytes | None:
        """Return the id of the living group of that name."""

    def ids(self) -> list[bytes]:
        """Return the ids of all groups that are not removed."""

    def removed(self) -> list[bytes]:
        """Return the ids of those that were removed lately."""


class Pending:
    """The groups that this client asked for and that do not stand yet. Any thread may use it.

    Args:
        records: of groups.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._specs: dict[bytes, GroupSpec] = {}

    def add(self, group_id: bytes, spec: GroupSpec) -> None:
        """A group was asked for."""
        if len(self._specs) < PENDING_KEPT:
            self._specs[group_id] = spec

    def __bool__(self) -> bool:
        return bool(self._specs)

    def unserved(self, living: list[dict[str, Any]]) -> list[tuple[str, str]]:
        """Return (what is needed, what is missing) of those that could never stand on these nodes."""
        ids = list(self._specs)
        found = []
        for group_id, state in zip(ids, self._records.states(ids), strict=True):
            if state not in (PENDING, PREPARED):
                self._specs.pop(group_id, None)
            elif spec := self._specs.get(group_id):
                bundles = [(resources, spec.selector(index)) for index, resources in enumerate(spec.bundles)]
                missing = why_group_infeasible(bundles, spec.strategy, living)
                if missing:
                    name = f" {spec.name!r}" if spec.name else ""
                    found.append((f"the placement group{name} of {spec.strategy} [{'; '.join(spec.bundles)}]", missing))
        return found


class Groups:
    """The placement groups of one client. Any thread may use it.

    Args:
        identity: of the client.
        records: of groups.
        ids: of tasks: an object that tells of a group is made like a result.
        flight: counts what is waited for, so that somebody reads the inbox.
        references: counts handles.
        put: stores a value that is there already.
        is_known: True for an object whose record is here.
        commit_errors: stores errors where results would stand.
        make_known: makes them known here.
        register: makes the client known as alive.
    """

    def __init__(
        self,
        identity: Identity,
        records: Records,
        ids: TaskIds,
        flight: Flight,
        references: References,
        *,
        put: Callable[[Any], ObjectRef[Any]],
        is_known: Callable[[bytes], bool],
        commit_errors: Callable[[Sequence[bytes]], None],
        make_known: Callable[[list[bytes]], None],
        register: Callable[[], None],
    ) -> None:
        self._job = identity.job
        self._records = records
        self._ids = ids
        self._flight = flight
        self._references = references
        self._put = put
        self._is_known = is_known
        self._commit_errors = commit_errors
        self._make_known = make_known
        self._register = register
        self._bundles: dict[bytes, list[dict[str, float]]] = {}
        self.pending = Pending(records)
        self._awaited: dict[bytes, ObjectRef[Any]] = {}  # by group: one object tells all who ask while it is pending

    def create(self, spec: GroupSpec) -> tuple[bytes, bytes | None]:
        """Ask for a group.

        Returns:
            (its id, None), or (the id it would have had, the id of the living group that has its name).

        Raises:
            ObjectStoreFull: no room.
        """
        self._register()
        group_id = new_group_id(self._job)
        taken = self._records.create(group_id, spec)
        if taken is None:
            self.pending.add(group_id, spec)
        return group_id, taken

    def remove(self, group_id: bytes) -> None:
        """Remove a group; nothing happens if there is none."""
        self._records.remove(group_id)
        self._bundles.pop(group_id, None)

    def ready(self, group_id: bytes, handle: Any, packed: bytes) -> ObjectRef[Any]:
        """Return a ref that resolves to the group's handle once it stands.

        Args:
            group_id: of the group.
            handle: what the ref is to resolve to.
            packed: the same, pickled.

        Raises:
            ObjectStoreFull: no room.
        """
        awaited = self._awaited.get(group_id)
        if awaited is not None and not self._is_known(awaited._id):
            return awaited
        self._register()
        key = self._ids.next() + FIRST_INDEX
        ref: ObjectRef[Any] = made_here(key, self._references)
        with self._flight.lock:
            self._flight.count += 1  # before it can be told of
        state = ""
        try:
            state = self._records.wait(group_id, key, records.plain(packed))
        finally:
            if state in ("", CREATED, REMOVED):
                self._flight.ended(1)
        if state == CREATED:
            return self._put(handle)
        if state in ("", REMOVED):
            gone = [key, records.ERROR + store_error(TaskPlacementGroupRemoved())]
            self._commit_errors(gone)
            self._make_known(gone)
        else:
            self._awaited[group_id] = ref
        return ref

    @property
    def waits(self) -> bool:
        """True while objects are kept that tell of groups."""
        return bool(self._awaited)

    def run_once(self) -> None:
        """Let go of objects that have told of their groups: whoever asks later asks anew."""
        for group_id, ref in list(self._awaited.items()):
            if self._is_known(ref._id):
                self._awaited.pop(group_id, None)

    def bundles(self, group_id: bytes) -> list[dict[str, float]] | None:
        """Return the resources of each bundle; None if there is no such group."""
        known = self._bundles.get(group_id)
        if known is None:
            (group,) = self._records.read([group_id])
            if group is None:
                return None
            known = [ResourceRequest.parse(each).to_floats() for each in group.spec.bundles]
            self.remember(group_id, known)
        return known

    def remember(self, group_id: bytes, bundles: list[dict[str, float]]) -> None:
        """Keep the resources of a group's bundles, which never change."""
        if len(self._bundles) >= BUNDLES_KEPT:
            self._bundles.pop(next(iter(list(self._bundles))), None)
        self._bundles[group_id] = bundles

    def by_name(self, namespace: str, name: str) -> bytes | None:
        """Return the id of the living group of that name."""
        return self._records.by_name(namespace, name)

    def table(self, group_id: bytes | None) -> list[Group]:
        """Return the record of one group, or those of all, the ones removed lately included."""
        ids = [*self._records.removed(), *self._records.ids()] if group_id is None else [group_id]
        return [group for group in self._records.read(ids) if group is not None]
