"""What a node knows of jobs: what their executors must be told, and which of them have ended."""

from __future__ import annotations

import math
from typing import Any, Final

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.messages import decode
from rabbitry_broker.signing import ForgedMessage
from rabbitry_broker.store.functions import Kind, job_digest
from rabbitry_workers.node.model.node import Node

JOBS_KEPT: Final = 256


class Jobs:
    """Loop thread only. `JOBS_KEPT` bounds what is kept."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._known: dict[bytes, dict[str, Any]] = {}
        self._ended: dict[bytes, None] = {}  # the latest last

    def facts(self, job: bytes) -> dict[str, Any]:
        """Return what is known of a job: its driver's sys.path, working directory, namespace.

        Nothing is known of one whose driver has left, unless detached work of it is kept in the store.
        """
        known = self._known.get(job)
        if known is None:
            node = self._node
            try:
                record = node.store.job(job)
                if record is None:
                    record = node.store.functions.find(job_digest(job), Kind.JOB)
                known = decode(record) if record else {}
            except (ForgedMessage, ValueError):
                known = {}
            if not isinstance(known, dict):
                known = {}
            if len(self._known) > JOBS_KEPT:
                self._known.clear()
            self._known[job] = known
        return known

    def share(self, job: bytes) -> float:
        """Return the weight of a job's work beside that of others; 1 while it cannot be known."""
        try:
            share = self.facts(job).get("share", 1.0)
        except RabbitryBrokerError:
            return 1.0
        return share if isinstance(share, float) and 0.0 < share < math.inf else 1.0

    def end(self, job: bytes) -> None:
        """Its driver said goodbye."""
        self._known.pop(job, None)
        self._ended[job] = None
        if len(self._ended) > JOBS_KEPT:
            del self._ended[next(iter(self._ended))]

    def has_ended(self, job: bytes) -> bool:
        """True if its driver said goodbye, not long ago, and nothing detached of it goes on."""
        if job not in self._ended:
            return False
        try:
            return not self.facts(job)
        except RabbitryBrokerError:
            return True
