"""Tasks that are tried again after an exception or a crash, those that fail, and what was not begun."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry.exceptions import NodeDiedError, OutOfMemoryError, TaskCancelledError, WorkerCrashedError
from rabbitry_workers.channel import TAKEN
from rabbitry_workers.node.dispatch import recall as recalls
from rabbitry_workers.node.dispatch.blocking import Blocking
from rabbitry_workers.node.dispatch.crashes import Crashes
from rabbitry_workers.node.dispatch.ending import Ending
from rabbitry_workers.node.dispatch.recall import Recall
from rabbitry_workers.node.dispatch.retries import Retries
from rabbitry_workers.node.dispatch.start_marks import StartMarks
from rabbitry_workers.node.model.lanes import State
from tests.workers.node.fakes import World, ids


class Pool:
    def __init__(self, world: World) -> None:
        self.dispatcher = world
        self.told: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *what: self.told.append((name, what[0]))

    def release(self, executor: Any) -> None:
        executor.lane = None

    def leaves(self, executor: Any, why: str) -> None:
        executor.leaving = why


class FakeOutput:
    """What executors printed."""

    def __init__(self) -> None:
        self.ended_first: list[bool] = []

    def ended(self, executor: Any) -> None:
        self.ended_first.append(executor.state is not State.DEAD)

    def last_words(self, executor: Any, task_id: bytes) -> str:
        assert self.ended_first[-1], "what it printed is read before its page is closed"
        return f" It said {task_id.hex()}."


class Trouble(World):
    def __init__(self) -> None:
        super().__init__()
        self.cancelling: Any = SimpleNamespace(known={})
        self.gave_back = 0
        self.blocked: dict[bytes, int] = {}
        self.nesting: Any = SimpleNamespace(
            begins=lambda each: self.blocked.setdefault(each.client_id, 1),
            ends=lambda each: self.blocked.pop(each.client_id, None),
            blocked=self.blocked,
        )
        self.pool: Any = Pool(self)
        self.actors_gone: list[Any] = []
        self.created: list[Any] = []
        self.dropped: list[Any] = []
        self.doubted: list[Any] = []
        self.allowed: list[int] = []
        self.recall = Recall(self.lanes, self.executors, self.settle, self.pool, self.dropped.append)
        self.retries = Retries(
            self.node, self.lanes, self.commits, self.cancelling, self.serve, self.give_back_all, self.life
        )
        self.crashes = Crashes(
            self.node, self.lanes, self.executors, self.pool, self.nesting, self.recall, self.commits, self, self.life,
            self.actors_gone.append, lambda _: None, FakeOutput(),
        )  # fmt: skip
        self.blocking = Blocking(self.nesting, self.recall, self, self.allowed.append)
        self.ending = Ending(
            self.lanes, self.pool, self.recall, self, self.failing, lambda *what: self.created.append(what), self.life
        )
        self.marks = StartMarks(
            self.node, self.settle, self.commits, self.peers.is_alive, lambda *what: self.doubted.append(what)
        )

    def give_back_all(self) -> None:
        self.gave_back += 1

    def waiting(self) -> list[bytes]:
        return [each for lane in self.lanes.values() for piece in lane.all_pieces() for each in ids(piece.tasks)]


@pytest.fixture
def world() -> Trouble:
    return Trouble()


# -- after an exception ------------------------------------------------------------------------------------------------


def test_a_task_is_tried_again_after_its_delay(world: Trouble):
    chunk = world.chunk(world.executor(), retry_delay=2.0)
    world.retries.retry_later(chunk, chunk.tasks[0])
    assert list(world.retries.task_ids()) == ids(chunk.tasks)
    assert not world.waiting()
    world.loop.run(100.0)
    assert world.waiting() == ids(chunk.tasks)
    assert not world.retries.delayed
    assert len(world.served) == 1


def test_without_a_delay_it_is_tried_at_once(world: Trouble):
    chunk = world.chunk(world.executor())
    world.retries.retry_later(chunk, chunk.tasks[0])
    assert world.waiting() == ids(chunk.tasks)


def test_one_that_was_cancelled_meanwhile_fails(world: Trouble):
    chunk = world.chunk(world.executor(), retry_delay=2.0)
    world.retries.retry_later(chunk, chunk.tasks[0])
    world.cancelling.known[chunk.tasks[0][0]] = None
    world.loop.run(100.0)
    assert isinstance(world.commits.results[chunk.tasks[0][0]], TaskCancelledError)
    assert chunk.held.outstanding == 0


def test_a_leaving_node_gives_what_is_delayed_to_others_once(world: Trouble):
    chunk = world.chunk(world.executor(), retry_delay=2.0)
    world.retries.retry_later(chunk, chunk.tasks[0])
    world.life.drain()
    world.retries.put_all()
    world.loop.run(100.0)
    assert world.waiting() == ids(chunk.tasks)
    assert world.gave_back == 1
    assert not world.served


# -- after a crash -----------------------------------------------------------------------------------------------------


def test_what_had_not_begun_goes_back_without_counting(world: Trouble):
    executor = world.executor()
    chunk = world.chunk(executor, 3, max_retries=0)
    executor.progress.started[0] = 1
    world.crashes.on_gone(executor)
    assert world.waiting() == ids(chunk.tasks[1:])
    assert isinstance(world.commits.results[chunk.tasks[0][0]], WorkerCrashedError)
    assert executor.state is State.DEAD
    assert world.served_all == 1


def test_what_ran_is_tried_again_alone_with_one_attempt_more(world: Trouble):
    executor = world.executor()
    chunk = world.chunk(executor, 3, max_retries=3)
    executor.progress.started[0] = 2
    world.crashes.on_gone(executor)
    (lane,) = world.lanes.values()
    assert sorted(world.waiting()) == sorted(ids(chunk.tasks))
    attempts = {each[0]: each[2] for piece in lane.all_pieces() for each in piece.tasks}
    assert [attempts[each[0]] for each in chunk.tasks] == [0, 1, 0]
    assert len(list(lane.all_pieces())) == 3


def test_the_task_that_took_too_much_memory_says_so(world: Trouble):
    executor = world.executor()
    chunk = world.chunk(executor, 1, max_retries=0)
    executor.progress.started[0] = 1
    executor.over_memory = "it took 9 MiB"
    world.crashes.on_gone(executor)
    error = world.commits.results[chunk.tasks[0][0]]
    assert isinstance(error, OutOfMemoryError)
    assert "9 MiB" in str(error)


def test_a_cancelled_task_is_not_tried_again(world: Trouble):
    executor = world.executor()
    chunk = world.chunk(executor, 1, max_retries=3)
    executor.progress.started[0] = 1
    executor.cancelled.add(chunk.tasks[0][0])
    world.crashes.on_gone(executor)
    assert isinstance(world.commits.results[chunk.tasks[0][0]], TaskCancelledError)
    assert not world.waiting()


def test_a_crash_is_told_when_redis_is_back(world: Trouble):
    executor = world.executor()
    chunk = world.chunk(executor, 1, max_retries=0)
    executor.progress.started[0] = 1
    world.commits.away = 1
    world.crashes.on_gone(executor)
    assert chunk.held.outstanding == 1
    world.loop.run(1.0)
    assert chunk.held.outstanding == 0


def test_the_end_of_an_actors_host_is_the_actors_business(world: Trouble):
    executor = world.executor(state=State.ACTOR)
    executor.actor = b"a" * 16
    world.crashes.on_gone(executor)
    assert world.actors_gone == [executor]


def test_what_it_held_is_given_back_whatever_else_comes_of_its_end(world: Trouble):
    executor = world.executor()
    chunk = world.chunk(executor, 1, max_retries=3)

    def fail(*_: Any) -> None:
        raise ValueError("unforeseen")

    world.crashes.on_ended = fail
    world.crashes.on_gone(executor)
    assert executor.lane is None and executor.state is State.DEAD
    assert world.waiting() == ids(chunk.tasks)


def test_the_signal_that_ended_a_process_is_noted(world: Trouble):
    executor = world.executor(5)
    world.crashes.on_exited(5, signal.SIGKILL)
    world.crashes.on_exited(6, 0)  # nobody knows it
    assert executor.exited
    assert "signal 9" in executor.leaving


# -- taking back -------------------------------------------------------------------------------------------------------


def test_what_an_executor_has_not_begun_is_taken_back_but_for_what_was_cancelled(world: Trouble):
    executor = world.executor()
    first, second = world.chunk(executor, 3), world.chunk(executor, 2, first=4)
    executor.dropped[second.tasks[1][0]] = False
    world.recall.take_back(executor, 0)
    assert len(world.waiting()) == 3
    (left,) = executor.chunks
    assert left is first
    assert (left.end, len(left.tasks)) == (1, 1)
    assert second.held.outstanding == 1  # the cancelled one is settled


def test_what_stands_behind_a_slow_task_is_recalled(world: Trouble, monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(recalls.time, "monotonic", lambda: now[0])
    executor = world.executor(lane=world.lanes.of(world.wait(0).header))
    chunk = world.chunk(executor, 3)
    executor.progress.started[0] = 1
    world.recall.run_once()
    now[0] = 2 * recalls.STUCK_SECONDS
    world.recall.run_once()
    assert executor.revoked
    assert executor.progress.revocations[:2] == [1, 1]
    behind = ids(chunk.tasks[1:])
    world.recall.run_once()
    assert not executor.revoked
    assert executor.sent == [[TAKEN, 1, 1]]
    assert world.waiting() == behind
    assert len(chunk.tasks) == 1


def test_an_executor_that_ended_its_slow_task_gives_its_lease_back(world: Trouble):
    executor = world.executor(lane=world.lanes.of(world.wait(0).header))
    executor.revoked = True
    world.recall.run_once()
    assert ("end_lease", executor) in world.pool.told


def test_an_actor_is_not_recalled_and_what_was_dropped_is_looked_after(world: Trouble):
    executor = world.executor(state=State.ACTOR)
    executor.revoked = True
    executor.dropped[b"x"] = True
    world.recall.run_once()
    assert not executor.sent
    assert world.dropped == [executor]


# -- waiting executors, and those that end -----------------------------------------------------------------------------


def test_an_executor_that_waits_lends_its_cpu_and_gives_back_what_it_has_not_begun(world: Trouble):
    lane = world.lanes.of(world.wait(0).header)
    executor = world.executor(lane=lane)
    chunk = world.chunk(executor, 3)
    behind = ids(chunk.tasks[1:])
    world.blocking.on_blocked(executor, 0, True)
    assert executor.state is State.BLOCKED and executor.in_wait
    assert executor.sent == [[TAKEN, 0]]
    assert world.waiting() == behind
    assert world.ledger.available()["CPU"] == 1
    assert world.allowed == [1]
    assert world.served == [lane]
    world.blocking.on_unblocked(executor)
    assert executor.state is State.LEASED
    assert world.ledger.available()["CPU"] == 0
    assert not world.blocked


def test_one_that_others_live_by_stays_without_holding_anything(world: Trouble):
    executor = world.executor(lane=world.lanes.of(world.wait(0).header))
    chunk = world.chunk(executor, 2)
    world.ending.on_leaving(executor, "retired", 0)
    assert executor.lingering
    assert len(world.waiting()) == 1
    assert len(chunk.tasks) == 1
    assert ("end_lease", executor) in world.pool.told
    assert not executor.ended


def test_one_that_says_goodbye_is_told_to_end(world: Trouble):
    executor = world.executor()
    world.ending.on_bye(executor, "max_calls")
    assert (executor.leaving, executor.ended) == ("max_calls", True)


def test_an_environment_that_cannot_be_set_up_fails_all_that_needs_it(world: Trouble):
    executor = world.executor()
    sent, waiting, other = world.chunk(executor), world.wait(1, first=5), world.wait(1, first=6, env=b"other")
    expected = {*ids(sent.tasks), *ids(waiting.tasks)}
    world.ending.on_broken(executor, "no such package")
    assert set(world.failing.failed) == expected
    assert world.waiting() == ids(other.tasks)


def test_an_actor_whose_environment_cannot_be_set_up_is_not_created(world: Trouble):
    executor = world.executor()
    executor.actor = b"a" * 16
    world.ending.on_broken(executor, "no such package")
    ((created, error),) = world.created
    assert created is executor
    assert error


# -- start marks -------------------------------------------------------------------------------------------------------


def test_a_task_that_may_run_once_runs_if_nobody_has_started_it(world: Trouble):
    piece = world.wait(2, max_retries=0)
    tasks = list(piece.tasks)
    assert world.marks.mark(piece, tasks) == tasks
    assert set(world.store.starts.values()) == {world.node.id}


def test_one_that_was_marked_before_it_came_back_is_not_marked_again(world: Trouble):
    piece = world.wait(2, max_retries=0)
    piece.marked = 1
    world.marks.mark(piece, list(piece.tasks))
    assert len(world.store.starts) == 1
    assert piece.marked == 0
    piece.marked = 2
    assert len(world.marks.mark(piece, list(piece.tasks))) == 2


@pytest.mark.parametrize("by", ["here", "alive", "dead"])
def test_one_that_somebody_has_started_does_not_run(world: Trouble, by: str):
    piece = world.wait(1, max_retries=0)
    (each,) = piece.tasks
    world.store.starts[each[0]] = world.node.id if by == "here" else b"n" * 12
    if by == "alive":
        world.peers.alive.add(b"n" * 12)
    assert world.marks.mark(piece, [each]) == []
    assert piece.held.outstanding == (1 if by == "alive" else 0)
    assert len(world.doubted) == (by == "alive")
    assert isinstance(world.commits.results.get(each[0]), NodeDiedError) is (by == "dead")


@pytest.mark.parametrize(
    ("dismissed", "leaving", "why"),
    [
        ("", "", "the process ended by itself"),
        ("", "retired", "retired"),
        ("its job has ended", "", "its job has ended"),
        ("its task was cancelled", "killed by signal 9", "its task was cancelled"),
    ],
)
def test_events_are_told_why_a_process_has_ended(world: Trouble, dismissed: str, leaving: str, why: str):
    executor = world.executor()
    executor.dismissed, executor.leaving = dismissed, leaving
    told: list[str] = []
    world.crashes.on_ended = lambda _, reason: told.append(reason)
    world.crashes.on_gone(executor)
    assert told == [why]
