"""What programs measure, added up in the store: one hash for each job, bounded by the number of its series.

It goes an hour after the job's processes have measured something last. Values are numbers and names are data: nothing
here is ever unpickled.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Final, Protocol

from rabbitry_broker.environment import number
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import JOB_BYTES
from rabbitry_broker.measures import GAUGE, Entry, Measures, field_of
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.server import Server

SERIES_VARIABLE: Final = "RABBITRY_METRICS_SERIES"
DEFAULT_SERIES: Final = 10_000
KEPT_SECONDS: Final = 3600
AT_ONCE: Final = 500
PATIENCE_SECONDS: Final = 0.5


class Caller(Protocol):
    """A connection to Redis, or what has one."""

    def call(self, *args: Any) -> Any:
        """Run one command and return its reply."""


class StoredMeasures:
    """Sends what a process has measured. Any thread may call it.

    Args:
        server: to which it goes.
        keys: of the cluster.
    """

    def __init__(self, server: Server, keys: Keys) -> None:
        self._server = server
        self._keys = keys
        self._sending = threading.Lock()
        self._batch = 0
        self._unsure: list[Any] = []  # a batch whose reply has not come: sent again as it was, it counts once

    def send(self, measures: Measures, job: bytes, client: bytes) -> None:
        """Send all that was measured. What cannot be sent now is kept, and sent with the next.

        Args:
            measures: of the process.
            job: that it works for.
            client: in it.
        """
        with self._sending:
            self._send(measures, job, client)

    def _send(self, measures: Measures, job: bytes, client: bytes) -> None:
        limit = number(SERIES_VARIABLE, int, DEFAULT_SERIES, unit="series")
        entries = measures.take()
        try:
            with self._server.within(time.monotonic() + PATIENCE_SECONDS):
                while self._unsure or entries:
                    if not self._unsure:
                        self._batch += 1
                        self._unsure, entries = _flat(entries[:AT_ONCE], client), entries[AT_ONCE:]
                    measures.dropped += self._server.script(
                        "add_measures",
                        self._keys.measures(job),
                        self._keys.last_measures(client),
                        self._batch,
                        limit,
                        KEPT_SECONDS,
                        *self._unsure,
                    )
                    self._unsure = []
        except RabbitryBrokerError:
            measures.put_back(entries)

    def leave(self, measures: Measures, job: bytes, client: bytes) -> None:
        """The process ends: what it measured is sent, and its gauges go."""
        self.send(measures, job, client)
        gauges = [field_of(series, client) for series in measures.gauges()]
        if gauges:
            self._server.call(b"HDEL", self._keys.measures(job), *gauges)


def _flat(entries: list[Entry], client: bytes) -> list[Any]:
    flat: list[Any] = []
    for how, series, value in entries:
        field = field_of(series, client if series[0] == GAUGE else b"")
        flat += (how, field, value if isinstance(value, bytes) else repr(value))
    return flat


def read(store: Caller, keys: Keys) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    """Yield (job, as hexadecimal digits, and its fields) of what the programs of each job have measured."""
    start = len(keys.measures(b""))
    cursor: Any = b"0"
    while True:
        cursor, found = store.call(b"SCAN", cursor, b"MATCH", keys.measures(b"") + b"*", b"COUNT", 1000)
        for key in found:
            if len(key) - start != 2 * JOB_BYTES:
                continue  # of a client
            flat = store.call(b"HGETALL", key)
            yield key[start:], dict(zip(flat[::2], flat[1::2], strict=True))
        if cursor == b"0":
            return
