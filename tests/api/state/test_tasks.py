"""Events put together: what became of each task."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from rabbitry.state import tasks as states
from rabbitry.state.tasks import TaskLog
from rabbitry_broker import events
from rabbitry_broker.events import Batch
from rabbitry_broker.ids import TaskIds, new_client_id, new_job_id
from rabbitry_broker.messages import TaskHeader, encode_header

CLIENT, JOB = new_client_id(), new_job_id()
HEADER = encode_header(TaskHeader(b"digest", "f", CLIENT, JOB, "CPU=1"))
NODE = b"n" * 28
WORKER = b"w" * 12
IDS = TaskIds(CLIENT, JOB)


class NoEvents:
    unreadable = 0

    def fresh(self) -> list[Any]:
        return []


def log(*marks: Any, kept: int = 100, node: bytes = NODE) -> TaskLog:
    found = TaskLog(NoEvents(), kept=kept)  # type: ignore[arg-type]
    found.take(batch(*marks, node=node))
    return found


def batch(*marks: Any, node: bytes = NODE, dropped: int = 0) -> Batch:
    return Batch({"id": CLIENT, "node": node}, [HEADER], [list(mark) for mark in marks], dropped)


def done(*ids: bytes, times: Any = ((1.0, 0.25),), attempts: bytes = b"") -> tuple[Any, ...]:
    numbers = array("f", [each for pair in times for each in pair]).tobytes()
    return (events.DONE, 0, 11.0, 12.0, 13.0, b"".join(ids), numbers, attempts, WORKER, 7)


def test_a_task_that_was_sent_waits_for_a_node():
    task_id = IDS.next()
    known = log((events.SUBMITTED, 0, 10.0, task_id, "task.CPU=1"))
    ((task, attempt),) = known.rows()
    assert attempt is None
    assert task.created == 10.0
    assert task.queue == "task.CPU=1"
    assert task.header is not None
    assert task.header.name == "f"


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(("sent", "created"), [(11.5, 11.0), (10.5, 10.5), (3611.0, 3611.0)])
def test_a_task_is_sent_before_a_node_has_it_but_for_clocks_that_differ(order: int, sent: float, created: float):
    task_id = IDS.next()
    marks = [(events.SUBMITTED, 0, sent, task_id, "q"), done(task_id)]
    ((task, _),) = log(*marks[::order]).rows()
    assert task.created == created


def test_one_mark_tells_the_whole_story_of_many_tasks():
    first, second = IDS.next(), IDS.next()
    known = log((events.SUBMITTED, 0, 10.0, first + second, "q"), done(first, second, times=((1.0, 0.25), (2.0, 1.0))))
    (_, last), (_, before) = known.rows()  # the latest first
    assert (before.state, before.queued, before.leased, before.started, before.ended) == (
        states.FINISHED,
        11.0,
        12.0,
        13.75,
        14.0,
    )
    assert (last.started, last.ended) == (14.0, 15.0)
    assert (last.node, last.worker, last.pid) == (NODE, WORKER, 7)


def test_an_end_is_an_end_in_whatever_order_marks_come():
    task_id = IDS.next()
    known = log(
        done(task_id),
        (events.RUNNING, 0, 99.0, task_id, 0, WORKER, 7),
        (events.SUBMITTED, 0, 10.0, task_id, "q"),
        (events.QUEUED, 0, 98.0, task_id, 0),
    )
    ((task, attempt),) = known.rows()
    assert attempt is not None
    assert attempt.state == states.FINISHED
    assert task.created == 10.0


def test_an_error_makes_an_end_a_failure_whichever_comes_first():
    first, second = IDS.next(), IDS.next()
    known = log(
        (events.FAILED, 0, 14.0, first, 0, "TASK_EXECUTION_EXCEPTION", "ValueError: no", WORKER, 7),
        done(first),
        done(second),
        (events.FAILED, 0, 14.0, second, 0, "TASK_EXECUTION_EXCEPTION", "ValueError: no", WORKER, 7),
    )
    for _, attempt in known.rows():
        assert attempt is not None
        assert (attempt.state, attempt.error, attempt.text) == (
            states.FAILED,
            "TASK_EXECUTION_EXCEPTION",
            "ValueError: no",
        )
        assert attempt.started == 13.75


def test_the_latest_mark_says_where_a_task_is():
    task_id = IDS.next()
    known = log((events.QUEUED, 0, 11.0, task_id, 0))
    task = known.tasks[task_id]
    assert task.last is not None
    assert task.last.state == states.QUEUED
    known.take(batch((events.LEASED, 0, 12.0, task_id, 0, WORKER, 7), (events.RUNNING, 0, 12.0, task_id, 0, WORKER, 7)))
    assert task.last.state == states.RUNNING
    known.take(batch((events.IN_GET, 0, 13.0, task_id, 0, WORKER, 7)))
    assert task.last.state == states.IN_GET
    known.take(batch((events.RUNNING, 0, 14.0, task_id, 0, WORKER, 7)))
    assert task.last.state == states.RUNNING
    assert task.last.started == 12.0
    # A node died, another one has it: a later mark, of an earlier state.
    known.take(batch((events.QUEUED, 0, 20.0, task_id, 0), node=b"m" * 28))
    assert (task.last.state, task.last.node) == (states.QUEUED, b"m" * 28)


def test_each_attempt_stands_for_itself():
    task_id = IDS.next()
    known = log(
        (events.FAILED, 0, 14.0, task_id, 0, "WORKER_DIED", "it died", WORKER, 7), done(task_id, attempts=b"\1")
    )
    (_, first), (_, second) = known.rows()
    assert first is not None
    assert second is not None
    assert (first.number, first.state, first.error) == (0, states.FAILED, "WORKER_DIED")
    assert (second.number, second.state, second.error) == (1, states.FINISHED, "")


def test_parents_and_needs_are_known_of_tasks_only_that_are():
    parent, child, needed = IDS.next(), IDS.next(), IDS.next()
    known = log(
        (events.CHILDREN, parent, child),
        (events.PARKED, 0, 10.0, child, "q"),
        (events.NEEDS, child, needed),
    )
    ((task, _),) = known.rows()
    assert task.id == child
    assert task.parent == parent
    assert task.needs == (needed,)
    assert task.parked == 10.0


def test_workers_come_and_go():
    known = log(
        (events.WORKER, 5.0, WORKER, 7, JOB, b"", ""), (events.WORKER, 9.0, WORKER, 7, JOB, b"a" * 16, "retired")
    )
    worker = known.workers[WORKER]
    assert (worker.pid, worker.node, worker.started, worker.ended) == (7, NODE, 5.0, 9.0)
    assert (worker.reason, worker.actor) == ("retired", b"a" * 16)


def test_what_a_job_says_of_itself_adds_up():
    known = log((events.JOB, 5.0, JOB, {"pid": 3}), (events.JOB, 9.0, JOB, {"ended": 9.0}))
    assert known.jobs[JOB] == (9.0, {"pid": 3, "ended": 9.0})


def test_of_too_many_tasks_those_that_have_ended_are_forgotten_first():
    waits = [IDS.next() for _ in range(3)]
    known = TaskLog(Several([batch((events.SUBMITTED, 0, 1.0, b"".join(waits), "q"))], kept_times=20), kept=10)  # type: ignore[arg-type]
    known.refresh()
    assert len(known.tasks) <= 11
    assert set(waits) <= set(known.tasks)
    assert known.forgotten > 0


class Several:
    """Yields batches, then tasks that have ended."""

    unreadable = 0

    def __init__(self, batches: list[Batch], *, kept_times: int) -> None:
        self._batches = [*batches, *[batch(done(IDS.next())) for _ in range(kept_times)]]

    def fresh(self) -> list[Any]:
        return [(1.0, each) for each in self._batches]


def test_nonsense_in_a_batch_is_left_out():
    task_id = IDS.next()
    known = log(
        (events.DONE, 5, 1),
        (events.SUBMITTED, 9, 1.0, task_id, "q"),
        ("what", 3),
        (events.SUBMITTED, 0, 10.0, task_id, "q"),
    )
    assert [task.id for task, _ in known.rows()] == [task_id]


def test_dropped_marks_are_counted():
    known = log()
    known.take(batch(dropped=5))
    known.take(batch(dropped=2))
    assert known.dropped == 7


def test_who_cancels_what_has_ended_does_not_make_it_a_failure():
    ended, running = IDS.next(), IDS.next()
    known = log(done(ended), (events.RUNNING, 0, 12.0, running, 0, WORKER, 7))
    # The clients that cancelled them commit errors where no results stand, and note that; no process of the tasks does.
    known.take(
        batch(
            *(
                (events.FAILED, 0, 20.0, each, 0, "TASK_CANCELLED", "TaskCancelledError", b"", 0)
                for each in (ended, running)
            )
        )
    )
    found = {task.id: attempt for task, attempt in known.rows() if attempt is not None}
    assert (found[ended].state, found[ended].error) == (states.FINISHED, "")
    assert (found[running].state, found[running].error) == (states.FAILED, "TASK_CANCELLED")
