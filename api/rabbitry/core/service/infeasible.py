"""Warns once of work that no node could ever run: it stays queued, and a silent wait would puzzle its user."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Protocol

from rabbitry.core.ports import NodeRecords
from rabbitry.nodes import why_infeasible
from rabbitry_broker import queue_names as names
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.queue_names import QueueKind, QueueName
from rabbitry_broker.resources import ResourceRequest

log = logging.getLogger("rabbitry")

CHECK_SECONDS = 1.0
SOON_SECONDS = 0.25  # between two looks while there is something that is not known to have a place
PATIENCE_SECONDS = 1.0  # a node may be just about to join; with both looks the warning comes within two seconds
QUEUES_KEPT = 1000


class MayWait(Protocol):
    """Something that may wait for a node that never comes; true while there is any of it."""

    def __bool__(self) -> bool:
        """True if something waits, as far as is known."""

    def unserved(self, living: list[dict[str, Any]]) -> Iterable[tuple[str, str]]:
        """Return (what is needed, what is missing) of what none of these nodes could serve."""


class InfeasibleCheck:
    """Looks whether the work of one client could run anywhere. `run_once` is the service thread's.

    Args:
        nodes: returns the records of all nodes.

    Attributes:
        queues_used: by tasks and creations of actors, the last `QUEUES_KEPT`.
        also: what else may wait for ever, such as placement groups.
    """

    def __init__(self, nodes: NodeRecords) -> None:
        self._nodes = nodes
        self._looked_at = float("-inf")
        self._looked = frozenset[str]()
        self.also: list[MayWait] = []
        self._since: dict[str, float] = {}
        self._warned: set[str] = set()
        self.queues_used: dict[str, None] = {}

    def note_queue(self, queue: str) -> None:
        """A plan leads to this queue. Any thread may call this."""
        queues = self.queues_used
        queues.pop(queue, None)
        queues[queue] = None
        if len(queues) > QUEUES_KEPT:
            with suppress(StopIteration, KeyError, RuntimeError):  # another thread was faster
                del queues[next(iter(queues))]

    def is_due(self) -> bool:
        """True if it is time for a look: at once for what was not looked at yet, soon for what had no place then."""
        if self._since.keys() - self._warned or not self._looked.issuperset(list(self.queues_used)):
            return True
        return time.monotonic() - self._looked_at >= CHECK_SECONDS

    def run_once(self) -> None:
        """Warn of what no living node could serve for `PATIENCE_SECONDS`, once for each."""
        used = list(self.queues_used)
        if not used and not any(self.also):
            return
        try:
            living = [node for node in self._nodes() if node["alive"]]
            found = dict(self._unserved(used, living))
        except RabbitryBrokerError:
            return  # Redis does not answer at the moment; others tell of that
        self._looked_at, self._looked = time.monotonic(), frozenset(used)
        self._warned.intersection_update(found)  # what had a place for a while is told of again
        self._since = {what: self._since.get(what, self._looked_at) for what in found}
        for what, missing in found.items():
            if what not in self._warned and self._looked_at - self._since[what] >= PATIENCE_SECONDS:
                self._warned.add(what)
                log.warning(
                    "Tasks or actors that need %s wait, and no living node could ever run them: %s. They stay queued "
                    "until a node that can joins.",
                    what,
                    missing,
                )

    def unserved(self) -> list[tuple[str, str]]:
        """Return (what is needed, what is missing) of what no living node could serve now.

        Any thread may call this.

        Raises:
            RabbitryBrokerError: the store does not answer.
        """
        used = list(self.queues_used)
        if not used and not any(self.also):
            return []
        return list(self._unserved(used, [node for node in self._nodes() if node["alive"]]))

    def _unserved(self, used: list[str], living: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
        for place in map(names.parse, used):
            if place.kind is QueueKind.TASK and (missing := _missing(place, living)):
                yield _needed(place), missing
        for each in self.also:
            if each:
                yield from each.unserved(living)


def _needed(place: QueueName) -> str:
    return place.resource_class + (f" and labels {place.selector}" if place.selector else "")


def _missing(place: QueueName, living: list[dict[str, Any]]) -> str:
    """Return what keeps every living node from serving a queue, "" if one could."""
    return why_infeasible(ResourceRequest.parse(place.resource_class), place.selector, living)
