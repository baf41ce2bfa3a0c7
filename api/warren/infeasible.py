"""Warns once of work that no node could ever run: it stays queued, and a silent wait would puzzle its user."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from warren_broker.errors import WarrenBrokerError
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
        """Warn of resource classes in use that fit no living node for `PATIENCE_SECONDS`."""
        from warren.cluster import node_records

        client = self._client
        used = client.classes_in_use()
        fresh = [name for name in used if name not in self._warned]
        if not fresh:
            return
        try:
            totals = [ResourceRequest.from_floats(node["totals"]) for node in node_records(client) if node["alive"]]
        except WarrenBrokerError:
            return  # Redis does not answer at the moment; others tell of that
        now = time.monotonic()
        for name in fresh:
            missing = ResourceRequest.parse(name).missing_from(totals)
            if not missing:
                self._since.pop(name, None)
            elif now - self._since.setdefault(name, now) >= PATIENCE_SECONDS - CHECK_SECONDS:
                self._warned.add(name)
                log.warning(
                    "Tasks or actors that need %s wait, and no living node could ever run them: %s. They stay queued "
                    "until a node that can joins.",
                    name,
                    missing,
                )
