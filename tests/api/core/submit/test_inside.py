"""Which bundle something goes to, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry import by_context
from rabbitry.core.ports import Captured
from rabbitry.core.submit import inside as inside_module
from rabbitry.options import TaskOptions
from rabbitry.scheduling import PlacementGroupSchedulingStrategy
from rabbitry_broker.store.groups import CREATED, REMOVED
from tests.api.core.fakes import JOB, Surroundings

GROUP = b"g" * 14 + JOB
ANY, FIRST = f"bundle.{GROUP.hex()}.any", f"bundle.{GROUP.hex()}.0"
WITH_CPU = f"{ANY}.5"  # the first and the third
BUNDLES = [{"CPU": 1.0}, {"x": 2.0}, {"CPU": 1.0}]


class Handle:
    """A group, as far as strategies know one."""

    def __init__(self, group_id: bytes = GROUP) -> None:
        self.id = SimpleNamespace(binary=lambda: group_id)
        self.is_empty = not group_id
        self.bundle_specs = BUNDLES

    bundle_specs: Any = ()


def find(world: Surroundings, strategy: Any, placed_with: Any = None, **amounts: float) -> Any:
    return world.inside.find(strategy, "f", amounts or {"CPU": 1}, placed_with)


def strategy(index: int = -1, captures: bool | None = None, group: Any = None) -> PlacementGroupSchedulingStrategy:
    return PlacementGroupSchedulingStrategy(Handle() if group is None else group, index, captures)


def test_places():
    world = Surroundings()
    place = find(world, strategy())
    assert (place.queue, place.captures) == (WITH_CPU, False)
    assert find(world, strategy(0, True)).queue == FIRST
    assert find(world, strategy(0, True)).captures
    assert find(world, None) is None
    assert find(world, PlacementGroupSchedulingStrategy(None)) is None
    assert find(world, strategy(group=Handle(b""))) is None


def test_what_only_one_bundle_has_room_for_goes_to_that():
    world = Surroundings()
    assert find(world, strategy(), x=1).queue == f"bundle.{GROUP.hex()}.1"
    assert find(world, strategy(), {"x": 1}, CPU=0).queue == f"bundle.{GROUP.hex()}.1"
    assert find(world, strategy(), CPU=0).queue == ANY
    assert find(world, strategy(0), CPU=0).queue == FIRST


def test_what_some_bundles_have_room_for_goes_to_those():
    world = Surroundings()
    assert find(world, strategy(), CPU=1).queue == WITH_CPU
    assert find(world, strategy(), {"CPU": 1}, CPU=0).queue == WITH_CPU
    assert find(world, strategy(2), CPU=1).queue == f"bundle.{GROUP.hex()}.2"


def test_children_go_where_their_parent_is_if_it_captures_them():
    world = Surroundings(in_group=Captured(GROUP, captures=True), bundles={GROUP: BUNDLES})
    place = find(world, None)
    assert (place.queue, place.captures) == (WITH_CPU, True)
    assert find(world, PlacementGroupSchedulingStrategy(None)) is None
    assert find(world, strategy()).captures
    assert not find(world, strategy(captures=False)).captures
    world.in_group = Captured(GROUP, captures=False)
    assert find(world, None) is None
    assert not find(world, strategy()).captures


def test_what_could_never_run_is_refused():
    world = Surroundings()
    with pytest.raises(ValueError, match=r"Cannot schedule f .* \{'CPU': 2\} cannot fit into any bundles"):
        find(world, strategy(), CPU=2)
    with pytest.raises(ValueError, match="cannot fit"):
        find(world, strategy(), CPU=1, x=1)
    with pytest.raises(ValueError, match="requires 2 CPU for creation"):
        find(world, strategy(), {"CPU": 2}, CPU=1)
    for index in (3, 7):
        with pytest.raises(ValueError, match=f"bundle index {index} is invalid. Valid placement group indexes: 0-3"):
            find(world, strategy(index))
    with pytest.raises(ValueError, match="index must be -1"):
        find(world, PlacementGroupSchedulingStrategy(None, 0))
    with pytest.raises(AssertionError, match="'x' is not a placement group"):
        find(world, strategy(group="x"))


def test_what_is_sent_to_a_removed_group_is_announced_anew(monkeypatch):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(inside_module, "time", clock)
    world = Surroundings(states={GROUP: CREATED})
    route = find(world, strategy()).route
    assert [route.next_queue() for _ in range(3)] == [WITH_CPU] * 3
    clock.now = 2.0
    assert route.next_queue() == WITH_CPU
    assert world.store.named("announce_queue") == []
    world.states[GROUP] = REMOVED
    assert route.next_queue() == WITH_CPU
    assert world.store.named("announce_queue") == []  # not each time it is asked
    clock.now = 4.0
    assert route.next_queue() == WITH_CPU
    assert world.store.named("announce_queue") == [(WITH_CPU,)]


def test_headers_say_where_and_what_children_do():
    world = Surroundings()
    options = TaskOptions.from_kwargs(scheduling_strategy=strategy(0, True), num_cpus=1).for_function(find)
    plan = world.plans().task(b"d" * 16, find, options)
    assert (plan.queue, plan.next_queue(), plan.header.bundle, plan.header.captures) == (FIRST, FIRST, FIRST, True)
    assert not plan.single


def test_plans_that_depend_on_who_calls_are_made_anew():
    keepers = [SimpleNamespace(plan=1) for _ in range(2)]

    class Keeper:
        plan: Any = 1

    keeper = Keeper()
    by_context.remember(keeper)
    by_context.forget()
    assert keeper.plan is None
    assert [each.plan for each in keepers] == [1, 1]
    assert by_context.decides(None)
    assert by_context.decides(strategy())
    assert not by_context.decides(strategy(captures=False))
    assert not by_context.decides("SPREAD")
