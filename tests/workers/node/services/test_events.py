"""What a node tells of its tasks: what ended, and at each look what waits, is handed out, runs."""

from __future__ import annotations

import time
from array import array
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry.exceptions import TaskCancelledError, WorkerCrashedError, store_error
from rabbitry_broker import events, records
from rabbitry_broker.events import split
from rabbitry_broker.messages import encode_header
from rabbitry_workers.node.model.lanes import State
from rabbitry_workers.node.model.work import Chunk, Held, Piece
from rabbitry_workers.node.services.events import NodeEvents
from tests.workers.conftest import header, task
from tests.workers.node.fakes import OWNER, FakeExecutor, World

HEADER = header(OWNER)
ENCODED = encode_header(HEADER)


class Sent:
    """What was sent, mark by mark."""

    def __init__(self) -> None:
        self.marks: list[Any] = []

    def send(self, recorder: Any, who: dict[str, Any]) -> None:
        self.marks += [mark for marks, _ in recorder.take() for mark in marks]
        assert who["node"]

    def take(self, *words: int) -> list[Any]:
        taken, self.marks = self.marks, []
        return [mark for mark in taken if not words or mark[0] in words]


@pytest.fixture
def case() -> Any:
    world, sent = World(), Sent()
    told = NodeEvents(world.node, world.lanes, world.executors, send=sent)
    return SimpleNamespace(lanes=world.lanes, executors=world.executors, sent=sent, told=told)


def piece(*numbers: int, **fields: Any) -> Piece:
    head = header(OWNER, **fields)
    return Piece(Held(None, "q"), encode_header(head), head, deque(task(OWNER, each) for each in numbers))


def leased(case: Any, *numbers: int, **fields: Any) -> tuple[FakeExecutor, Chunk]:
    executor = FakeExecutor(7)
    executor.client_id = b"w" * 12
    of = piece(*numbers, **fields)
    chunk = Chunk(of, 0, list(of.tasks))
    executor.chunks.append(chunk)
    case.executors[7] = executor
    return executor, chunk


def test_what_ended_is_one_mark_for_a_chunk(case: Any):
    executor, chunk = leased(case, 1, 2)
    times = array("f", [0.5, 0.5, 0.75, 0.25]).tobytes()
    case.told.done(executor, chunk, chunk.tasks, 100.0, times)
    case.told.close()
    ((word, head, queued, sent_at, since, ids, told, attempts, worker, pid),) = case.sent.take()
    assert (word, head, since, told, attempts, worker, pid) == (events.DONE, ENCODED, 100.0, times, b"", b"w" * 12, 7)
    assert split(ids) == [each[0] for each in chunk.tasks]
    assert abs(queued - time.time()) < 5.0
    assert abs(sent_at - time.time()) < 5.0


def test_times_that_do_not_fit_are_not_believed(case: Any):
    executor, chunk = leased(case, 1, 2)
    case.told.done(executor, chunk, chunk.tasks, 100.0, b"12345678")
    case.told.close()
    assert case.sent.take()[0][6] == b""


def test_attempts_are_told_if_there_were_any(case: Any):
    executor, chunk = leased(case, 1, 2)
    chunk.tasks[1] = (*chunk.tasks[1][:2], 3, *chunk.tasks[1][3:])
    case.told.done(executor, chunk, chunk.tasks, 100.0, b"")
    case.told.close()
    assert case.sent.take()[0][7] == b"\x00\x03"


def test_what_waits_is_told_once(case: Any):
    case.lanes.of(HEADER).put(piece(1, 2, 3))
    case.lanes.of(HEADER).put(piece(4, events=False))
    case.told.run_once()
    (mark,) = case.sent.take()
    assert (mark[0], mark[4], len(split(mark[3]))) == (events.QUEUED, 0, 3)
    case.told.run_once()
    assert case.sent.take() == []


def test_of_what_an_executor_has_it_is_told_what_runs(case: Any):
    executor, chunk = leased(case, 1, 2, 3)
    case.told.run_once()  # nothing has begun
    (lease,) = case.sent.take()
    assert (lease[0], len(split(lease[3])), lease[5:]) == (events.LEASED, 3, (b"w" * 12, 7))
    executor.progress.started[0] = 2
    case.told.run_once()
    (running,) = case.sent.take()
    assert (running[0], running[3]) == (events.RUNNING, chunk.tasks[1][0])
    case.told.run_once()
    assert case.sent.take() == []
    executor.state = State.BLOCKED
    case.told.run_once()
    assert [mark[0] for mark in case.sent.take()] == [events.IN_GET]
    executor.in_wait = True  # it went on and blocked again between two looks
    case.told.run_once()
    assert [mark[0] for mark in case.sent.take()] == [events.IN_WAIT]
    executor.state = State.LEASED
    case.told.run_once()
    assert [mark[0] for mark in case.sent.take()] == [events.RUNNING]
    executor.progress.started[0] = 3
    case.told.run_once()
    assert [mark[3] for mark in case.sent.take()] == [chunk.tasks[2][0]]


def test_what_is_seen_first_in_get_has_begun_too(case: Any):
    executor, _ = leased(case, 1)
    executor.progress.started[0] = 1
    executor.state = State.BLOCKED
    case.told.run_once()
    assert [mark[0] for mark in case.sent.take()] == [events.LEASED, events.RUNNING, events.IN_GET]


def test_errors_that_the_node_itself_gives_are_told_together(case: Any):
    record = records.ERROR + store_error(TaskCancelledError("ab"))
    other = records.ERROR + store_error(WorkerCrashedError())
    quiet = header(OWNER, events=False)
    held = Held(None, "q")
    failed = [(held, HEADER, task(OWNER, at), record) for at in range(3)]
    case.told.failed([*failed, (held, HEADER, task(OWNER, 9), other), (held, quiet, task(OWNER, 8), record)])
    case.told.failed([(held, HEADER, task(OWNER, 7), records.ACTOR + b"a" * 16)])  # no error
    case.told.close()
    marks = case.sent.take()
    assert [(mark[0], len(split(mark[3])), mark[5]) for mark in marks] == [
        (events.FAILED, 3, "TASK_CANCELLED"),
        (events.FAILED, 1, "WORKER_DIED"),
    ]


def test_constructors_of_actors_are_told_of(case: Any):
    executor = FakeExecutor(7)
    executor.client_id = b"w" * 12
    each = task(OWNER, 1)
    case.told.creation(executor, HEADER, each, None)
    case.told.creation(executor, HEADER, each, store_error(ValueError("no")))
    case.told.creation(executor, HEADER, each, b"")
    case.told.close()
    assert [mark[0] for mark in case.sent.take()] == [events.RUNNING, events.DONE, events.FAILED, events.DONE]


def test_workers_come_and_go(case: Any):
    executor = FakeExecutor(7)
    executor.client_id = b"w" * 12
    case.told.worker(executor)
    case.told.worker(executor, "killed by signal 9")
    case.told.close()
    assert [mark[-1] for mark in case.sent.take()] == ["", "killed by signal 9"]


def test_nothing_is_told_while_events_are_off():
    world, sent = World(events=False), Sent()
    told = NodeEvents(world.node, world.lanes, world.executors, send=sent)
    told.start()
    assert not world.loop.pending
    executor = FakeExecutor(7)
    told.worker(executor)
    told.creation(executor, HEADER, task(OWNER, 1), None)
    told.failed([(Held(None, "q"), HEADER, task(OWNER, 1), records.ERROR + store_error(ValueError()))])
    told.close()
    assert sent.marks == []
