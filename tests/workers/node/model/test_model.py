"""What all parts share: the node's life, its timer, its lanes and the views of work in hand."""

from __future__ import annotations

import pytest

from rabbitry_broker.errors import ConnectionLost
from rabbitry_workers.node.model.in_hand import InHand
from rabbitry_workers.node.model.lanes import State
from rabbitry_workers.node.model.life import Life, Phase
from rabbitry_workers.node.model.periodic import LONGEST_PAUSE_SECONDS, Periodic
from tests.workers.conftest import task
from tests.workers.node.fakes import OWNER, FakeExecutor, FakeLoop, World, ids


def test_a_node_stops_when_it_drains_and_nothing_keeps_it():
    stopped: list[int] = []
    life = Life(lambda: stopped.append(1))
    busy = [True]
    life.lasts_while(lambda: busy[0])
    life.stop_if_drained()
    assert life.phase is Phase.WORKING
    life.drain()
    life.stop_if_drained()
    assert (life.draining, life.phase, stopped) == (True, Phase.DRAINING, [])
    busy[0] = False
    life.stop_if_drained()
    life.stop_if_drained()
    assert (life.phase, stopped) == (Phase.STOPPING, [1])
    with pytest.raises(AssertionError):
        life.drain()


def test_steps_go_on_when_a_server_is_away_and_slower_when_it_is_far():
    loop, steps = FakeLoop(), []
    periodic = Periodic(loop)

    def step() -> None:
        steps.append(loop.now)
        if len(steps) == 1:
            raise ConnectionLost("away")

    periodic.every(1.0, step)
    loop.run(2.0)
    assert steps == [1.0, 2.0]
    periodic.round_trip = 0.1
    assert periodic.pause(1.0) == 2.0
    periodic.round_trip = 100.0
    assert periodic.pause(1.0) == LONGEST_PAUSE_SECONDS
    loop.run(1.0)
    assert len(steps) == 3
    loop.run(LONGEST_PAUSE_SECONDS - 0.5)
    assert len(steps) == 3


def test_what_must_not_wait_longer_does_not():
    loop, steps = FakeLoop(), []
    periodic = Periodic(loop)
    periodic.round_trip = 100.0
    periodic.every(1.0, lambda: steps.append(1), stretch=False)
    loop.run(3.0)
    assert len(steps) == 3


def test_the_most_urgent_piece_of_a_lane_is_served_first():
    world = World()
    low, high = world.wait(1), world.wait(2, first=2, priority=5)
    lane = world.lanes.of(low.header)
    assert lane.first() is high
    assert list(lane.all_pieces()) == [high, low]
    taken = lane.take(high, 9)
    assert (ids(taken), lane.waiting) == (ids([task(OWNER, 2), task(OWNER, 3)]), 1)
    lane.untake(high, taken, 0)
    assert (lane.first(), lane.waiting) == (high, 3)
    lane.take(high, 2)
    assert lane.first() is low
    lane.remove(low)
    assert lane.first() is None
    assert lane.take_all() == []


def test_what_is_put_back_comes_first_and_keeps_its_mark():
    world = World()
    piece = world.wait(1, max_retries=0)
    world.lanes.put_back(piece.held, piece.header_bytes, piece.header, [task(OWNER, 9)], marked=1)
    first = world.lanes.of(piece.header).first()
    assert first is not None
    assert (ids(first.tasks), first.marked) == (ids([task(OWNER, 9)]), 1)


@pytest.mark.parametrize("kept_by", ["nothing", "starting", "again", "executor", "waiting"])
def test_a_lane_is_forgotten_when_nothing_is_left_in_it(kept_by: str):
    world = World()
    lane = world.lanes.of(world.wait(1).header)
    if kept_by != "waiting":
        lane.take_all()
    if kept_by == "executor":
        world.executor(lane=lane)
    lane.starting, lane.again = int(kept_by == "starting"), kept_by == "again"
    world.lanes.forget_empty()
    world.lanes.forget_of(job=b"jjjj")
    world.lanes.forget_of(job=b"else")
    assert bool(world.lanes) is (kept_by != "nothing")
    assert world.lanes.waits("CPU=1") is (kept_by == "waiting")


def test_executors_move_by_their_table_only():
    executor = FakeExecutor()
    executor.move(State.LEASED)
    executor.move(State.BLOCKED)
    with pytest.raises(AssertionError):
        executor.move(State.IDLE)


def test_the_task_that_runs_is_the_one_on_the_shared_page():
    world = World()
    executor = world.executor()
    chunk = world.chunk(executor, 3)
    assert executor.running() is None
    executor.progress.started[0] = 2
    assert executor.running() == (chunk, 1)
    executor.interrupt(chunk.tasks[1][0])
    assert (executor.skipped, executor.signals) == ([chunk.tasks[1][0]], [2])
    executor.close()
    assert executor.running() is None


def test_every_task_in_hand_is_found_where_it_is():
    world = World()
    in_hand = InHand(world.lanes, world.executors)
    piece, executor = world.wait(1), world.executor()
    chunk = world.chunk(executor, 2, first=2)
    chunk.done.add(chunk.first)
    in_hand.watch(lambda: [b"delayed"])
    assert set(in_hand.task_ids()) == {*ids([task(OWNER, 1), task(OWNER, 3)]), b"delayed"}
    assert in_hand.sent([task(OWNER, 3)[0], b"x"]) == [(executor, chunk, 1, chunk.tasks[1])]
    assert in_hand.owners() == {OWNER}
    assert in_hand.is_at_work()
    assert in_hand.has_waiting()
    executor.state = State.ACTOR
    assert in_hand.take_waiting([task(OWNER, 1)[0], b"x"]) == [(piece.held, piece.header, task(OWNER, 1))]
    assert not in_hand.has_waiting()
    assert in_hand.owners() == set()
