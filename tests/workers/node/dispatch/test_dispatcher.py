"""The dispatcher: what goes to which executor, how much at once, and what happens when it cannot."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_broker.errors import ConnectionLost
from rabbitry_broker.messages import KIND_ACTOR_CREATION
from rabbitry_workers.channel import RUN
from rabbitry_workers.node.dispatch.dispatcher import CHUNK_TASKS_MAX, Dispatcher
from rabbitry_workers.node.dispatch.run_times import RunTimes
from rabbitry_workers.node.dispatch.turns import Turns
from rabbitry_workers.node.model.lanes import CONTINUATION_NUMBERS, State
from tests.workers.node.fakes import World, ids


class Pool:
    """Leases what a test has put there."""

    def __init__(self) -> None:
        self.leases: list[Any] = []
        self.asked = 0
        self.fresh: list[bool] = []
        self.ended: list[Any] = []
        self.trouble: Exception | None = None

    def lease(self, lane: Any, *, fresh: bool = False) -> bool:
        self.asked += 1
        self.fresh.append(fresh)
        if self.trouble is not None:
            trouble, self.trouble = self.trouble, None
            raise trouble
        if not self.leases:
            return False
        executor = self.leases.pop(0)
        executor.lane = lane
        lane.executors.append(executor)
        return True

    def end_lease(self, executor: Any) -> None:
        self.ended.append(executor)
        executor.state = State.IDLE
        if executor.lane is not None and executor in executor.lane.executors:
            executor.lane.executors.remove(executor)


class Dispatch(World):
    """A dispatcher with fakes around it."""

    def __init__(self, cpus: float = 1.0) -> None:
        super().__init__(cpus)
        self.pool, self.run_times = Pool(), RunTimes()
        self.nesting = SimpleNamespace(choose=lambda lane: lane.first(), blocked={}, waits_for=lambda lane: False)
        self.marks = SimpleNamespace(mark=lambda piece, tasks: tasks)
        self.hosted: list[Any] = []
        self.hosts: Any = True
        self.rooms = 0
        self.shares: dict[bytes, float] = {}
        self.kept: list[Any] = []
        self.turns = Turns(self.lanes, lambda job: self.shares.get(job, 1.0))
        self.dispatcher = Dispatcher(
            self.node, self.lanes, self.pool, self.nesting, self.turns, self.run_times, self.marks, self, self.failing,  # type: ignore[arg-type]
            self.on_room, lambda who, requests: self.kept.append(who),
        )  # fmt: skip

    def host(self, executor: Any, piece: Any, each: Any) -> bool:
        if isinstance(self.hosts, Exception):
            error, self.hosts = self.hosts, True
            raise error
        self.hosted.append(each)
        return bool(self.hosts)

    def on_room(self) -> None:
        self.rooms += 1


def test_tasks_of_unknown_length_go_one_by_one():
    world = Dispatch()
    lane = world.lanes.of(world.wait(3).header)
    executor = world.executor(lane=lane)
    world.dispatcher.serve(lane)
    assert len(executor.ran()) == 1
    assert lane.waiting == 2
    (message,) = executor.sent
    assert message[0] == RUN
    assert executor.next_sequence == 1 + CONTINUATION_NUMBERS


@pytest.mark.parametrize(("seconds", "size"), [(0.001, 5), (1.0, 1), (1e-9, CHUNK_TASKS_MAX)])
def test_quick_tasks_go_by_the_chunk(seconds: float, size: int):
    world = Dispatch()
    piece = world.wait(1000)
    lane = world.lanes.of(piece.header)
    executor = world.executor(lane=lane)
    world.run_times.means[piece.header.function] = seconds
    world.dispatcher.serve(lane)
    assert len(executor.sent[0][3]) == size


@pytest.mark.parametrize("fields", [{"max_calls": 1}, {"max_retries": 0}])
def test_tasks_that_must_be_told_of_one_by_one_go_so(fields: dict[str, int]):
    world = Dispatch()
    piece = world.wait(10, **fields)
    lane = world.lanes.of(piece.header)
    executor = world.executor(lane=lane)
    world.run_times.means[piece.header.function] = 1e-6
    world.dispatcher.serve(lane)
    assert len(executor.sent[0][3]) == 1


def test_a_chunk_is_sent_ahead_of_quick_work_only():
    world = Dispatch()
    piece = world.wait(30)
    lane = world.lanes.of(piece.header)
    executor = world.executor(lane=lane)
    world.run_times.means[piece.header.function] = 0.001
    world.dispatcher.serve(lane)
    assert len(executor.chunks) == 2
    world.run_times.means[piece.header.function] = 1.0
    executor.chunks.popleft()
    world.dispatcher.serve(lane)
    assert len(executor.chunks) == 1


def test_executors_are_leased_while_there_are_any():
    world = Dispatch()
    lane = world.lanes.of(world.wait(3).header)
    first, second = world.executor(1), world.executor(2)
    world.pool.leases += [first, second]
    world.dispatcher.serve(lane)
    assert len(first.ran()) == len(second.ran()) == 1
    assert lane.waiting == 1


def test_nothing_goes_to_an_executor_that_leaves_or_is_revoked():
    world = Dispatch()
    lane = world.lanes.of(world.wait(1).header)
    leaving, revoked = world.executor(1, lane=lane), world.executor(2, lane=lane)
    leaving.leaving, revoked.revoked = "max_calls", True
    world.dispatcher.serve(lane)
    assert not leaving.sent
    assert not revoked.sent


def test_the_most_urgent_lane_is_served_first_and_then_more_may_come():
    world = Dispatch()
    low, high = world.wait(1, env=b"low"), world.wait(1, env=b"high", priority=5)
    executor = world.executor()
    world.pool.leases.append(executor)
    world.dispatcher.serve_all()
    assert executor.lane is world.lanes.of(high.header)
    assert world.lanes.of(low.header).waiting == 1
    assert world.rooms == 1


def test_a_lane_that_could_not_be_served_is_served_again_once():
    world = Dispatch()
    lane = world.lanes.of(world.wait(1).header)
    executor = world.executor()
    world.pool.leases.append(executor)
    world.pool.trouble = ConnectionLost("away")
    world.dispatcher.serve(lane)
    assert lane.again
    world.dispatcher.serve(lane)
    assert world.loop.pending == 1
    world.loop.run(1.0)
    assert executor.ran()
    assert not lane.again


def test_an_executor_without_work_is_let_go_after_an_outage():
    world = Dispatch()
    lane = world.lanes.of(world.wait(1).header)
    world.pool.trouble = ConnectionLost("away")
    world.dispatcher.serve(lane)
    lane.take_all()
    executor = world.executor(lane=lane)
    world.loop.run(1.0)
    assert world.pool.ended == [executor]


def test_what_cannot_be_handed_out_fails_and_the_next_one_has_its_turn():
    world = Dispatch()
    bad, good = world.wait(1), world.wait(1, first=2)
    expected = ids(good.tasks)
    lane = world.lanes.of(bad.header)
    world.pool.trouble = TypeError("nonsense")
    executor = world.executor()
    world.pool.leases.append(executor)
    world.dispatcher.serve(lane)
    (error,) = world.failing.failed.values()
    assert "nonsense" in str(error)
    world.loop.run()
    assert executor.ran() == expected


def test_tasks_go_back_when_their_marks_cannot_be_set():
    world = Dispatch()
    piece = world.wait(1, max_retries=0)
    lane = world.lanes.of(piece.header)
    executor = world.executor(lane=lane)

    def away(*_: object) -> None:
        raise ConnectionLost("away")

    world.marks.mark = away
    world.dispatcher.serve(lane)
    assert not executor.sent
    assert lane.waiting == 1
    world.marks.mark = lambda piece, tasks: tasks
    world.loop.run(1.0)
    assert len(executor.ran()) == 1


def test_an_executor_whose_tasks_were_second_copies_is_let_go():
    world = Dispatch()
    lane = world.lanes.of(world.wait(1, max_retries=0).header)
    executor = world.executor(lane=lane)
    world.marks.mark = lambda piece, tasks: []
    world.dispatcher.serve(lane)
    assert world.pool.ended == [executor]


def test_an_actor_gets_an_executor_that_has_run_nothing():
    world = Dispatch()
    piece = world.wait(1, kind=KIND_ACTOR_CREATION, actor=b"a" * 16)
    lane = world.lanes.of(piece.header)
    used, fresh = world.executor(1, lane=lane), world.executor(2)
    used.next_sequence = 7
    world.pool.leases.append(fresh)
    world.dispatcher.serve(lane)
    assert world.pool.ended == [used]
    assert world.pool.fresh == [True]
    assert len(world.hosted) == 1
    assert fresh not in lane.executors


@pytest.mark.parametrize("hosts", [False, ConnectionLost("away")])
def test_an_executor_stays_the_lanes_if_it_became_no_host(hosts: Any):
    world = Dispatch()
    world.hosts = hosts
    piece = world.wait(1, kind=KIND_ACTOR_CREATION, actor=b"a" * 16)
    lane = world.lanes.of(piece.header)
    executor = world.executor(lane=lane)
    world.dispatcher.serve(lane)
    if hosts is False:
        assert world.pool.ended == [executor]
        return
    assert lane.executors == [executor]
    assert lane.waiting == 1
    world.loop.run(1.0)
    assert len(world.hosted) == 1


def test_work_that_came_by_no_delivery_is_served():
    world = Dispatch()
    piece = world.wait(1)
    lane = world.lanes.of(piece.header)
    lane.take_all()
    executor = world.executor(lane=lane)
    world.dispatcher.enqueue(piece)
    assert executor.ran()


def test_actors_that_ended_before_they_were_created_are_not_handed_out_one_on_the_stack_of_the_other():
    world = Dispatch()
    world.hosts = False
    lanes = [
        world.lanes.of(world.wait(1, kind=KIND_ACTOR_CREATION, actor=b"a" * 16, env=b"%d" % at).header)
        for at in range(2)
        for _ in range(1000)
    ]
    executor = world.executor()
    world.pool.leases.append(executor)
    end_lease = world.pool.end_lease

    def end(executor: Any) -> None:
        end_lease(executor)
        executor.state = State.LEASED  # for the next one
        world.pool.leases.append(executor)
        world.dispatcher.serve_all()

    world.pool.end_lease = end  # type: ignore[method-assign]
    world.dispatcher.serve_all()
    assert len(world.hosted) == 2000
    assert not any(lane.waiting for lane in lanes)
    assert not world.failing.failed


def test_what_cannot_be_handed_out_is_what_was_chosen_not_what_came_first():
    world = Dispatch()
    first, chosen = world.wait(1), world.wait(1, first=2)
    expected, lane = ids(chosen.tasks), world.lanes.of(first.header)
    world.nesting.choose = lambda lane: chosen if chosen.tasks else None
    world.pool.trouble = TypeError("nonsense")
    world.dispatcher.serve(lane)
    assert list(world.failing.failed) == expected
    assert lane.first() is first


def test_an_executor_whose_tasks_were_second_copies_keeps_no_room_beside_what_is_held_back():
    world = Dispatch()
    first, held_back = world.wait(1, max_retries=0), world.wait(1, first=2)
    lane = world.lanes.of(held_back.header)
    executor = world.executor(lane=lane)
    world.marks.mark = lambda piece, tasks: []
    world.nesting.choose = lambda lane: first if first.tasks else None
    world.dispatcher.serve(lane)
    assert world.pool.ended == [executor]
    assert lane.waiting == 1


def test_nothing_is_sent_ahead_when_the_next_turn_is_another_jobs():
    world = Dispatch()
    piece = world.wait(1000)
    lane = world.lanes.of(piece.header)
    executor = world.executor(lane=lane)
    world.run_times.means[piece.header.function] = 0.001
    world.wait(1, job=b"2222")
    world.dispatcher.serve(lane)
    assert len(executor.chunks) == 1


def test_room_goes_to_the_job_whose_turn_it_is():
    world = Dispatch()
    bulk, other = world.wait(10), world.wait(1, job=b"2222")
    lane = world.lanes.of(bulk.header)
    chunk = world.chunk(world.executor(lane=lane))
    world.turns.began(lane, chunk, 1.0)
    world.ledger.release(world.executors[1].grant)
    executor = world.executor(2)
    world.pool.leases.append(executor)
    world.dispatcher.serve_all()
    assert executor.lane is world.lanes.of(other.header)


def test_room_is_kept_for_what_was_passed_over_for_long(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    for module in ("dispatch.dispatcher", "model.lanes"):
        monkeypatch.setattr(f"rabbitry_workers.node.{module}.time.monotonic", lambda: now[0])
    world = Dispatch(2.0)
    large = world.lanes.of(world.wait(1, resources="CPU=2").header)
    never = world.lanes.of(world.wait(1, resources="CPU=3").header)
    small = world.lanes.of(world.wait(10).header)
    world.chunk(world.executor(lane=small))
    world.chunk(world.executor(2, lane=small))
    world.dispatcher.serve_all()
    assert not world.kept, "not at once"
    now[0] += 2.0
    world.dispatcher.serve_all()
    assert world.kept == [large.key]
    assert never.waiting
