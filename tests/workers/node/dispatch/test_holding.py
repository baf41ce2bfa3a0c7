"""Room is kept for what was passed over for long: one at a time, not for ever, and never from what is waited for."""

from __future__ import annotations

from typing import Any

import pytest

from rabbitry_broker.resources import ResourceRequest
from rabbitry_workers.node.dispatch import holding as holdings
from rabbitry_workers.node.dispatch.holding import ASKED_SECONDS, HOLD_SECONDS, Holding
from rabbitry_workers.node.model.lanes import Lane
from rabbitry_workers.node.model.ledger import Grant
from tests.workers.node.fakes import World

TWO = [ResourceRequest.parse("CPU=2")]


class Node(World):
    """Two CPUs, and a clock that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(2.0)
        self.now = 100.0
        monkeypatch.setattr(holdings.time, "monotonic", lambda: self.now)
        self.lasting: list[Grant] = []
        self.waited_for: set[Lane] = set()
        self.rooms = 0
        self.holding = Holding(self.ledger, lambda: self.lasting, lambda lane: lane in self.waited_for, self.on_room)
        self.small = self.lanes.of(self.wait(100).header)
        self.running = [self.take(), self.take()]

    def on_room(self) -> None:
        self.rooms += 1

    def take(self, request: str = "CPU=1") -> Grant:
        grant = self.ledger.acquire(ResourceRequest.parse(request))
        assert grant is not None
        return grant

    def after(self, seconds: float, *askers: Any) -> None:
        """Let time pass, in which some ask again and again."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 1.0)
            for each in askers:
                self.holding.keep(each, TWO)
            self.holding.run_once()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(monkeypatch)


def test_nothing_is_kept_unless_somebody_asks(world: Node) -> None:
    assert world.holding.allows(world.small)
    assert not world.holding.gives_way(world.small)


def test_what_becomes_free_is_kept_until_all_of_it_is(world: Node) -> None:
    world.holding.keep(b"group", TWO)
    assert world.holding.gives_way(world.small)
    world.ledger.release(world.running[0])
    assert not world.holding.allows(world.small)
    world.ledger.release(world.running[1])
    assert not world.holding.allows(world.small)
    assert not world.holding.gives_way(world.small), "it is all there"
    world.take("CPU=2")
    world.holding.drop(b"group")
    assert world.holding.allows(world.small)
    assert world.rooms == 1


def test_the_lane_that_it_is_kept_for_may_have_it(world: Node) -> None:
    large = world.lanes.of(world.wait(1, resources="CPU=2").header)
    world.holding.keep(large.key, [large.request])
    assert world.holding.allows(large)
    assert not world.holding.gives_way(large)


def test_what_needs_nothing_of_it_goes_on(world: Node) -> None:
    other = world.lanes.of(world.wait(1, resources="license=1").header)
    world.holding.keep(b"group", TWO)
    assert world.holding.allows(other)
    assert not world.holding.gives_way(other)


def test_what_blocked_tasks_wait_for_goes_on(world: Node) -> None:
    world.waited_for.add(world.small)
    world.holding.keep(b"group", TWO)
    assert world.holding.allows(world.small)
    assert not world.holding.gives_way(world.small)


def test_two_that_ask_do_not_hold_a_half_each(world: Node) -> None:
    world.holding.keep(b"first", TWO)
    world.holding.keep(b"second", [ResourceRequest.parse("CPU=1")])
    world.ledger.release(world.running[0])
    assert world.holding._for == b"first"
    world.holding.drop(b"first")
    assert world.holding._for == b"second"


def test_it_rests_as_long_as_it_was_kept_and_then_is_kept_for_longer(world: Node) -> None:
    world.holding.keep(b"group", TWO)
    world.after(HOLD_SECONDS + 1.0, b"group")
    assert world.holding.allows(world.small)
    assert world.rooms == 1
    world.after(HOLD_SECONDS - 3.0, b"group")
    assert world.holding.allows(world.small)
    world.after(4.0, b"group")
    assert not world.holding.allows(world.small)
    world.after(HOLD_SECONDS + 2.0, b"group")
    assert not world.holding.allows(world.small), "the second time is longer"


def test_another_has_its_turn_while_one_rests(world: Node) -> None:
    world.holding.keep(b"first", TWO)
    world.after(HOLD_SECONDS + 1.0, b"first", b"second")
    assert world.holding._for == b"second"


def test_who_does_not_ask_again_needs_it_no_more(world: Node) -> None:
    world.holding.keep(b"group", TWO)
    world.now += ASKED_SECONDS + 1.0
    world.holding.run_once()
    assert world.holding.allows(world.small)
    assert not world.holding._asked


def test_nothing_is_kept_for_what_an_actor_is_in_the_way_of(world: Node) -> None:
    world.lasting.append(world.running[0])
    world.holding.keep(b"group", TWO)
    assert world.holding.allows(world.small)
    world.lasting.clear()
    world.holding.run_once()
    assert not world.holding.allows(world.small)


def test_a_lane_that_got_room_needs_none_kept(world: Node) -> None:
    large = world.lanes.of(world.wait(2, resources="CPU=2").header)
    world.holding.keep(large.key, [large.request])
    assert world.holding.gives_way(world.small)
    world.holding.took(large)
    assert not world.holding.gives_way(world.small)
    assert world.rooms == 1
