"""Streams in thousands of orders: their items come, are read or dropped, while other threads take and collect.

One thread takes what comes, one reads a generator and drops it, somewhere, one is the service thread. Each item is
handed out once and in its order, and in the end nothing is kept of the stream, here or in the store.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from rabbitry import generators
from rabbitry.generators import ObjectRefGenerator
from rabbitry_broker.ids import object_id
from rabbitry_broker.messages import Completion
from rabbitry_broker.records import counted
from tests.fuzz.interleavings.client import WATCHED, FakeClient, task_id
from tests.fuzz.interleavings.orders import named, orders
from tests.fuzz.interleavings.scheduler import Scheduler

ORDERS = 600
STREAM = task_id(1)


class Story:
    """A client with a stream, and who has to do with it."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chance = random.Random(f"streams-{seed}")
        self.scheduler = Scheduler(seed, (*WATCHED, generators))
        self.client = FakeClient(self.scheduler, monkeypatch)
        self.items = self.chance.randint(0, 4)
        self.wanted = self.chance.randint(0, 5)
        self.peeks = self.chance.choice([0, 0, 2])
        self.is_counted = self.chance.random() < 0.5
        self.read: list[bytes] = []
        self.exhausted = self.sent = self.dropped = False

    def run(self) -> None:
        client, scheduler = self.client, self.scheduler
        stream = client.streams.open(STREAM, counted=self.is_counted)
        made: list[Any] = [ObjectRefGenerator(client.reading, STREAM, stream)]
        scheduler.spawn(self.produce, "producer")
        scheduler.spawn(lambda: self.consume(made.pop()), "reader")
        scheduler.spawn(self.serve, "service")
        scheduler.spawn(self.take, "another that waits")
        scheduler.run()

    def produce(self) -> None:
        """The items come, some of them twice: the producer was retried."""
        for number in range(1, self.items + 1):
            self._come(Completion(b"", 0, 0.0, [object_id(STREAM, number), b"N"]))
            if self.chance.random() < 0.2:
                self._come(Completion(b"", 0, 0.0, [object_id(STREAM, self.chance.randint(1, number)), b"N"]))
        self._come(Completion(b"", 0, 0.0, [object_id(STREAM, 0), counted(self.items)], [STREAM]))
        self.sent = True

    def _come(self, completion: Completion) -> None:
        self.client.redis.entries.append(completion)
        self.scheduler.switch()

    def consume(self, generator: Any) -> None:
        """Read some, and drop the generator."""
        if self.peeks:
            looked_at = generator._ahead.ids
            # There is no session to call it back.
            generator._ahead.watch = lambda ids: looked_at.update(dict.fromkeys(ids))
            generator._get_next_ref_n(self.peeks)
        kept = []
        for _ in range(self.wanted):
            try:
                kept.append(next(generator))
            except StopIteration:
                self.exhausted = True
                break
        self.read = [each._id for each in kept]
        del generator
        kept.clear()
        self.dropped = True

    def take(self) -> None:
        """Take what comes, as a thread does that waits for something else."""
        while not self.sent:
            self.client.inbox.drain()
            self.scheduler.switch()
        self.client.inbox.drain()

    def serve(self) -> None:
        """The service thread."""
        while not (self.sent and self.dropped):
            self.tidy()
            self.scheduler.switch()

    def tidy(self) -> None:
        """What the service thread does."""
        self.client.streams.end_abandoned()
        self.client.inbox.drain()
        self.client.let_go += [key for key, _ in self.client.references.collect(self.client.known.records)]

    def check(self) -> None:
        for _ in range(3):
            self.tidy()
        client = self.client
        expected = [object_id(STREAM, number) for number in range(1, min(self.wanted, self.items) + 1)]
        assert self.read == expected, "items were missed, or came twice or in another order"
        assert self.exhausted == (self.wanted > self.items)
        assert not client.open_streams, "a stream is kept for nobody"
        assert not client.known.records, "values are kept for nobody"
        assert not client.known.callbacks and not client.references.counts
        everything = {object_id(STREAM, number) for number in range(self.items + 1)}
        assert everything <= set(client.let_go), "what nobody has read is never deleted"
        assert len(client.cancelled) <= 1 and not (self.exhausted and client.cancelled)
        assert all(client.read_marks.values()), "what says how much was read stays for good"


def test_nothing_of_a_stream_is_missed_or_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in orders(ORDERS):
        story = Story(seed, monkeypatch)
        with named(seed):
            story.run()
            story.check()
