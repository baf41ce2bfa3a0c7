"""Resolved values, and what becomes of a result that comes: kept, handed to a stream, or let go of. HOT PATH."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from rabbitry.core.flight import Flight
from rabbitry.core.lives.references import References
from rabbitry.core.resolve.streams import Stream, stream_pin
from rabbitry.hidden_frames import of_errors_of_tasks
from rabbitry_broker.ids import TASK_BYTES
from rabbitry_broker.messages import Completion
from rabbitry_broker.records import ERROR_TAG

COUNTED_KEPT = 10_000  # tasks found ended by a poll whose completions may come yet

__tracebackhide__ = of_errors_of_tasks


class Unread(Protocol):
    """Hears of failed results; see `UnhandledErrors`."""

    @property
    def due(self) -> deque[tuple[bytes, bytes]]:
        """What is to be told."""

    def came(self, key: bytes, record: bytes) -> None:
        """A failed result came, and there are handles on it."""

    def came_unheld(self, key: bytes, record: bytes) -> None:
        """A result came for which there is no handle."""

    def read(self, keys: Iterable[bytes]) -> None:
        """Somebody learnt of these failures."""


class Values:
    """The records of objects that are known here, and all that a completion changes. Any thread may call anything.

    Args:
        references: handles on objects; its lock is held while records and handles change together.
        flight: what is in flight.
        streams: those whose generators live, by task id.
        records: of resolved objects, by id (shared with the parts that let go of them).
        returned: objects of ours that were dropped before: a poll finds them, and no task has ended by that.
        unread: hears of failures.
        unheld: hears of results without handles.
        kick: has the service thread look.

    Attributes:
        generation: another object whenever something was made known.
        error_listeners: of those who wait for many; under `References.lock`.
        callbacks: on objects that are not here; under `References.lock`.
        due: callbacks on what has come, for the thread that runs them: it is awake, or woken by who brings it.
        subscribed: objects of others that this client is told of.
    """

    def __init__(
        self,
        references: References,
        flight: Flight,
        streams: Mapping[bytes, Stream],
        *,
        records: dict[bytes, bytes],
        returned: set[bytes],
        unread: Unread,
        unheld: Callable[[bytes, bytes], None],
        kick: Callable[[], None],
    ) -> None:
        self._references = references
        self._flight = flight
        self._streams = streams
        self._returned = returned
        self._unread = unread
        self._unheld = unheld
        self._kick = kick
        self._counted: set[bytes] = set()  # tasks whose end was noticed before their completion came
        self.records = records
        self.generation = object()
        self.error_listeners: list[list[bytes]] = []
        self.callbacks: dict[bytes, list[Callable[[], None]]] = {}
        self.due: deque[Callable[[], None]] = deque()
        self.subscribed: set[bytes] = set()

    def accept(self, completion: Completion) -> None:
        """Make the results of a completion known here, and count its tasks as ended."""
        tasks = completion.tasks
        if self._counted and tasks:
            ended = {key[:TASK_BYTES] for key in completion.items[::2]}
            ended.update(completion.ended)
            counted = ended & self._counted
            self._counted -= counted
            tasks -= len(counted)
        self._keep(completion)
        if tasks > 0:
            self._flight.ended(tasks)

    def accept_early(self, items: list[bytes]) -> None:
        """Make results known that were found before their completions came, or whose completions got lost."""
        self._keep(Completion(b"", 0, 0.0, items))
        self.count_early(items[::2])

    def count_early(self, keys: list[bytes]) -> None:
        """Tasks have ended whose completion is on its way, or will never come: count each once."""
        owns, returned = self._references.owns, self._returned
        ended = {key[:TASK_BYTES] for key in keys if owns(key) and key not in returned} - self._counted
        if len(self._counted) > COUNTED_KEPT:
            self._counted.clear()
        self._counted |= ended
        self._flight.ended(len(ended))

    def _keep(self, completion: Completion) -> None:
        references, streams, unread = self._references, self._streams, self._unread
        counts, values, callbacks = references.counts, self.records, self.callbacks
        calls, returns, unheld = self._flight.calls, self._flight.returns, self._unheld
        any_unheld = any_error = False
        items = completion.items
        # Nobody collects between our looking whether an object has handles and keeping its value.
        with references.lock:
            for at in range(0, len(items), 2):
                key, record = items[at], items[at + 1]
                if key in counts:
                    if key not in values:
                        values[key] = record
                        if record[0] == ERROR_TAG:
                            any_error = True
                            for listener in self.error_listeners:
                                listener.append(key)
                            unread.came(key, record)
                        if callbacks and key in callbacks:
                            self._fall_due(key)
                else:
                    stream = streams.get(key[:TASK_BYTES]) if streams else None
                    if stream is not None and stream.take(key, record, values):
                        if callbacks and key in callbacks:
                            self._fall_due(key)
                    else:
                        unheld(key, record)
                        any_unheld = True
                        unread.came_unheld(key, record)
                if references._pins:
                    references.unpin(key[:TASK_BYTES])
                if calls:
                    calls.pop(key[:TASK_BYTES], None)
                if returns:
                    returns.pop(key[:TASK_BYTES], None)
        self.generation = object()
        if self.subscribed:
            self.subscribed.difference_update(items[::2])
        for task_id in completion.ended:
            references.unpin(task_id)
            references.unpin(stream_pin(task_id))
            calls.pop(task_id, None)
            stream = streams.get(task_id)  # once: its generator may go at this moment, on another thread
            if stream is not None:
                stream.ended = True
        if any_unheld or (any_error and unread.due):
            self._kick()

    def _fall_due(self, key: bytes) -> None:
        """Move callbacks. Due first: in between, the thread that runs them would find nothing to do, and rest."""
        self.due.extend(self.callbacks[key])
        del self.callbacks[key]
        self._unread.read((key,))  # even by a coroutine that was cancelled meanwhile
