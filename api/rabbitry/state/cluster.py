"""The state of a cluster: its tasks, actors, nodes, jobs, workers, objects, as rows with Ray's columns.

Everything is read from the store: events (`tasks`), records of nodes, actors and jobs, and the objects themselves.
Nobody is asked, nothing has to be running. One `ClusterState` may be asked again and again; it remembers which events
it has read.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Protocol

import msgspec

from rabbitry import error_types
from rabbitry.nodes import labels_of, read_nodes, read_nodes_and_left
from rabbitry.state import tasks as states
from rabbitry.state.schemas import DRIVER_TASK_ID_PREFIX
from rabbitry.state.tasks import TASKS_KEPT, Attempt, Task, TaskLog, rows_of
from rabbitry.state.waiting import Reasons
from rabbitry.submitted_job import SUBMISSION_KEY
from rabbitry_broker import queue_names as names
from rabbitry_broker import records
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import RabbitryBrokerError, StoreError
from rabbitry_broker.ids import CLIENT_BYTES, TASK_BYTES, is_detached
from rabbitry_broker.messages import (
    KIND_ACTOR_CALL,
    KIND_ACTOR_CREATION,
    KIND_TASK,
    TaskHeader,
    decode_actor_spec,
    decode_frames,
    decode_header,
)
from rabbitry_broker.queue_names import QueueKind
from rabbitry_broker.resources import ResourceRequest
from rabbitry_broker.runtime_environments import Record, digest_of
from rabbitry_broker.signing import SIGNATURE_BYTES, ForgedMessage, Signer
from rabbitry_broker.store.events import EventReader
from rabbitry_broker.store.functions import Kind, open_kept
from rabbitry_broker.store.groups import Group, GroupRecords
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.reader import Reader
from rabbitry_broker.store.submissions import Submissions
from rabbitry_broker.submissions import Submission

Row = dict[str, Any]

OBJECTS_AT_MOST: Final = 10_000
SCAN_AT_ONCE: Final = 1000
AT_ONCE: Final = 500
ENVIRONMENTS_KEPT: Final = 1000
WORKER_ID_BYTES: Final = 28

TYPES: Final = {KIND_TASK: "NORMAL_TASK", KIND_ACTOR_CREATION: "ACTOR_CREATION_TASK", KIND_ACTOR_CALL: "ACTOR_TASK"}
_ACTOR_STATES: Final = {"PENDING": "PENDING_CREATION"}
_ACTOR_FIELDS: Final = (
    b"state",
    b"class",
    b"owner",
    b"job",
    b"name",
    b"detached",
    b"restarts",
    b"node",
    b"pid",
    b"frame",
    b"queue",
    b"cause",
)
_INTENDED_ENDS: Final = ("retired", "max_calls", "the node", "its ")
HIDDEN_NAMESPACES: Final = "_ray_internal_"
"""Drivers whose namespace begins so belong to rabbitry itself."""
_LEFT: Final = "It left."  # state_message of a node that said goodbye
_HOST: Final = "127.0.0.1"


class Source(Protocol):
    """The store, as far as it is read: a client's, or `store.reader.Reader`."""

    def call(self, *args: Any) -> Any:
        """Run one command and return its reply."""

    def pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run commands in one round trip."""


class ClusterState:
    """Reads what can be seen of a cluster. For one thread; close it, or use it with `with`.

    Args:
        endpoint: the cluster.
        source: what reads the store; None for a connection of its own.
        kept: tasks to know of at most.
        timeout: seconds to reach the store, and for each reply.

    Attributes:
        log: what is known of tasks.

    Raises:
        ConnectError: the store cannot be reached.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        source: Source | None = None,
        kept: int = TASKS_KEPT,
        timeout: float = 5.0,
    ) -> None:
        self._own = None if source is not None else Reader(endpoint, timeout=timeout)
        self.source: Source = source if source is not None else self._own  # type: ignore[assignment]
        self.endpoint = endpoint
        self._timeout = timeout
        self.keys = Keys.of(endpoint)
        self.signer = Signer(endpoint.secrets)
        self._environments: dict[bytes, Row] = {}
        self._events = EventReader(self.source, self.keys, self.signer)
        self.log = TaskLog(self._events, kept=kept)

    def close(self) -> None:
        """Close the connection."""
        if self._own is not None:
            self._own.close()

    def reopen(self) -> None:
        """Open another connection, and go on with what was read.

        Raises:
            ConnectError: the store cannot be reached.
        """
        if self._own is not None:
            fresh = Reader(self.endpoint, timeout=self._timeout)
            self._own.close()
            self._own = self.source = self._events.source = fresh

    def __enter__(self) -> ClusterState:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def now(self) -> float:
        """Return the time by the clock of Redis, in seconds since 1970."""
        seconds, microseconds = self.source.call(b"TIME")
        return int(seconds) + int(microseconds) / 1e6

    # -- nodes -------------------------------------------------------------------------------------------------------

    def node_records(self) -> list[Row]:
        """Return the records of all nodes, oldest first, with `alive` added."""
        return read_nodes(self.source, self.keys, self.signer)

    def nodes(self) -> list[Row]:
        """Return all nodes on record, and those that left lately; see `NodeState`."""
        found = read_nodes_and_left(self.source, self.keys, self.signer)
        died = self._hash(self.keys.nodes + b":died")
        head = next((node["id"] for node in found if node["alive"]), None)
        rows = []
        for node in found:
            ended = node.get("left") or _number(died.get(node["id"]))
            rows.append(
                {
                    "node_id": node["id"].hex(),
                    "node_ip": node.get("address", _HOST),
                    "is_head_node": node["id"] == head,
                    "state": "ALIVE" if node["alive"] else "DEAD",
                    "state_message": _state_message(node),
                    "node_name": node["name"],
                    "resources_total": {**node["totals"], "object_store_memory": float(node["objects"][0])},
                    "labels": labels_of(node),
                    "start_time_ms": _milliseconds(node["started"]),
                    "end_time_ms": 0 if node["alive"] else _milliseconds(ended or time.time()),
                }
            )
        return rows

    # -- tasks -------------------------------------------------------------------------------------------------------

    def tasks(
        self, wanted: Callable[[Row], bool] = bool, limit: int | None = None, *, unfinished_only: bool = False
    ) -> tuple[list[Row], int]:
        """Return tasks, the latest first, one row for each attempt; and how many fit.

        Args:
            wanted: says which rows are wanted; it is given them without the columns of details, but for those that
                filters may name.
            limit: rows to return at most; None for all.
            unfinished_only: leave out those that have ended: quicker than to ask `wanted` of each.
        """
        self.log.refresh()
        found: list[tuple[Row, Task, Attempt | None]] = []
        unfinished = [task for task in self.log.tasks.values() if task.header is not None and not task.has_ended]
        truth = self._truth(unfinished)
        count = 0
        for task, attempt in rows_of(unfinished if unfinished_only else list(self.log.tasks.values())):
            row = self._task_row(task, attempt, truth)
            if wanted(row):
                count += 1
                if limit is None or len(found) < limit:
                    found.append((row, task, attempt))
        for row, task, attempt in found:
            self._add_details(row, task, attempt, truth)
        return [row for row, _, _ in found], count

    def _truth(self, unfinished: list[Task]) -> _Truth:
        """Look at what events cannot tell of tasks that have not ended: whether anybody still has them."""
        nodes = self.node_records()
        parked = [task for task in unfinished if task.parked and not task.attempts]
        owners = list({task.id[:CLIENT_BYTES] for task in unfinished if not is_detached(task.id)})
        return _Truth(
            nodes={node["id"] for node in nodes if node["alive"]},
            dead_owners=set(owners) - set(self._living(owners)),
            parked=set(self._existing({task.id: self.keys.spec(task.id) for task in parked})),
            reasons=Reasons(nodes, self.log.tasks, self._actor_states(unfinished)),
        )

    def _actor_states(self, unfinished: list[Task]) -> dict[str, str]:
        actors = list({task.header.actor for task in unfinished if task.header is not None and task.header.actor})
        replies = self._pipeline((b"HGET", self.keys.actor(each), b"state") for each in actors)
        return {
            each.hex(): (state or b"DEAD").decode("utf-8", "replace")
            for each, state in zip(actors, replies, strict=True)
        }

    def _task_row(self, task: Task, attempt: Attempt | None, truth: _Truth) -> Row:
        header = task.header
        assert header is not None
        state, error = self._state_of(task, attempt, truth)
        kind = TYPES.get(header.kind, "NORMAL_TASK")
        worker = attempt.worker if attempt is not None else b""
        return {
            "task_id": task.id.hex(),
            "attempt_number": attempt.number if attempt is not None else 0,
            "name": header.name,
            "state": state,
            "job_id": header.job.hex(),
            "actor_id": header.actor.hex() or None,
            "type": kind,
            "func_or_class_name": header.written or header.name,
            "parent_task_id": task.parent.hex() if task.parent else DRIVER_TASK_ID_PREFIX + header.job.hex(),
            "node_id": (attempt.node.hex() or None) if attempt is not None else None,
            "worker_id": worker_id(worker) if worker else None,
            "worker_pid": (attempt.pid or None) if attempt is not None else None,
            "error_type": error,
            "language": "PYTHON",
            "placement_group_id": _group_of(header.bundle or task.queue),
            "is_debugger_paused": False,
        }

    def _state_of(self, task: Task, attempt: Attempt | None, truth: _Truth) -> tuple[str, str | None]:
        """Return (state, kind of error) as they are now, whatever the last mark said."""
        if attempt is not None and attempt.state in states.ENDS:
            return attempt.state, attempt.error or None
        if task.id[:CLIENT_BYTES] in truth.dead_owners:
            return states.FAILED, error_types.OWNER_DIED
        if attempt is None:
            return (states.PARKED if task.id in truth.parked else states.QUEUED), None
        if attempt.node not in truth.nodes:
            return states.QUEUED, None  # it comes again from its queue
        if attempt.state == states.LEASED and task.header is not None and task.header.kind == KIND_ACTOR_CALL:
            missing = [each for each in map(self.log.tasks.get, task.needs) if each is not None and not each.has_ended]
            return (states.PARKED if missing else states.IN_HOST), None
        return attempt.state, None

    def _add_details(self, row: Row, task: Task, attempt: Attempt | None, truth: _Truth) -> None:
        header = task.header
        assert header is not None
        started = attempt.started if attempt is not None else 0.0
        ended = attempt.ended if attempt is not None else 0.0
        state, text = row["state"], attempt.text if attempt is not None else ""
        if state == states.FAILED and row["error_type"] == error_types.OWNER_DIED and not text:
            text = "The process that submitted it has ended."
        row.update(
            {
                "required_resources": _resources(header.resources),
                "runtime_env_info": {
                    "serialized_runtime_env": json.dumps(self._environment(header.env)),
                    "runtime_env_config": {},
                },
                "events": [{"state": name, "created_ms": at * 1000.0} for name, at in history(task, attempt) if at],
                "profiling_data": {},
                "creation_time_ms": _milliseconds(task.created) or None,
                "start_time_ms": _milliseconds(started) or None,
                "end_time_ms": _milliseconds(ended) or None,
                "task_log_info": None,
                "error_message": text or None,
                "call_site": None,
                "label_selector": _selector_of(task.queue),
                "fallback_strategy": None,
                "pending_reason": self._reason(task, attempt, state, truth),
            }
        )

    @staticmethod
    def _reason(task: Task, attempt: Attempt | None, state: str, truth: _Truth) -> str | None:
        header = task.header
        assert header is not None
        if state == states.PARKED:
            return truth.reasons.for_arguments(task)
        if state == states.QUEUED:
            on = attempt.node if attempt is not None and attempt.node in truth.nodes else b""
            return truth.reasons.for_room(header.resources, header.bundle or task.queue, on)
        if state == states.LEASED:
            return "an executor has it, behind others"
        if state == states.IN_HOST:
            return "its actor has it, and is busy with others, or waits for what its caller sent before"
        return None

    # -- actors ------------------------------------------------------------------------------------------------------

    def actors(self) -> list[Row]:
        """Return actors, also dead ones for an hour; see `ActorState`."""
        self.log.refresh()
        ids = [each for each in map(self.keys.actor_of, self._scan(self.keys.actor_pattern)) if each is not None]
        replies = self._pipeline((b"HMGET", self.keys.actor(each), *_ACTOR_FIELDS) for each in ids)
        found = []
        for actor_id, reply in zip(ids, replies, strict=True):
            if isinstance(reply, list) and reply[0]:
                fields = dict(zip(_ACTOR_FIELDS, (each or b"" for each in reply), strict=True))
                found.append((actor_id, fields, self._creation(fields[b"frame"])))
        creations = {actor: header for actor, _, header in found}
        parked = self._existing(
            {
                task.id: self.keys.spec(task.id)
                for task in self.log.tasks.values()
                if task.parked and task.header is not None and task.header.kind == KIND_ACTOR_CREATION
            }
        )
        waits = {self.log.tasks[each].header.actor: self.log.tasks[each] for each in parked}  # type: ignore[union-attr]
        reasons = Reasons(self.node_records(), self.log.tasks, {})
        last = {
            worker.actor: worker.node for worker in self.log.workers.values()
        }  # the record of a dead one has no node
        for actor, fields, _ in found:
            if fields[b"state"] == b"DEAD":
                fields[b"node"] = fields[b"node"] or last.get(actor, b"")
        return [
            self._actor_row(actor, fields, creations[actor], waits, reasons)
            for actor, fields, _ in sorted(found, key=_first)
        ]

    def _actor_row(
        self,
        actor_id: bytes,
        fields: dict[bytes, bytes],
        creation: TaskHeader | None,
        waits: dict[bytes, Task],
        reasons: Reasons,
    ) -> Row:
        state = _text(fields[b"state"])
        namespace, _, name = fields[b"name"].partition(b"\0")
        reason = None
        shown = _ACTOR_STATES.get(state, state)
        if state in ("PENDING", "RESTARTING") and creation is not None:
            if actor_id in waits:
                shown, reason = "DEPENDENCIES_UNREADY", reasons.for_arguments(waits[actor_id])
            else:
                reason = reasons.for_room(creation.resources, creation.bundle or _text(fields[b"queue"]))
        environment = self._environment(creation.env) if creation is not None else {}
        group = (creation.bundle if creation is not None else "") or _text(fields[b"queue"])
        return {
            "actor_id": actor_id.hex(),
            "class_name": _text(fields[b"class"]),
            "state": shown,
            "job_id": fields[b"job"].hex(),
            "name": _text(name),
            "node_id": fields[b"node"].hex() or None,
            "pid": int(_number(fields[b"pid"]) or 0),
            "ray_namespace": _text(namespace) or (creation.namespace if creation is not None else ""),
            "serialized_runtime_env": json.dumps(environment),
            "required_resources": None if creation is None else _resources(decode_actor_spec(creation.extra).running),
            "death_cause": self._death(actor_id, fields[b"cause"]) if state == "DEAD" else None,
            "is_detached": fields[b"detached"] == b"1",
            "placement_group_id": _group_of(group),
            "repr_name": "",
            "num_restarts": int(_number(fields[b"restarts"]) or 0),
            "num_restarts_due_to_lineage_reconstruction": 0,
            "num_restarts_due_to_node_preemption": 0,
            "call_site": None,
            "label_selector": _selector_of(_text(fields[b"queue"])),
            "fallback_strategy": None,
            "pending_reason": reason,
        }

    def _creation(self, frame: bytes) -> TaskHeader | None:
        with suppress(RabbitryBrokerError):
            for header, _ in decode_frames(self.signer, frame):
                return decode_header(header)
        return None

    def _death(self, actor_id: bytes, cause: bytes) -> Row:
        kind, text = "", ""
        if cause:
            with suppress(ForgedMessage):
                stored = self.signer.open(b"cause" + actor_id, cause)
                if stored:
                    kind, text = error_types.of_stored(stored)
        return {"actor_died_error_context": {"actor_id": actor_id.hex(), "error_message": text, "error_type": kind}}

    # -- jobs and processes ------------------------------------------------------------------------------------------

    def jobs(self) -> list[Row]:
        """Return jobs: what was submitted, and drivers of their own, the latest first; see `JobState`."""
        self.log.refresh()
        kept = Submissions(_Looking(self.source, self.keys, self.signer))  # type: ignore[arg-type]
        on_record = {job: (record, ended) for job, record, ended in kept.drivers()}
        rows: list[Row] = []
        drivers: dict[str, Row] = {}  # of submissions, by their ids
        for job_id in {**self.log.jobs, **on_record}:
            record, ended = on_record.get(job_id, ({}, 0.0))
            facts = {**self.log.jobs.get(job_id, (0.0, {}))[1], **record}
            if ended:
                facts["ended"] = ended
            if str(facts.get("namespace", "")).startswith(HIDDEN_NAMESPACES):
                continue
            row = self._job_row(job_id, facts, runs=job_id in on_record)
            submission_id = row["metadata"].get(SUBMISSION_KEY)
            if submission_id:
                drivers[submission_id] = row["driver_info"]
            else:
                rows.append(row)
        rows += [_submission_row(job, drivers.get(job.submission_id)) for job in kept.all().values()]
        return sorted(rows, key=lambda row: -(row["start_time"] or 0))

    @staticmethod
    def _job_row(job_id: bytes, facts: Row, *, runs: bool) -> Row:
        ended = facts.get("ended")
        status, message = "RUNNING", "Job is currently running."
        if ended:
            status, message = "SUCCEEDED", "Job finished successfully."
        elif not runs:
            status, message = "FAILED", "The driver has ended without a goodbye."
        return {
            "type": "DRIVER",
            "job_id": job_id.hex(),
            "submission_id": None,
            "driver_info": {
                "id": job_id.hex(),
                "node_ip_address": str(facts.get("ip") or _HOST),
                "pid": str(facts.get("pid", "")),
            },
            "status": status,
            "entrypoint": str(facts.get("entrypoint", "")),
            "message": message,
            "error_type": None,
            "start_time": _milliseconds(facts.get("started", 0.0)) or None,
            "end_time": _milliseconds(ended) if ended else None,
            "metadata": facts.get("metadata") or {},
            "runtime_env": {},
            "driver_agent_http_address": None,
            "driver_node_id": None,
            "driver_exit_code": 0 if ended else None,
        }

    def workers(self) -> list[Row]:
        """Return worker processes and drivers, also those that have ended, as far as events tell; see `WorkerState`."""
        self.log.refresh()
        nodes = {node["id"]: node for node in self.node_records()}
        rows = []
        for worker in self.log.workers.values():
            node = nodes.get(worker.node)
            alive = not worker.ended and node is not None and node["alive"]
            lost = not alive and not worker.ended
            reason = "its node is gone" if lost else worker.reason
            rows.append(
                {
                    "worker_id": worker_id(worker.id),
                    "is_alive": alive,
                    "worker_type": "WORKER",
                    "exit_type": None if alive else _exit_type(reason),
                    "node_id": worker.node.hex(),
                    "ip": (node or {}).get("address", _HOST),
                    "pid": worker.pid,
                    "exit_detail": None if alive else reason,
                    "worker_launch_time_ms": -1,
                    "worker_launched_time_ms": -1,
                    "start_time_ms": _milliseconds(worker.started),
                    "end_time_ms": _milliseconds(worker.ended),
                    "debugger_port": None,
                    "num_paused_threads": 0,
                }
            )
        for job in self.jobs():
            if job["driver_info"] is None:
                continue  # what was submitted, and has no driver yet
            alive = job["status"] == "RUNNING"
            rows.append(
                {
                    "worker_id": job["driver_info"]["id"].ljust(2 * WORKER_ID_BYTES, "0"),
                    "is_alive": alive,
                    "worker_type": "DRIVER",
                    "exit_type": None if alive else "INTENDED_USER_EXIT" if job["end_time"] else "SYSTEM_ERROR",
                    "node_id": "",
                    "ip": _HOST,
                    "pid": int(job["driver_info"]["pid"] or 0),
                    "exit_detail": None if alive else job["message"],
                    "worker_launch_time_ms": -1,
                    "worker_launched_time_ms": -1,
                    "start_time_ms": job["start_time"],
                    "end_time_ms": job["end_time"] or 0,
                    "debugger_port": None,
                    "num_paused_threads": 0,
                }
            )
        return rows

    def runtime_envs(self) -> list[Row]:
        """Return the environments that tasks and actors have asked for, by node; see `RuntimeEnvState`."""
        self.log.refresh()
        count: Counter[tuple[bytes, bytes]] = Counter()
        failed: dict[tuple[bytes, bytes], str] = {}
        for task, attempt in self.log.rows():
            if task.header is None or not task.header.env:
                continue
            if attempt is None or not attempt.node:
                continue  # no node has made it
            key = (task.header.env, attempt.node)
            count[key] += 1
            if attempt.error == "RUNTIME_ENV_SETUP_FAILED":
                failed[key] = attempt.text
        return [
            {
                "runtime_env": self._environment(env),
                "success": (env, node) not in failed,
                "creation_time_ms": None,
                "node_id": node.hex(),
                "ref_cnt": used,
                "error": failed.get((env, node)),
            }
            for (env, node), used in count.items()
        ]

    def placement_groups(self) -> list[Row]:
        """Return placement groups, also those that were removed within an hour; see `PlacementGroupState`."""
        found = GroupRecords(_Looking(self.source, self.keys, self.signer))  # type: ignore[arg-type]
        groups = found.read(list(dict.fromkeys((*found.ids(), *found.removed()))))
        return [self._group_row(each) for each in groups if each is not None]

    @staticmethod
    def _group_row(group: Group) -> Row:
        spec = group.spec
        latency = round(max(0.0, group.placed - group.created) * 1000, 3) if group.placed else 0.0
        return {
            "placement_group_id": group.id.hex(),
            "name": spec.name,
            "creator_job_id": spec.job.hex(),
            "state": group.state,
            "bundles": [
                {
                    "bundle_id": {"placement_group_id": group.id.hex(), "bundle_index": at},
                    "node_id": group.held.get(at, b"").hex() or None,
                    "unit_resources": _resources(each),
                    "label_selector": {},
                }
                for at, each in enumerate(spec.bundles)
            ],
            "is_detached": spec.detached,
            "stats": {
                "end_to_end_creation_latency_us": int(latency * 1000),
                "scheduling_latency_us": int(latency * 1000),
                "scheduling_attempt": group.attempts,
                "scheduling_state": group.why,
            },
            "topology_strategy": {},
            "topology_assignments": {},
        }

    def cluster_events(self) -> list[Row]:
        """Return nodes and worker processes that came and went, the latest last; see `ClusterEventState`."""
        self.log.refresh()
        found: list[tuple[float, Row]] = []
        for node in self.nodes():
            told = {"node_id": node["node_id"]}
            at = node["start_time_ms"] / 1000
            found.append((at, _event(at, "INFO", "NODE", f"Node {node['node_name']} has begun.", told)))
            if node["state"] == "DEAD":
                at = node["end_time_ms"] / 1000
                severity, what = ("INFO", "has left") if node["state_message"] == _LEFT else ("ERROR", "is gone")
                found.append((at, _event(at, severity, "NODE", f"Node {node['node_name']} {what}.", told)))
        for worker in self.log.workers.values():
            told = {"node_id": worker.node.hex(), "worker_id": worker_id(worker.id), "pid": str(worker.pid)}
            if worker.ended and _exit_type(worker.reason) == "SYSTEM_ERROR":
                text = f"Worker process {worker.pid} has ended: {worker.reason}."
                found.append((worker.ended, _event(worker.ended, "ERROR", "WORKER", text, told)))
        return [row for _, row in sorted(found, key=_first)]

    # -- objects -----------------------------------------------------------------------------------------------------

    def objects(self, at_most: int = OBJECTS_AT_MOST) -> tuple[list[Row], int]:
        """Return objects that are in the store, and how many there are; see `ObjectState`.

        Values that are only in the memory of the process that made them are not in the store, and not here.
        """
        self.log.refresh()
        prefix = self.keys.prefix + b"o:{"
        keys = [key for key in self._scan(self.keys.prefix + b"o:*") if key.startswith(prefix)]
        total = len(keys)
        keys = keys[:at_most]
        ids: list[bytes] = []
        for key in keys:
            digits = key[len(prefix) : len(prefix) + 2 * CLIENT_BYTES]
            try:
                ids.append(bytes.fromhex(digits.decode()) + key[len(prefix) + 2 * CLIENT_BYTES + 2 :])
            except ValueError:
                ids.append(b"")  # nobody of ours wrote that
        replies = self._pipeline(
            command
            for key, object_id in zip(keys, ids, strict=True)
            for command in (
                (b"STRLEN", key),
                (b"GETRANGE", key, SIGNATURE_BYTES, SIGNATURE_BYTES),
                (b"SCARD", self.keys.holders(object_id)),
            )
        )
        kept = Submissions(_Looking(self.source, self.keys, self.signer))  # type: ignore[arg-type]
        drivers = {record["client"]: record for _, record, _ in kept.drivers() if "client" in record}
        rows = []
        for at, (key, object_id) in enumerate(zip(keys, ids, strict=True)):
            size, kind, holders = replies[3 * at : 3 * at + 3]
            if not object_id or isinstance(size, Exception) or isinstance(kind, Exception) or not size:
                continue
            bytes_of = self._large_size(object_id, key) if kind == records.LARGE else int(size) - SIGNATURE_BYTES - 1
            rows.append(self._object_row(object_id, kind, bytes_of, holders, drivers))
        return sorted(rows, key=lambda row: str(row["object_id"])), total

    def count_objects(self) -> int:
        """Return how many objects are in the store."""
        prefix = self.keys.prefix + b"o:{"
        return sum(key.startswith(prefix) for key in self._scan(self.keys.prefix + b"o:*"))

    def events_bytes(self) -> int:
        """Return how many bytes events take in the store."""
        return self._events.size()

    def dead_clients(self) -> Callable[[bytes], bool]:
        """Return what tells whether a client is dead: cleared away, or never heard of."""
        known = self.source.call(b"ZRANGE", self.keys.clients, 0, -1)
        living = set(self._living(known))
        return lambda client: client not in living

    def _object_row(self, object_id: bytes, kind: bytes, size: int, holders: Any, drivers: dict[bytes, Row]) -> Row:
        owner = object_id[:CLIENT_BYTES]
        task = self.log.tasks.get(object_id[:TASK_BYTES])
        last = task.last if task is not None else None
        worker = self.log.workers.get(owner)
        driver = drivers.get(owner)
        if kind == records.ACTOR:
            keeps = "ACTOR_HANDLE"
        elif isinstance(holders, int) and holders:
            keeps = "CAPTURED_IN_OBJECT"
        else:
            keeps = "LOCAL_REFERENCE"
        return {
            "object_id": object_id.hex(),
            "object_size": max(0, size),
            "task_status": last.state if last is not None else "NIL",
            "attempt_number": (last.number if last is not None else 0) + 1,
            "reference_type": keeps,
            "call_site": "disabled",
            "type": "WORKER" if worker is not None else "DRIVER",
            "pid": worker.pid if worker is not None else int((driver or {}).get("pid", 0)),
            "ip": _HOST,
        }

    def _large_size(self, object_id: bytes, key: bytes) -> int:
        sealed = self.source.call(b"GET", key)
        if not sealed:
            return 0
        try:
            manifest = records.read_manifest(self.signer.open(object_id, sealed))
        except (RabbitryBrokerError, ValueError, msgspec.MsgspecError):
            return 0
        return len(manifest.data) + sum(manifest.sizes)

    def _environment(self, code: bytes) -> Row:
        """Return the environment that stands in a header, or that its hash stands for; {} for none."""
        if not code:
            return {}
        digest = digest_of(code)
        try:
            if digest is None:
                return {"env_vars": json.loads(code)}
            known = self._environments.get(digest)
            if known is None:
                sealed = self.source.call(b"GET", self.keys.function(digest))
                known = Record.unpack(open_kept(self.signer, Kind.ENVIRONMENT, digest, sealed)).given if sealed else {}
                if len(self._environments) < ENVIRONMENTS_KEPT:
                    self._environments[digest] = known
            return known
        except (RabbitryBrokerError, ValueError):
            return {}

    # -- reading -----------------------------------------------------------------------------------------------------

    def _pipeline(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        commands = list(commands)
        replies: list[Any] = []
        for at in range(0, len(commands), AT_ONCE):
            part = commands[at : at + AT_ONCE]
            try:
                replies += self.source.pipeline(part)
            except StoreError:
                # One of them meets a key of another type, which somebody else wrote: the others are still answered.
                replies += [self._alone(each) for each in part]
        return replies

    def _alone(self, command: tuple[Any, ...]) -> Any:
        try:
            return self.source.call(*command)
        except StoreError:
            return None

    def _scan(self, pattern: bytes) -> list[bytes]:
        found: list[bytes] = []
        cursor: Any = b"0"
        while True:
            cursor, part = self.source.call(b"SCAN", cursor, b"MATCH", _escaped(pattern), b"COUNT", SCAN_AT_ONCE)
            found += part
            if cursor == b"0":
                return list(dict.fromkeys(found))

    def _hash(self, key: bytes) -> dict[bytes, bytes]:
        flat = self._alone((b"HGETALL", key)) or []
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def _existing(self, keys: dict[bytes, bytes]) -> list[bytes]:
        """Return those of some things whose keys exist."""
        replies = self._pipeline((b"EXISTS", key) for key in keys.values())
        return [each for each, there in zip(keys, replies, strict=True) if there]

    def _living(self, clients: Sequence[bytes]) -> list[bytes]:
        """Return those of these clients that nobody has cleared away."""
        replies = self._pipeline((b"ZSCORE", self.keys.clients, each) for each in clients)
        return [each for each, score in zip(clients, replies, strict=True) if score not in (None, b"-inf")]


class _Looking:
    """The store as those see it who only look: what cannot be read is left where it is."""

    def __init__(self, source: Source, keys: Keys, signer: Signer) -> None:
        self.call = source.call
        self.pipeline = source.pipeline
        self.keys = keys
        self.signer = signer

    def put_aside(self, where: str, data: bytes, reason: str) -> None:
        """Whoever only looks puts nothing aside."""


class _Truth:
    """What was looked at besides events, for one list."""

    __slots__ = ("dead_owners", "nodes", "parked", "reasons")

    def __init__(self, *, nodes: set[bytes], dead_owners: set[bytes], parked: set[bytes], reasons: Reasons) -> None:
        self.nodes = nodes
        self.dead_owners = dead_owners
        self.parked = parked
        self.reasons = reasons


def history(task: Task, attempt: Attempt | None) -> list[tuple[str, float]]:
    """Return the states of an attempt with the times (seconds since 1970) at which they began, 0.0 if not known."""
    begun: list[tuple[str, float]] = []
    if attempt is None or attempt.number == 0:
        begun.append((states.PARKED, task.created))
        if not task.parked:
            begun.append((states.QUEUED, task.created))
    if attempt is None:
        return begun
    if task.parked or attempt.number:
        begun.append((states.QUEUED, attempt.queued))
    begun.append((states.LEASED, attempt.leased))
    begun.append((states.RUNNING, attempt.started))
    if attempt.state in (states.IN_GET, states.IN_WAIT):
        begun.append((attempt.state, attempt.at))
    if attempt.state in states.ENDS:
        begun.append((attempt.state, attempt.ended))
    return begun


def _submission_row(job: Submission, driver: Row | None) -> Row:
    return {
        "type": "SUBMISSION",
        "job_id": driver["id"] if driver else None,
        "submission_id": job.submission_id,
        "driver_info": driver,
        "status": job.status.value,
        "entrypoint": job.entrypoint,
        "message": job.message,
        "error_type": job.error_type or None,
        "start_time": _milliseconds(job.submitted) or None,
        "end_time": _milliseconds(job.ended) or None,
        "metadata": job.metadata,
        "runtime_env": job.runtime_env,
        "driver_agent_http_address": None,
        "driver_node_id": job.node_id or None,
        "driver_exit_code": job.exit_code,
    }


def worker_id(client: bytes) -> str:
    """Return the id of a process as it tells it itself (`get_runtime_context().get_worker_id()`)."""
    return client.ljust(WORKER_ID_BYTES, b"\0").hex()


def _escaped(pattern: bytes) -> bytes:
    """Return a pattern of SCAN whose braces and stars are meant as such, but for brackets, which are none here."""
    return pattern.replace(b"[", b"\\[").replace(b"]", b"\\]")


def _first(pair: tuple[Any, ...]) -> Any:
    return pair[0]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _number(data: Any) -> float | None:
    try:
        return float(data)
    except (TypeError, ValueError):
        return None


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _resources(resource_class: str) -> dict[str, float]:
    """Return what a class stands for; nothing for calls of actors, which have none, and for nonsense."""
    try:
        return ResourceRequest.parse(resource_class).to_floats() if resource_class else {}
    except ValueError:
        return {}


def _selector_of(queue: str) -> dict[str, str] | None:
    with suppress(ValueError):
        selector = names.parse(queue).selector if queue else ""
        if selector:
            return {"selector": selector}
    return None


def _group_of(queue: str) -> str | None:
    with suppress(ValueError):
        place = names.parse(queue) if queue else None
        if place is not None and place.kind is QueueKind.BUNDLE:
            return place.id.hex()
    return None


def _exit_type(reason: str) -> str:
    if reason.startswith("sys.exit(") or reason == "constructor failed":
        return "USER_ERROR"
    if reason in ("exit_actor", "sys.exit", "its task was cancelled"):
        return "INTENDED_USER_EXIT"
    if "memory" in reason:
        return "NODE_OUT_OF_MEMORY"
    return "INTENDED_SYSTEM_EXIT" if reason.startswith(_INTENDED_ENDS) else "SYSTEM_ERROR"


def _state_message(node: Row) -> str | None:
    if not node["alive"]:
        return _LEFT if "left" in node else "Its lease has ended."
    return "It takes no more work, and leaves." if node["draining"] else None


def _event(at: float, severity: str, source: str, message: str, fields: dict[str, str]) -> Row:
    return {
        "severity": severity,
        "time": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)),
        "source_type": source,
        "message": message,
        "event_id": f"{int(at * 1000):x}-{source.lower()}-{next(iter(fields.values()))[:16]}",
        "custom_fields": fields,
    }
