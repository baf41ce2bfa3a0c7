"""Lives of objects in thousands of orders: handles come and go on several threads, while values come and are collected.

The store is a fake that keeps what the real one does: an object stays as long as its owner has not let go of it, or
somebody holds it. Nobody with a registered handle finds the object gone, and in the end nothing is left of any, here or
there.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from rabbitry.core.identity import Identity
from rabbitry.core.lives import lifetimes, references
from rabbitry_broker.errors import ConnectionLost
from rabbitry_broker.ids import FIRST_INDEX
from tests.fuzz.interleavings.client import OWNER, FakeUnhandled, nothing, result_id
from tests.fuzz.interleavings.orders import named, orders
from tests.fuzz.interleavings.scheduler import Scheduler

ORDERS = 600
WATCHED = (lifetimes, references)
OTHER = b"\x02" * 12
THEIRS = OTHER + (1).to_bytes(12, "big") + FIRST_INDEX
PARCEL = b"a value that brings handles"


class FakeLives:
    """What the store knows of lives; now and then it is away, before or after it has done what it was told.

    Attributes:
        objects: those that are there, and whether their owner has let go.
        holders: who holds each object besides its owner.
    """

    def __init__(self, scheduler: Scheduler, chance: random.Random) -> None:
        self._scheduler = scheduler
        self._chance = chance
        self.objects: dict[bytes, bool] = {}
        self.holders: dict[bytes, set[bytes]] = {}
        self.outages = 0

    def _away(self) -> None:
        self._scheduler.switch()
        if self.outages and self._chance.random() < 0.3:
            self.outages -= 1
            raise ConnectionLost("away")

    def hold(self, holder: bytes, key: bytes) -> None:
        """Somebody holds an object."""
        self.holders.setdefault(key, set()).add(holder)

    def release(self, holder: bytes, key: bytes) -> None:
        """Somebody lets go."""
        self.holders.get(key, set()).discard(holder)
        self._look(key)

    def _look(self, key: bytes) -> None:
        if self.objects.get(key) and not self.holders.get(key):
            del self.objects[key]

    def borrow(self, client: bytes, object_ids: Sequence[bytes]) -> None:
        """As in the store."""
        self._away()
        for key in object_ids:
            assert key in self.objects, "an object is borrowed that is gone"
            self.hold(client, key)
        self._away()

    def give_back(self, client: bytes, object_ids: Sequence[bytes]) -> None:
        """As in the store."""
        self._away()
        for key in object_ids:
            self.release(client, key)
        self._away()

    def reclaim(self, object_ids: Sequence[bytes]) -> None:
        """As in the store."""
        self._away()
        for key in object_ids:
            assert key in self.objects, "an object is reclaimed that is gone"
            self.objects[key] = False
        self._away()

    def drop(self, object_ids: Sequence[bytes], *, plain: bool = False) -> tuple[set[bytes], list[bytes]]:
        """As in the store."""
        self._away()
        kept = set()
        for key in object_ids:
            if key in self.objects:
                self.objects[key] = True
                self._look(key)
            if key in self.objects:
                kept.add(key)
        self._away()
        return kept, []


class Story:
    """A client, and who has to do with its objects and one of another client's."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chance = random.Random(f"lives-{seed}")
        self.scheduler = Scheduler(seed, WATCHED)
        for module in WATCHED:
            monkeypatch.setattr(module, "threading", self.scheduler.threading)
        self.lives = FakeLives(self.scheduler, self.chance)
        self.lives.outages = self.chance.choice([0, 0, 1, 3])
        self.values: dict[bytes, bytes] = {}
        self.references = references.References(frozenset((OWNER,)))
        keys: Any = None
        identity = Identity(OWNER, b"jjjj", b"", keys, keys, 30.0)
        lives: Any = self.lives
        unread: Any = FakeUnhandled()
        unread.dropped = unread.dropped_early = nothing
        self.lifetimes = lifetimes.Lifetimes(
            identity, lives, self.references, values=self.values, unsent={}, actors={}, unread=unread, register=nothing,
            forget=nothing, actor_released=nothing, commit_errors=nothing,
        )  # fmt: skip
        self.ours = [result_id(number) for number in range(1, 3)]
        self.working = 0
        self.heard: list[bytes] = []
        self.watched: list[bytes] = []

    def run(self) -> None:
        for key in self.ours:
            self.references.new(key)
        self.lives.objects[THEIRS] = False
        # What brings a handle holds the object, as the argument of a task does that runs.
        for at, key in enumerate((*self.ours, THEIRS)):
            for name in ("a", "b"):
                if self.chance.random() < 0.7:
                    self.working += 1
                    parcel = PARCEL + bytes([at]) + name.encode()
                    self.lives.hold(parcel, key)
                    self.scheduler.spawn(lambda key=key, parcel=parcel: self.receive(key, parcel), f"{name} {at}")  # type: ignore[misc]
        for key in self.ours:
            self.working += 1
            self.scheduler.spawn(lambda key=key: self.own(key))  # type: ignore[misc]
        self.scheduler.spawn(self.serve, "service")
        self.scheduler.run()

    def again(self, what: Any) -> None:
        """Do it until the store is there."""
        while True:
            try:
                what()
                return
            except ConnectionLost:
                self.scheduler.switch()

    def own(self, key: bytes) -> None:
        """A task of ours ends, and the one who has its result lets go of it, at some moment."""
        if self.chance.random() < 0.3 and self.lifetimes.on_last_handle_gone(key, self.heard.append):
            self.watched.append(key)
        if self.chance.random() < 0.3:
            self.references.dropped.append(key)
            self.come(key)
        else:
            self.come(key)
            self.references.dropped.append(key)
        self.again(self.lifetimes.collect)
        self.working -= 1

    def come(self, key: bytes) -> None:
        """Its result is committed, and told; see `Values`."""
        self.lives.objects[key] = False
        self.scheduler.switch()
        with self.references.lock:
            if self.references.holds(key):
                self.values.setdefault(key, b"N")
            else:
                self.lifetimes.unheld(key, b"N")

    def receive(self, key: bytes, parcel: bytes) -> None:
        """A handle comes in a value, stays for a while, and goes."""
        self.scheduler.block(lambda: key in self.lives.objects)
        self.references.add(key)
        self.again(self.lifetimes.settle)
        self.lives.release(parcel, key)
        for _ in range(self.chance.randint(0, 3)):
            self.scheduler.switch()
            assert key in self.lives.objects, "an object is gone while there is a handle on it"
        self.references.dropped.append(key)
        self.working -= 1

    def serve(self) -> None:
        """The service thread."""
        while self.working:
            self.again(self.lifetimes.settle)
            self.again(self.lifetimes.collect)
            self.scheduler.switch()

    def check(self) -> None:
        self.lives.outages = 0
        for _ in range(3):
            self.lifetimes.settle()
            self.lifetimes.collect()
        assert not self.references.counts and not self.values and not self.lifetimes.waiting
        assert not self.lifetimes.borrowed and not self.lifetimes.returned
        assert sorted(self.heard) == sorted(self.watched), "who asked was not told of a last handle, or twice"
        assert self.lives.objects == {THEIRS: False}, "an object is kept for nobody"
        assert not any(self.lives.holders.values()), "somebody counts as a holder for good"


def test_objects_live_as_long_as_their_handles(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in orders(ORDERS):
        story = Story(seed, monkeypatch)
        with named(seed):
            story.run()
            story.check()
