"""What executors say: tasks are settled once, what they released is published, the executor goes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_workers.node.dispatch.completions import Completions
from rabbitry_workers.node.dispatch.messages import ExecutorMessages
from rabbitry_workers.node.dispatch.run_times import MEANS_KEPT, RunTimes
from rabbitry_workers.node.dispatch.turns import Turns
from rabbitry_workers.node.model.lanes import Executor
from tests.workers.node.fakes import World, ids


class Completing(World):
    def __init__(self) -> None:
        super().__init__()
        self.run_times = RunTimes()
        self.ended: list[Executor] = []
        self.released: list[Executor] = []
        self.adopted: list[Any] = []
        self.retried: list[Any] = []
        pool: Any = SimpleNamespace(end_lease=self.ended.append, release=self.released.append)
        self.completions = Completions(
            self.settle,
            self.publishing,
            self.run_times,
            Turns(self.lanes, lambda job: 1.0),
            pool,
            self.serve,
            lambda *continuation: self.adopted.append(continuation),
            lambda chunk, each: self.retried.append(each),
            self.life,
        )
        self.lane = self.lanes.of(self.wait(0).header)
        self.one = self.executor(lane=self.lane)

    def done(self, upto: int, tasks: int = 1, busy: float = 0.0, **more: Any) -> None:
        fields: dict[str, Any] = {"retries": [], "dependants": [], "continuation": None, **more}
        self.completions.on_done(self.one, upto, tasks, busy, **fields)


def test_what_is_committed_is_settled_and_the_rest_stays():
    world = Completing()
    first, second = world.chunk(world.one, 3), world.chunk(world.one, 4, first=4)
    world.done(5, 5)
    assert (first.held.outstanding, second.held.outstanding) == (0, 2)
    (left,) = world.one.chunks
    assert (left.first, len(left.tasks)) == (5, 2)
    world.done(7, 2)
    assert second.held.outstanding == 0
    assert not world.one.chunks


def test_an_idle_executor_gives_its_lease_back_unless_its_lane_has_more():
    world = Completing()
    world.chunk(world.one)
    world.done(1)
    assert world.ended == [world.one]
    assert world.served == []
    world.chunk(world.one)
    world.wait(1)
    world.done(2)
    assert world.served == [world.lane]


def test_one_that_is_to_end_does_and_its_lane_is_served():
    world = Completing()
    world.chunk(world.one)
    world.one.leaving = "max_calls"
    world.done(1)
    assert world.one.ended
    assert world.released == [world.one]
    assert world.served == [world.lane]


def test_run_times_are_means_in_which_the_last_counts_most():
    world = Completing()
    chunk = world.chunk(world.one, 4)
    world.done(2, 2, 4.0)
    assert world.run_times.means[chunk.header.function] == 2.0
    world.done(4, 2, 8.0)
    assert world.run_times.means[chunk.header.function] == 3.0


def test_few_run_times_are_kept():
    times = RunTimes()
    for number in range(MEANS_KEPT + 2):
        times.note(b"%d" % number, 1.0)
    assert len(times.means) == 1


def test_a_task_that_is_tried_again_stays_outstanding():
    world = Completing()
    chunk = world.chunk(world.one, 2)
    again = chunk.tasks[1]
    world.done(2, 2, retries=[(1, list(again))])
    assert chunk.held.outstanding == 1
    assert ids(world.retried) == [again[0]]


def test_released_tasks_are_published_for_their_releasers():
    world = Completing()
    chunk = world.chunk(world.one)
    dependant = [b"spec", b"frame", "task.CPU=1", 0, b"{t}", b"s"]
    world.done(1, dependants=[dependant])
    assert world.publishing.released == [([chunk.held], [tuple(dependant)], False)]


@pytest.mark.parametrize("again", [True, False])
def test_the_note_of_a_continuation_goes_with_its_result_unless_it_is_tried_again(again: bool):
    world = Completing()
    chunk = world.chunk(world.one)
    chunk.clears_note = True
    chunk.held.continues = (b"spec", b"{t}", b"s")
    world.done(1, retries=[(0, list(chunk.tasks[0]))] if again else [], dependants=[[b"x", b"", "q", 0, b"", b""]])
    assert (chunk.held.continues is None) is not again
    assert world.publishing.released[0][2]


def test_what_an_executor_goes_on_with_is_taken_note_of():
    world = Completing()
    world.chunk(world.one)
    world.done(1, continuation=["fields"])
    assert world.adopted == [(world.one, 1, ["fields"])]


def test_cancellations_are_forgotten_when_nothing_is_left_to_cancel():
    world = Completing()
    chunk = world.chunk(world.one, 2)
    world.one.cancelled.add(chunk.tasks[0][0])
    world.done(1)
    assert world.one.cancelled
    world.done(2)
    assert not world.one.cancelled


def test_a_leaving_node_stops_when_the_last_task_is_done():
    world = Completing()
    world.chunk(world.one)
    world.life.lasts_while(lambda: world.one.chunks)
    world.life.drain()
    world.life.stop_if_drained()
    assert not world.loop.stopped
    world.done(1)
    assert world.loop.stopped


def test_words_of_executors_go_to_their_handlers_and_unknown_ones_nowhere():
    heard: list[Any] = []
    gone: list[Any] = []
    messages = ExecutorMessages({1: lambda *said: heard.append(said)}, gone.append)
    executor: Any = object()
    messages.on_executor_message(executor, [1, "a", "b"])
    messages.on_executor_message(executor, [99])
    messages.on_executor_gone(executor)
    assert heard == [(executor, "a", "b")]
    assert gone == [executor]


def test_an_executor_goes_when_the_next_turn_is_another_jobs():
    world = Completing()
    world.chunk(world.one)
    world.wait(5)
    world.wait(1, job=b"2222")
    world.done(1, busy=1.0)
    assert world.ended == [world.one]
    assert world.served == []
