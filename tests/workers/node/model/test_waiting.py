"""What a node says of the work that waits there, and of how long it has had none."""

from __future__ import annotations

from typing import Any

import pytest

from rabbitry_broker.queue_names import node_queue, parse, task_queue
from rabbitry_workers.node.model import waiting as module
from rabbitry_workers.node.model.lanes import State
from rabbitry_workers.node.model.source import Source
from rabbitry_workers.node.model.waiting import Waiting
from tests.workers.node.fakes import World


@pytest.fixture
def world() -> World:
    return World()


def source(queue: str) -> Source:
    return Source(queue, parse(queue), 8)


def test_tasks_are_counted_by_what_they_need_and_where_they_may_run(world: World):
    waiting = Waiting(world.lanes, world.executors, {})
    assert waiting.work() == []
    world.wait(2)
    world.wait(3, first=10).held.source = source(task_queue("CPU=1", "zone=a"))
    own = node_queue(world.node.id)
    world.wait(4, first=20).held.source = source(own)  # no other node may run them
    world.wait(1, first=30, elsewhere=task_queue("CPU=1", "zone=a")).held.source = source(own)
    assert sorted(waiting.work()) == [("CPU=1", "", 2), ("CPU=1", "zone=a", 4)]


def test_quick_tasks_count_by_what_they_take_together(world: World):
    piece = world.wait(100)
    means = {piece.header.function: 0.001}
    assert Waiting(world.lanes, world.executors, means).work() == [("CPU=1", "", 1)]
    means[piece.header.function] = 30.0
    assert Waiting(world.lanes, world.executors, means).work() == [("CPU=1", "", 100)]


@pytest.mark.parametrize("busy", ["leased", "actor", "lingering", "waits", ""])
def test_a_node_is_idle_while_nothing_runs_waits_or_is_lived_by(world: World, busy: str, monkeypatch: Any):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    waiting = Waiting(world.lanes, world.executors, {})
    executor = world.executor(state=State.IDLE)
    now[0] += 5.0
    assert waiting.idle_seconds() == 5.0
    if busy == "leased":
        executor.state = State.LEASED
    elif busy == "actor":
        executor.state = State.ACTOR
    elif busy == "lingering":
        executor.lingering = True
    elif busy:
        world.wait()
    assert waiting.idle_seconds() == (0.0 if busy else 5.0)
