"""Rows of actors, jobs, nodes, placement groups and objects, from what the state API and records tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rabbitry_broker.ids import CLIENT_BYTES, TASK_BYTES
from rabbitry_broker.implicit import is_implicit
from rabbitry_broker.resources import ResourceRequest
from rabbitry_broker.store.groups import PENDING, RESCHEDULING, Group
from rabbitry_workers.dashboard.cluster.tasks import log_name
from rabbitry_workers.dashboard.source import ActorRow, Executor, GroupRow, JobRow, NodeRow, ObjectRow, TaskRow

Told = Mapping[str, Any]


def actor(told: Told, worker: Any = None) -> ActorRow:
    """Return a row of the state API's columns (`ActorState`), and of the process that it lives in."""
    cause = (told["death_cause"] or {}).get("actor_died_error_context", {}).get("error_message", "")
    return ActorRow(
        told["actor_id"],
        told["class_name"],
        told["state"],
        told["name"] or "",
        told["ray_namespace"] or "",
        told["job_id"] or "",
        told["node_id"] or "",
        told["pid"] or None,
        told["num_restarts"],
        told["is_detached"],
        waits_for=told.get("pending_reason") or "",
        death=cause,
        resources=told["required_resources"] or {},
        worker=worker.id.hex() if worker is not None else "",
        log=(worker.node.hex(), log_name(worker.id, worker.job, worker.pid)) if worker is not None else None,
    )


def job(told: Told) -> JobRow:
    """Return a row of the state API's columns (`JobState`)."""
    driver = told.get("driver_info") or {}
    pid = str(driver.get("pid") or "")
    return JobRow(
        told["job_id"] or "",
        str(told["status"]),
        told["submission_id"] or "",
        told["entrypoint"] or "",
        told["message"] or "",
        _seconds(told["start_time"]),
        _seconds(told["end_time"]),
        driver.get("node_ip_address") or "",
        int(pid) if pid.isdecimal() else None,
    )


def placement_group(group: Group) -> GroupRow:
    """Return a row of a group's record."""
    spec = group.spec
    bundles = [
        (ResourceRequest.parse(takes).to_floats(), group.held.get(at, b"").hex())
        for at, takes in enumerate(spec.bundles)
    ]
    waits = group.why if group.state in (PENDING, RESCHEDULING) else ""
    return GroupRow(group.id.hex(), spec.name, group.state, spec.strategy, bundles, spec.job.hex(), waits)


def stored_object(told: Told) -> ObjectRow:
    """Return a row of the state API's columns (`ObjectState`)."""
    identity = told["object_id"]
    made_by_task = told["task_status"] != "NIL"
    return ObjectRow(
        identity,
        told["object_size"],
        told["reference_type"].replace("_", " ").lower(),
        told["type"].lower() + (f" {told['pid']}" if told["pid"] else ""),
        identity[: 2 * CLIENT_BYTES],
        identity[: 2 * TASK_BYTES] if made_by_task else "",
    )


def node(record: Told, executors: Sequence[Executor]) -> NodeRow:
    """Return a row of a node's record, with what its processes do."""
    totals = {name: total for name, total in record["totals"].items() if not is_implicit(name)}
    available = record["available"]
    busy, used, total = record.get("load") or (-1.0, 0, 0)
    room, free = record["objects"]
    alive = record["alive"]
    return NodeRow(
        record["id"].hex(),
        record["name"],
        record["hostname"],
        "dead" if not alive else "draining" if record["draining"] else "alive",
        record["pid"],
        record["started"],
        totals,
        {name: round(total - available.get(name, 0.0), 4) for name, total in totals.items()} if alive else {},
        record["labels"],
        busy if alive and busy >= 0 else None,
        (used, total) if alive and total else None,
        (room - free, room) if alive and room else None,
        [tuple(each) for each in record.get("figures", {}).get("gpus", ())] if alive else (),
        executors if alive else (),
        record.get("address", ""),
    )


def executors(
    workers: Sequence[Any], running: Sequence[TaskRow], actors: Sequence[ActorRow]
) -> dict[str, list[Executor]]:
    """Return the worker processes of each node (hex), with what each runs.

    Args:
        workers: those that live, as events tell of them.
        running: tasks that run.
        actors: all of them.
    """
    tasks: dict[tuple[str, int | None], TaskRow] = {(row.node, row.pid): row for row in running}
    hosted = {(row.node, row.pid): row for row in actors if row.state == "ALIVE"}
    found: dict[str, list[Executor]] = {}
    seen = set()
    for worker in workers:
        place = (worker.node.hex(), worker.pid)
        seen.add(place)
        found.setdefault(place[0], []).append(
            _executor(worker.pid, tasks.get(place), hosted.get(place), worker.id.hex(), worker.started or None)
        )
    for place in [each for each in (*tasks, *hosted) if each not in seen and each[0] and each[1]]:
        if place not in seen:
            seen.add(place)
            found.setdefault(place[0], []).append(
                _executor(place[1] or 0, tasks.get(place), hosted.get(place), "", None)
            )
    for processes in found.values():
        processes.sort(key=lambda process: (not process.runs, process.pid))
    return found


def _executor(pid: int, task: TaskRow | None, hosted: ActorRow | None, worker: str, started: float | None) -> Executor:
    kind = "actor" if hosted is not None else "worker"
    actor_id = hosted.id if hosted is not None else ""
    if task is not None:
        return Executor(pid, kind, task.name, task.id, actor_id, task.started, worker)
    if hosted is not None:
        return Executor(pid, kind, hosted.class_name, "", actor_id, started, worker)
    return Executor(pid, kind, worker=worker)


def _seconds(milliseconds: Any) -> float | None:
    return milliseconds / 1000 if milliseconds else None
