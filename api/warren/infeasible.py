"""Warns once of work that no node could ever run: it stays queued, and a silent wait would puzzle its user."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from warren.cluster import could_run, labels_of, node_records
from warren.labels import matches
from warren_broker.errors import WarrenBrokerError
from warren_broker.queues import names
from warren_broker.queues.names import QueueKind, QueueName
from warren_broker.resources import ResourceRequest

if TYPE_CHECKING:
    from warren.client import Client

log = logging.getLogger("warren")

CHECK_SECONDS = 2.0
PATIENCE_SECONDS = 10.0


class InfeasibleCheck:
    """Service of a client: `run_once` is called by its service thread while work is in flight."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._since: dict[str, float] = {}
        self._warned: set[str] = set()

    def run_once(self) -> None:
        """Warn of queues in use that no living node could serve for `PATIENCE_SECONDS`, once for each."""
        client = self._client
        fresh = sorted(client.queues_used - self._warned)
        if not fresh:
            return
        try:
            living = [node for node in node_records(client) if node["alive"]]
        except WarrenBrokerError:
            return  # Redis does not answer at the moment; others tell of that
        now = time.monotonic()
        for queue in fresh:
            place = names.parse(queue)
            missing = _missing(place, living) if place.kind is QueueKind.TASK else ""
            if not missing:
                self._since.pop(queue, None)
            elif now - self._since.setdefault(queue, now) >= PATIENCE_SECONDS - CHECK_SECONDS:
                self._warned.add(queue)
                log.warning(
                    "Tasks or actors that need %s wait, and no living node could ever run them: %s. They stay queued "
                    "until a node that can joins.",
                    place.resource_class + (f" and labels {place.selector}" if place.selector else ""),
                    missing,
                )


def _missing(place: QueueName, living: list[dict[str, Any]]) -> str:
    """Return what keeps every living node from serving a queue, "" if one could."""
    request = ResourceRequest.parse(place.resource_class)
    if any(could_run(node, request, place.selector) for node in living):
        return ""
    fitting = [node for node in living if matches(place.selector, labels_of(node))]
    if living and not fitting:
        return f"no node has fitting labels for {place.selector}"
    missing = request.missing_from([ResourceRequest.from_floats(node["totals"]) for node in fitting])
    return missing + (f" (among the nodes with fitting labels: {len(fitting)})" if place.selector else "")
