"""Tasks as a trace: rows, slices, what waited, arrows."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rabbitry
from rabbitry.state import tasks as states
from rabbitry.state.tasks import Task
from rabbitry.state.timeline import trace, write
from rabbitry_broker.ids import TaskIds, new_client_id, new_job_id
from rabbitry_broker.messages import TaskHeader
from tests.chrome_trace import faults

NODE, OTHER = b"n" * 28, b"m" * 28
CLIENT, JOB = new_client_id(), new_job_id()
HEADER = TaskHeader(b"digest", "f", CLIENT, JOB, "CPU=1")
IDS = TaskIds(CLIENT, JOB)


def task(started: float, ended: float, *, node: bytes = NODE, pid: int = 7, needs: tuple[bytes, ...] = ()) -> Task:
    made = Task(IDS.next())
    made.header, made.created, made.needs = HEADER, started - 1.0, needs
    attempt = made.attempt(0)
    attempt.node, attempt.worker, attempt.pid = node, bytes([pid]) * 12, pid
    attempt.started, attempt.ended = started, ended
    attempt.state = states.FINISHED if ended else states.RUNNING
    return made


def of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [each for each in events if each["ph"] == kind]


def names(events: list[dict[str, Any]], what: str) -> dict[tuple[int, int], str]:
    return {(each["pid"], each["tid"]): each["args"]["name"] for each in of_kind(events, "M") if each["name"] == what}


def test_a_task_is_a_slice_on_the_row_of_its_worker():
    events = trace([task(10.0, 12.5)], {NODE: "one"}, 99.0)
    (run,) = of_kind(events, "X")
    assert (run["name"], run["ts"], run["dur"]) == ("f", 10_000_000, 2_500_000)
    assert names(events, "process_name")[run["pid"], 0] == "node one"
    assert names(events, "thread_name")[run["pid"], run["tid"]] == "worker 7"
    begin, end = of_kind(events, "b")[0], of_kind(events, "e")[0]
    assert (begin["ts"], end["ts"], begin["id"]) == (9_000_000, 10_000_000, end["id"])


def test_what_runs_lasts_until_now():
    (run,) = of_kind(trace([task(10.0, 0.0)], {}, 15.0), "X")
    assert run["dur"] == 5_000_000
    assert run["args"]["state"] == "RUNNING"


def test_each_node_is_a_process_and_each_worker_a_thread():
    events = trace(
        [task(1.0, 2.0), task(1.0, 2.0, pid=8), task(1.0, 2.0, node=OTHER)], {NODE: "one", OTHER: "two"}, 9.0
    )
    runs = of_kind(events, "X")
    assert len({each["pid"] for each in runs}) == 2
    assert len({(each["pid"], each["tid"]) for each in runs}) == 3


def test_calls_at_one_time_of_one_worker_stand_in_rows_of_their_own():
    events = trace([task(1.0, 5.0), task(2.0, 3.0), task(4.0, 6.0), task(5.5, 7.0)], {}, 9.0)
    runs = of_kind(events, "X")
    by_row: dict[int, list[tuple[int, int]]] = {}
    for each in runs:
        by_row.setdefault(each["tid"], []).append((each["ts"], each["ts"] + each["dur"]))
    assert len(by_row) == 2
    for spans in by_row.values():
        spans.sort()
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_an_arrow_leads_from_a_task_to_one_that_takes_its_result():
    first = task(1.0, 2.0)
    second = task(3.0, 4.0, pid=8, needs=(first.id, b"?" * 24))
    events = trace([first, second], {}, 9.0)
    (begin,), (end,) = of_kind(events, "s"), of_kind(events, "f")
    assert begin["id"] == end["id"]
    made, taken = sorted(of_kind(events, "X"), key=lambda each: each["ts"])
    assert (begin["pid"], begin["tid"]) == (made["pid"], made["tid"])
    assert made["ts"] <= begin["ts"] <= made["ts"] + made["dur"]
    assert (end["pid"], end["tid"], end["ts"], end["bp"]) == (taken["pid"], taken["tid"], taken["ts"], "e")


def test_a_failed_attempt_and_the_next_one_are_two_slices():
    tried = task(1.0, 2.0)
    tried.attempts[0].state, tried.attempts[0].error = states.FAILED, "WORKER_DIED"
    again = tried.attempt(1)
    again.started, again.ended, again.state, again.queued = 3.0, 4.0, states.FINISHED, 2.5
    runs = of_kind(trace([tried], {}, 9.0), "X")
    assert [each["args"].get("error_type") for each in runs] == ["WORKER_DIED", None]


def test_a_file_is_there_as_a_whole(tmp_path: Path):
    events = trace([task(1.0, 2.0)], {}, 9.0)
    write(events, tmp_path / "trace.json")
    assert json.loads((tmp_path / "trace.json").read_text()) == events
    assert [each.name for each in tmp_path.iterdir()] == ["trace.json"]
    with pytest.raises(OSError, match="No such file"):
        write(events, tmp_path / "not there" / "trace.json")


def test_without_a_session_there_is_no_timeline():
    with pytest.raises(RuntimeError, match=r"rabbitry\.init"):
        rabbitry.timeline()


RUNS = st.lists(
    st.tuples(
        st.integers(0, 3000),  # begins, in units of 0.3 microseconds
        st.integers(0, 30),  # lasts; 0 for what runs still
        st.integers(1, 2),  # worker
        st.booleans(),  # node
        st.lists(st.integers(0, 20), max_size=3),  # needs results of
    ),
    min_size=1,
    max_size=20,
)


@given(RUNS)
def test_viewers_find_no_fault_with_a_trace(runs: list[tuple[int, int, int, bool, list[int]]]):
    unit = 0.3e-6
    tasks: list[Task] = []
    for begin, lasts, pid, here, needs in runs:
        started = 100.0 + begin * unit
        taken = tuple(tasks[at].id for at in needs if at < len(tasks))
        ended = started + lasts * unit if lasts else 0.0
        tasks.append(task(started, ended, node=NODE if here else OTHER, pid=pid, needs=taken))
    assert faults(trace(tasks, {NODE: "one"}, 100.0 + 4000 * unit)) == []
