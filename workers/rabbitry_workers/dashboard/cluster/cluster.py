"""The source that is a real cluster.

One connection reads the store, one question at a time: most questions are answered from what is remembered of events
(`tasks`), and all browsers share the answers (`readings`). A connection that breaks is opened again by the next
question; what events told before is read again then.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rabbitry.node_logs import list_files, living_nodes
from rabbitry.node_requests import NodeRefused, NodeRequests, NodeSilent
from rabbitry.state import timeline
from rabbitry.state.cluster import ClusterState
from rabbitry_broker import events
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import ConnectionLost
from rabbitry_broker.signing import ForgedMessage
from rabbitry_broker.store.groups import GroupRecords
from rabbitry_workers.dashboard.cluster import rows
from rabbitry_workers.dashboard.cluster.acting import Acting
from rabbitry_workers.dashboard.cluster.jobs import Jobs
from rabbitry_workers.dashboard.cluster.queues import QueueFigures
from rabbitry_workers.dashboard.cluster.tasks import Tasks
from rabbitry_workers.dashboard.pages.logs import OF_JOBS
from rabbitry_workers.dashboard.source import (
    ActorRow,
    AsideRow,
    GroupRow,
    JobRow,
    LogFile,
    LogPart,
    Missing,
    NodeRow,
    ObjectRow,
    Overview,
    Query,
    Queues,
    Refused,
    Rows,
    Span,
    TaskDetail,
    TaskRow,
)
from rabbitry_workers.jobs.manager import JobManager
from rabbitry_workers.stop import NoSuchNode

EXCERPT_BYTES: Final = 64
PUT_ASIDE_READ: Final = 1000
OBJECTS_READ: Final = 10_000
NODE_SECONDS: Final = 5.0
"""That a node has to answer a question."""
STACK_SECONDS: Final = 15.0


class ClusterSource:
    """A cluster to look at; see `source.Source`. Any thread may use it.

    Args:
        endpoint: the cluster.
        manager: of submitted jobs.
        timeout: seconds to reach a server, and for each reply.
    """

    def __init__(self, endpoint: Endpoint, manager: JobManager, *, timeout: float = 5.0) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._lock = threading.Lock()
        self._opened: tuple[ClusterState, Tasks] | None = None
        self._queues = QueueFigures(endpoint, timeout)
        self._acting = Acting(endpoint, timeout)
        self._jobs = Jobs(endpoint, manager)
        self._lock_of_requests = threading.Lock()
        self._requests: NodeRequests | None = None

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            self._let_go()
            self._jobs.close()
        with self._lock_of_requests:
            if self._requests is not None:
                self._requests.close()
                self._requests = None

    def _let_go(self) -> None:
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None

    @contextmanager
    def _asking(self) -> Iterator[tuple[ClusterState, Tasks]]:
        """Give the state to one thread, up to date."""
        with self._lock:
            try:
                if self._opened is None:
                    state = ClusterState(self._endpoint, timeout=self._timeout)
                    self._opened = (state, Tasks(state))
                self._opened[1].refresh()
                yield self._opened
            except ConnectionLost:
                self._let_go()
                raise

    # -- what pages ask ----------------------------------------------------------------------------------------------

    def overview(self) -> Overview:
        """Return the cluster at one look."""
        with self._asking() as (state, tasks):
            nodes = [rows.node(record, ()) for record in tasks.nodes]
            used: Counter[str] = Counter()
            total: Counter[str] = Counter()
            for node in nodes:
                if node.state != "dead":
                    used.update(node.used)
                    total.update(node.total)
            aside = int(state.source.call(b"GET", state.keys.put_aside + b":count") or 0)
            notes = [] if events.are_on() else ["Events are switched off here: tasks of others alone are shown."]
            return Overview(
                tasks.groups(),
                tasks.ended(failed=False),
                tasks.ended(failed=True),
                Counter(node.state for node in nodes),
                Counter(actor["state"] for actor in state.actors()),
                Counter(job.state for job in self._jobs.read(state.jobs())),
                dict(used),
                dict(total),
                aside,
                state.log.dropped,
                tasks.functions(),
                notes,
            )

    def jobs(self) -> Sequence[JobRow]:
        """Return all jobs, the newest first."""
        with self._asking() as (state, _):
            return self._jobs.read(state.jobs())

    def tasks(self, query: Query) -> Rows[TaskRow]:
        """Return tasks."""
        with self._asking() as (_, tasks):
            return tasks.find(query)

    def task(self, task: str) -> TaskDetail:
        """Return all that is known of a task."""
        with self._asking() as (_, tasks):
            return tasks.detail(task)

    def actors(self) -> Sequence[ActorRow]:
        """Return all actors, the newest first."""
        with self._asking() as (state, _):
            hosts = {worker.actor.hex(): worker for worker in state.log.workers.values() if worker.actor}
            return [rows.actor(each, hosts.get(each["actor_id"])) for each in reversed(state.actors())]

    def nodes(self) -> Sequence[NodeRow]:
        """Return all nodes, with what they run."""
        with self._asking() as (state, tasks):
            living = [worker for worker in state.log.workers.values() if not worker.ended]
            running = rows.executors(living, tasks.running(), [rows.actor(each) for each in state.actors()])
            return [rows.node(record, running.get(record["id"].hex(), ())) for record in tasks.nodes]

    def placement_groups(self) -> Sequence[GroupRow]:
        """Return all placement groups."""
        with self._asking():
            records = GroupRecords(self._jobs.store())
            groups = records.read(list(dict.fromkeys((*records.ids(), *records.removed()))))
        return [rows.placement_group(each) for each in groups if each is not None]

    def objects(self) -> Rows[ObjectRow]:
        """Return the largest objects, and how many there are."""
        with self._asking() as (state, _):
            found, total = state.objects(OBJECTS_READ)
            return Rows(sorted(map(rows.stored_object, found), key=_size, reverse=True), total)

    def queues(self) -> Queues:
        """Return all queues."""
        with self._asking() as (state, tasks):
            hosts = {each["actor_id"]: each["node_id"] or "" for each in state.actors() if each["state"] != "DEAD"}
            return self._queues.read(tasks.waiting_by_queue(), tasks.nodes, hosts)

    def put_aside(self) -> Rows[AsideRow]:
        """Return messages put aside, the newest first."""
        with self._asking() as (state, _):
            key = state.keys.put_aside
            entries = state.source.call(b"LRANGE", key, 0, PUT_ASIDE_READ - 1)
            count = int(state.source.call(b"GET", key + b":count") or 0)
        found = []
        for number, entry in enumerate(entries):
            told, _, data = entry.partition(b"\0")
            reason = told.decode("utf-8", "replace")
            excerpt = "".join(chr(each) if 32 <= each < 127 else "." for each in data[:EXCERPT_BYTES])
            found.append(AsideRow(number, _with_date(reason), len(data), excerpt))
        return Rows(found, count)

    def timeline(self, seconds: float) -> Sequence[Span]:
        """Return what ran in the last seconds."""
        with self._asking() as (_, tasks):
            return tasks.spans(seconds)

    def trace(self) -> bytes:
        """Return a Chrome trace of all that is remembered."""
        with self._asking() as (state, tasks):
            names = {node["id"]: node["name"] for node in tasks.nodes}
            events = timeline.trace(state.log.tasks.values(), names, time.time())
        return json.dumps(events).encode()

    @contextmanager
    def _asking_nodes(self) -> Iterator[NodeRequests]:
        """Give the connection for questions to nodes to one thread."""
        with self._lock_of_requests:
            if self._requests is None:
                self._requests = NodeRequests(self._endpoint, timeout=self._timeout)
            try:
                yield self._requests
            except (ConnectionLost, ForgedMessage):
                self._requests.close()
                self._requests = None
                raise

    def _ask_node(self, node: str, word: str, asked: dict[str, Any], seconds: float) -> Any:
        try:
            identity = bytes.fromhex(node)
        except ValueError:
            raise Missing("There is no such node.") from None
        try:
            with self._asking_nodes() as requests:
                return requests.ask(identity, word, asked, timeout=seconds)
        except NodeSilent as error:
            raise Missing(f"The node may be gone: {error}") from None
        except NodeRefused as error:
            raise Missing(f"The node cannot say: {error}") from None

    def logs(self) -> Sequence[LogFile]:
        """Return the log files of all nodes that live."""
        with self._asking_nodes() as requests:
            names = {node["id"]: node["name"] for node in living_nodes(requests, self._endpoint)}
            found = list_files(requests, list(names), timeout=NODE_SECONDS)
        return [
            LogFile(node.hex(), name, kind.replace("_", " "), names[node])
            for node, kinds in found.items()
            for kind, files in kinds.items()
            for name in files
        ]

    def read_log(self, node: str, name: str, task: str, position: object, lines: int) -> LogPart:
        """Return the next piece of a log."""
        if node == OF_JOBS:
            return self._jobs.read_log(name, position)
        asked = {"file": name, "task": task, "place": position, "tail": lines if position is None else -1}
        data, place, ended = self._ask_node(node, "logs.read", asked, NODE_SECONDS)
        return LogPart(data.decode("utf-8", "replace"), place, ended)

    def stack(self, node: str, pid: int) -> str:
        """Return what a worker process does just now, as py-spy sees it from its node."""
        asked = {"pid": pid, "native": False, "locals": False, "idle": True}
        for _, what, text, error in self._ask_node(node, "stack", asked, STACK_SECONDS):
            return "\n".join(filter(None, (what, text, error)))
        raise Missing("The process has ended.")

    # -- what changes it ---------------------------------------------------------------------------------------------

    def cancel(self, task: str, *, force: bool) -> str:
        """Cancel a task."""
        with self._asking() as (_, tasks):
            row = tasks.detail(task).row
        if row.ended is not None:
            raise Refused(f"{row.name} has ended already.")
        if row.actor and force:
            raise Refused("A call of an actor cannot be cancelled by force: kill the actor instead.")
        self._acting.cancel(bytes.fromhex(task), force=force)
        return f"{row.name} is being cancelled."

    def kill(self, actor: str, *, restart: bool) -> str:
        """Kill an actor."""
        try:
            identity = bytes.fromhex(actor)
        except ValueError:
            raise Missing("There is no such actor.") from None
        self._acting.kill(identity, restart=restart)
        return "The actor is killed."

    def stop_job(self, submission: str) -> str:
        """Stop a submitted job."""
        self._jobs.stop(submission)
        return f"{submission} is being stopped."

    def drain(self, node: str) -> str:
        """Have a node leave."""
        try:
            return f"Node {self._acting.drain(node)} was asked to leave."
        except NoSuchNode as error:
            raise Refused(str(error)) from error


def _size(row: ObjectRow) -> int:
    return row.size or 0


def _with_date(reason: str) -> str:
    """Return a reason whose time can be read."""
    when, _, rest = reason.partition(" ")
    try:
        at = float(when)
    except ValueError:
        return reason
    return f"{time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(at))} {rest}"
