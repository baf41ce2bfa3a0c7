"""A timeline of tasks, as a trace that Perfetto and chrome://tracing open.

A process of the trace is a node, a thread of it one of the node's worker processes (more than one for a worker that
runs several calls at a time). What waited stands above them as asynchronous slices, and arrows lead from a task to
those that took its results.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any, Final, NamedTuple

from rabbitry import current, program
from rabbitry.outages import with_public_errors
from rabbitry.state import tasks as states
from rabbitry.state.cluster import ClusterState
from rabbitry.state.tasks import Attempt, Task

Event = dict[str, Any]

NO_NODE: Final = 0
"""The process of the trace where tasks stand that no node has."""
_MICROSECONDS: Final = 1_000_000


class _Slice(NamedTuple):
    """One run of a task in the trace; times in microseconds."""

    task: Task
    process: int
    thread: int
    begin: int
    end: int


class _Rows:
    """Gives out the rows: a number for each node, and threads below it so that slices of one never overlap."""

    def __init__(self, names: Mapping[bytes, str]) -> None:
        self._names = names
        self._nodes: dict[bytes, int] = {}
        self._threads: dict[tuple[bytes, bytes, int], int] = {}
        self._busy_until: dict[tuple[bytes, bytes], list[int]] = {}
        self._numbers = count(1)
        self.events: list[Event] = []

    def node(self, node: bytes) -> int:
        """Return the process that a node is in the trace."""
        number = self._nodes.get(node)
        if number is None:
            number = self._nodes[node] = len(self._nodes) + 1 if node else NO_NODE
            name = f"node {self._names.get(node, node.hex()[:8])}" if node else "in no node"
            self._name("process_name", number, 0, name)
            self.events.append(
                {"ph": "M", "name": "process_sort_index", "pid": number, "tid": 0, "args": {"sort_index": number}}
            )
        return number

    def thread(self, attempt: Attempt, begin: int, end: int) -> tuple[int, int]:
        """Return (process, thread) of the trace where nothing stands between these times. Slices come in order."""
        node = self.node(attempt.node)
        lanes = self._busy_until.setdefault((attempt.node, attempt.worker), [])
        lane = next((at for at, until in enumerate(lanes) if until <= begin), len(lanes))
        if lane == len(lanes):
            lanes.append(end)
        lanes[lane] = end
        key = (attempt.node, attempt.worker, lane)
        thread = self._threads.get(key)
        if thread is None:
            thread = self._threads[key] = next(self._numbers)
            name = f"worker {attempt.pid}" if attempt.worker else "no worker"
            self._name("thread_name", node, thread, name + (f" ({lane + 1})" if lane else ""))
        return node, thread

    def _name(self, what: str, process: int, thread: int, name: str) -> None:
        self.events.append({"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}})


def trace(tasks: Iterable[Task], names: Mapping[bytes, str], now: float) -> list[Event]:
    """Return the events of a trace.

    Args:
        tasks: those that it shows.
        names: of nodes.
        now: seconds since 1970: until then lasts what has not ended.
    """
    rows = _Rows(names)
    begun = [
        (task, attempt)
        for task in tasks
        if task.header is not None
        for attempt in task.attempts.values()
        if attempt.started
    ]
    slices: list[_Slice] = []
    made: dict[bytes, _Slice] = {}  # by task: where its results came to be
    for task, attempt in sorted(begun, key=lambda pair: pair[1].started):
        header = task.header
        assert header is not None
        begin = _micro(attempt.started)
        end = max(begin + 1, _micro(attempt.ended or now))
        process, thread = rows.thread(attempt, begin, end)
        told = {
            "task_id": task.id.hex(),
            "attempt": attempt.number,
            "state": attempt.state,
            "job_id": header.job.hex(),
            "worker_pid": attempt.pid,
        }
        if task.parent:
            told["parent_task_id"] = task.parent.hex()
        if attempt.error:
            told["error_type"] = attempt.error
        rows.events.append(
            {
                "ph": "X",
                "cat": "actor" if header.actor else "task",
                "name": header.name,
                "pid": process,
                "tid": thread,
                "ts": begin,
                "dur": end - begin,
                "args": told,
                **({"cname": "terrible"} if attempt.state == states.FAILED else {}),
            }
        )
        made[task.id] = _Slice(task, process, thread, begin, end)
        slices.append(made[task.id])
        waited_since = (attempt.queued if attempt.number else task.created) or attempt.queued
        if waited_since and _micro(waited_since) < begin:
            slice_id = f"{task.id.hex()}-{attempt.number}"
            waits = {"cat": "waiting", "name": f"{header.name} waits", "id": slice_id, "pid": process, "tid": thread}
            rows.events.append({"ph": "b", "ts": _micro(waited_since), **waits, "args": {"task_id": task.id.hex()}})
            rows.events.append({"ph": "e", "ts": begin, **waits})
    _add_arrows(rows.events, slices, made)
    return rows.events


def _add_arrows(events: list[Event], slices: list[_Slice], made: Mapping[bytes, _Slice]) -> None:
    """Add what leads from the end of each task to the beginning of those that took its results.

    Both ends of an arrow are inside of slices, or nobody could tell to which they belong; and none leads back in time,
    which the clocks of two machines may ask for.
    """
    numbers = count(1)
    for taker in slices:
        for needed in dict.fromkeys(taker.task.needs):
            maker = made.get(needed)
            if maker is None or maker.end > taker.begin + _MICROSECONDS:
                continue
            end = min(max(taker.begin, maker.end - 1), taker.end - 1)
            begin = min(maker.end - 1, end)
            if begin < maker.begin:
                continue
            arrow = {"cat": "dependency", "name": "result", "id": next(numbers)}
            events.append({"ph": "s", "pid": maker.process, "tid": maker.thread, "ts": begin, **arrow})
            events.append({"ph": "f", "bp": "e", "pid": taker.process, "tid": taker.thread, "ts": end, **arrow})


def _micro(seconds: float) -> int:
    return int(seconds * _MICROSECONDS)


def timeline_of(state: ClusterState, job_id: str | None = None) -> list[Event]:
    """Return the trace of what is known of a cluster's tasks; see `trace`.

    Args:
        state: of the cluster.
        job_id: of the job whose tasks are wanted, hexadecimal; None for all.
    """
    state.log.refresh()
    wanted = [
        task
        for task in state.log.tasks.values()
        if task.header is not None and (job_id is None or task.header.job.hex() == job_id)
    ]
    names = {node["id"]: str(node["name"]) for node in state.node_records()}
    return trace(wanted, names, state.now())


def write(events: list[Event], filename: str | os.PathLike[str]) -> None:
    """Write a trace to a file, which is there as a whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    path = os.path.abspath(os.fspath(filename))
    handle, temporary = tempfile.mkstemp(prefix=".timeline-", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(events, file)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@with_public_errors
def timeline(filename: str | os.PathLike[str] | None = None) -> list[Event] | None:
    """Return what the session's tasks did as a trace, for Perfetto (ui.perfetto.dev) or chrome://tracing.

    Args:
        filename: a file to write it to instead, as JSON.

    Returns:
        The events of the trace; None if they were written to a file.

    Raises:
        RuntimeError: there is no session; this does not start one.
        OSError: the file cannot be written.
    """
    client = current.peek()
    if client is None:
        raise RuntimeError(program.not_started("before timeline()"))
    client.send_events()
    events = timeline_of(ClusterState(client.endpoint, source=client.store))
    if filename is None:
        return events
    write(events, filename)
    return None
