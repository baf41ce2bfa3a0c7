"""The parts of a client over fakes: what surrounds an inbox and an outbox, with threads of a scheduler."""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry.core import flight
from rabbitry.core.identity import Identity, Job
from rabbitry.core.lives import references
from rabbitry.core.resolve import callbacks, inbox, reading, streams, values
from rabbitry.core.submit import outbox
from rabbitry_broker.ids import FIRST_INDEX
from rabbitry_broker.messages import Completion
from tests.fuzz.interleavings.scheduler import Scheduler

OWNER = b"\x01" * 12
WATCHED = (references, flight, inbox, callbacks, outbox, values, streams, reading)


def task_id(number: int) -> bytes:
    """Return the id of a task of this client."""
    return OWNER + number.to_bytes(12, "big")


def result_id(number: int) -> bytes:
    """Return the id of the first result of a task."""
    return task_id(number) + FIRST_INDEX


def completion(*numbers: int) -> Completion:
    """Return what tells of the ends of tasks."""
    items: list[bytes] = []
    for number in numbers:
        items += (result_id(number), b"N")
    return Completion(b"", len(numbers), 0.0, items)


class FakeRedis:
    """A list that blocks, and records of objects."""

    server_version = (7, 0)

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.entries: deque[Completion] = deque()

    def call(self, command: bytes, *arguments: Any) -> Any:
        """LPOP with a count, LPUSH of a wake-up."""
        if command == b"LPUSH":
            self.entries.appendleft(arguments[1])
            return 1
        assert command == b"LPOP"
        self._scheduler.switch()
        taken = [self.entries.popleft() for _ in range(min(len(self.entries), arguments[1]))]
        self._scheduler.switch()
        return taken or None

    def call_blocking(self, command: bytes, *arguments: Any, timeout: float, on_late: Any = None) -> Any:
        """BLMPOP."""
        assert command == b"BLMPOP"
        if not self._scheduler.block(lambda: bool(self.entries), timeout):
            return None
        taken = [self.entries.popleft() for _ in range(min(len(self.entries), arguments[-1]))]
        self._scheduler.switch()
        return [b"", taken]

    def limit_replies(self, seconds: float) -> None:
        """Nothing: replies come at once."""

    def close(self) -> None:
        """Nothing."""


class FakeUnhandled:
    """Hears of failures, and says nothing."""

    due: Any = ()

    def came(self, key: bytes, record: bytes) -> None:
        """Nothing."""

    def came_unheld(self, key: bytes, record: bytes) -> None:
        """Nothing."""

    def read(self, keys: Any) -> None:
        """Nothing."""


class FakeClient:
    """Inbox, callbacks and outbox over fakes.

    Attributes:
        let_go: objects without handles whose results came.
        published: tasks that were sent.
        cancelled: streaming tasks whose generators went before their end.
        read_marks: what says how much was read of streams, and whether it expires.
    """

    def __init__(self, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (references, flight, inbox, callbacks, outbox):
            monkeypatch.setattr(module, "threading", scheduler.threading)
        for clocked in (inbox, callbacks, reading):
            monkeypatch.setattr(clocked, "time", scheduler.time)
        monkeypatch.setattr(inbox, "decode_completion", lambda signer, client, entry: entry)
        monkeypatch.setattr(inbox, "encode_completion", lambda signer, client, completion: completion)
        monkeypatch.setattr(outbox, "encode_frame", lambda signer, header, tasks: list(tasks))
        self.redis = FakeRedis(scheduler)
        self.let_go: list[bytes] = []
        self.published: list[bytes] = []
        keys: Any = SimpleNamespace(inbox=lambda client: b"inbox")
        signer: Any = None
        identity = Identity(OWNER, b"jjjj", b"", keys, signer, 30.0)
        store: Any = SimpleNamespace(
            open_connection=lambda name: self.redis,
            fetch=lambda keys: [None] * len(keys),
            call=self.redis.call,
            within=lambda deadline: nullcontext(),
            seconds_left=lambda: -1.0,
            reply_seconds=lambda waiting: waiting,
        )
        publisher: Any = SimpleNamespace(publish=self._publish)
        self.flight = flight.Flight()
        self.references = references.References(frozenset((OWNER,)))
        open_streams: dict[bytes, streams.Stream] = {}
        known = values.Values(
            self.references,
            self.flight,
            open_streams,
            records={},
            returned=set(),
            unread=FakeUnhandled(),
            unheld=lambda key, record: self.let_go.append(key),
            kick=nothing,
        )
        self.inbox = inbox.Inbox(
            identity,
            store,
            known,
            self.flight,
            register=nothing,
            known_here=lambda key: True,
            on_note=nothing,  # a note has woken the leader: that is all
            learn=nothing,
            store_lost=nothing,
            put_aside=nothing,
        )
        self.outbox = outbox.Outbox(
            identity,
            Job("", slots=4),
            self.flight,
            publisher=publisher,
            store=store,
            unsent={},
            flush_puts=nothing,
            register=nothing,
            kick=nothing,  # there is no service thread, unless a test plays it
        )
        self.callbacks = callbacks.Callbacks(self.references, known, self.inbox, send_waiting=self.outbox.flush)

        self.read_marks: dict[bytes, bool] = {}
        self.cancelled: list[bytes] = []
        marks: Any = SimpleNamespace(call=self._mark)
        consumed: Any = SimpleNamespace(consumed=lambda task: b"consumed" + task)
        self.streams = streams.Streams(
            self.references,
            known.records,
            open_streams,
            store=marks,
            keys=consumed,
            callbacks=known.callbacks,
            unheld=lambda key, record: self.let_go.append(key),
            cancel=lambda task, **options: self.cancelled.append(task),
        )
        waiting: Any = SimpleNamespace(send_waiting=nothing, until=self.inbox.wait)
        self.reading = reading.Reading(
            self.references,
            known.records,
            self.streams,
            waiting=waiting,
            inbox=self.inbox,
            when_ready=self.callbacks.when_ready,
            store=SimpleNamespace(put_records=nothing),
            flush=nothing,
            kick=nothing,
        )
        self.open_streams = open_streams
        self.known = known

    def _mark(self, command: bytes, key: bytes, *_: Any) -> None:
        if command == b"DEL":
            self.read_marks.pop(key, None)
        else:
            self.read_marks[key] = command == b"SET"  # which expires

    @property
    def in_flight(self) -> int:
        """As in the client."""
        return self.flight.count

    def _publish(self, queue: str, frame: list[Any], priority: int = 0) -> None:
        self.published += [task[0] for task in frame]


def nothing(*_: Any, **__: Any) -> None:
    """Do nothing."""
