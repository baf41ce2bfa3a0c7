"""Whose turn it is: jobs are served by their shares, whoever comes with little to do at once, nobody saves up turns."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from rabbitry_workers.node.dispatch.turns import LANE_SECONDS, UNKNOWN_SECONDS, Turns
from rabbitry_workers.node.model.lanes import Lane
from rabbitry_workers.node.model.work import Chunk, Piece
from tests.workers.node.fakes import World

ONE, TWO, THREE = b"1111", b"2222", b"3333"


class Node(World):
    """One CPU, served by turns alone."""

    def __init__(self, **shares: float) -> None:
        super().__init__()
        self.shares = {name[-1].encode() * 4: share for name, share in shares.items()}
        self.turns = Turns(self.lanes, lambda job: self.shares.get(job, 1.0))

    def lane(self, job: bytes, count: int = 5000, **fields: Any) -> Lane:
        return self.lanes.of(self.wait(count, job=job, **fields).header)

    def next(self) -> Lane:
        return self.turns.in_turn(list(self.lanes.ready), None)[0]

    def run(self, lane: Lane, seconds: float, count: int = 1, mean: float | None = None) -> None:
        piece = lane.first()
        assert piece is not None
        chunk = self.begin(lane, piece, count, mean)
        self.turns.ended(lane, chunk, count, seconds)

    def begin(self, lane: Lane, piece: Piece, count: int, mean: float | None) -> Chunk:
        chunk = Chunk(piece, 0, lane.take(piece, count))
        self.turns.began(lane, chunk, mean)
        return chunk


@pytest.mark.parametrize(("share", "times"), [(1.0, 1.0), (3.0, 3.0), (0.25, 0.25)])
@pytest.mark.parametrize("known", [True, False])
def test_jobs_are_served_by_their_shares(share: float, times: float, known: bool):
    world = Node(job2=share)
    world.lane(ONE), world.lane(TWO)
    seconds = {ONE: 0.004, TWO: 0.016}  # however long their tasks are
    used: Counter[bytes] = Counter()
    for _ in range(4000):
        lane = world.next()
        job = lane.key[1]
        world.run(lane, seconds[job], mean=seconds[job] if known else None)
        used[job] += int(seconds[job] * 1000)
    assert used[TWO] / used[ONE] == pytest.approx(times, rel=0.1)


def test_whoever_comes_with_little_to_do_is_next():
    world = Node()
    bulk = world.lane(ONE)
    other = world.lane(THREE)
    for _ in range(100):
        world.run(world.next(), 0.005)
    caller = world.lane(TWO, 1)
    assert world.next() is caller
    assert world.turns.gives_way(bulk)
    assert world.turns.gives_way(other)
    assert not world.turns.gives_way(caller)


def test_one_that_was_away_has_saved_up_nothing():
    world = Node()
    bulk = world.lane(ONE)
    world.lane(TWO, 1, resources="CPU=0.5")
    for _ in range(100):
        world.run(bulk, 0.005)
    world.lane(TWO)
    turns: Counter[bytes] = Counter()
    for _ in range(20):
        lane = world.next()
        turns[lane.key[1]] += 1
        world.run(lane, 0.005, mean=0.005)
    assert turns[ONE] >= 9


def test_long_tasks_count_when_they_begin():
    world = Node()
    one, two = world.lane(ONE), world.lane(TWO)
    for lane in (one, two, one, two, one, two):
        assert world.next() is lane
        piece = lane.first()
        assert piece is not None
        world.begin(lane, piece, 1, 3600.0)


def test_what_a_task_was_taken_to_need_is_corrected_by_what_it_took():
    world = Node()
    one, _two = world.lane(ONE), world.lane(TWO)
    world.run(one, 0.0)
    assert world.turns.time_of(ONE) == pytest.approx(0.0)
    world.run(one, 1.0)
    assert world.turns.time_of(ONE) == pytest.approx(1.0)
    assert UNKNOWN_SECONDS < 1.0


def test_tasks_with_more_cpus_use_more():
    world = Node()
    large, _small = world.lane(ONE, resources="CPU=4"), world.lane(TWO)
    world.run(large, 1.0)
    assert world.turns.time_of(ONE) == pytest.approx(4.0)


def test_a_job_that_is_alone_has_no_time():
    world = Node()
    lane = world.lane(ONE)
    world.run(lane, 1.0)
    assert world.turns.time_of(ONE) == 0.0
    assert not world.turns.is_shared
    assert not world.turns.gives_way(lane)


def test_priorities_come_before_shares():
    world = Node()
    bulk = world.lane(ONE)
    world.lane(THREE)
    urgent = world.lane(TWO, 10, priority=9)
    for _ in range(10):
        assert world.next() is urgent
        world.run(urgent, 1.0)
    assert world.next() is not urgent
    assert not world.turns.gives_way(bulk) or world.next() is not bulk


def test_of_one_job_the_lane_that_was_not_served_for_long_is_next(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr("rabbitry_workers.node.model.lanes.time.monotonic", lambda: now[0])
    world = Node()
    first, second = world.lane(ONE), world.lane(ONE, resources="CPU=0.5")
    world.run(first, 0.001)
    assert world.next() is second
    assert not world.turns.gives_way(first), "a lease that stays costs least"
    now[0] += LANE_SECONDS * 1.1
    world.run(first, 0.001)
    assert world.turns.gives_way(first)


def test_what_waits_elsewhere_is_no_reason_to_give_way():
    world = Node()
    lane = world.lane(ONE)
    inside = Lane(("CPU=1 bundle.67.0", TWO, b""), lane.request, world.ledger.__class__(world.node.totals))
    inside.on_change = world.lanes._on_change
    world.lanes[inside.key] = inside
    world.lanes.jobs[TWO] += 1
    inside.put(world.wait(0, job=TWO))
    world.run(lane, 1.0)
    inside.wait_for(1)
    assert inside in world.lanes.ready
    assert not world.turns.gives_way(lane)


def test_jobs_that_are_gone_leave_nothing():
    world = Node()
    world.lane(ONE)
    for number in range(1000):
        lane = world.lane(number.to_bytes(4, "big"), 1)
        world.run(lane, 0.001)
        world.lanes.forget(lane)
    assert len(world.turns._times) < 10
    assert set(world.lanes.jobs) == {ONE}
