"""What a client tells of itself: what became of its tasks, and what its process has measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from rabbitry.core.identity import Identity
from rabbitry_broker.events import JOB, Recorder
from rabbitry_broker.measures import Measures
from rabbitry_broker.store.events import Events
from rabbitry_broker.store.measures import StoredMeasures


class Reports:
    """Sends events and measurements. Any thread may call anything.

    Args:
        identity: who the client is.
        node: the node that this process belongs to; b"" for drivers.
        recorder: what was recorded of the client's tasks.
        measures: what this process has measured.
        events: where events go.
        measured: where measurements go.
        register: makes the client known as alive.
    """

    def __init__(
        self,
        identity: Identity,
        node: bytes,
        recorder: Recorder,
        measures: Measures,
        *,
        events: Events,
        measured: StoredMeasures,
        register: Callable[[], None],
    ) -> None:
        self._identity = identity
        self._who = {"id": identity.id, "pid": os.getpid(), "host": os.uname().nodename, "node": node}
        self._recorder = recorder
        self._measures = measures
        self._events = events
        self._measured = measured
        self._register = register

    def become(self, client: bytes) -> None:
        """What it is for: `become` of the whole."""
        self._who |= {"id": client, "pid": os.getpid()}

    def send_events(self) -> None:
        """Send what was recorded of this client's tasks, or drop it."""
        self._events.send(self._recorder, self._who)

    def send_measures(self) -> None:
        """Send what this process has measured."""
        if self._measures.gauges():
            self._register()  # they count as long as it lives
        self._measured.send(self._measures, self._identity.job, self._identity.id)

    def leave_measures(self) -> None:
        """Send what is left of the measurements: the process ends."""
        if self._measures or self._measures.gauges():
            self._measured.leave(self._measures, self._identity.job, self._identity.id)

    def job_ended(self) -> None:
        """Record that the job ends with this client."""
        now = time.time()
        self._recorder.add((JOB, now, self._identity.job, {"ended": now}), 0)
