"""The state of the cluster over HTTP, by the paths and in the forms of Ray's dashboard.

Events are read once: each service keeps what it has read (`SharedState`), and reads on from there.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from rabbitry.state.answers import answer_list, answer_summary
from rabbitry.state.cluster import ClusterState
from rabbitry.state.logs import GetLogOptions, names_of, pieces_of
from rabbitry.state.schemas import (
    DEFAULT_LIMIT,
    DEFAULT_LOG_LIMIT,
    DEFAULT_RPC_TIMEOUT,
    OWN_COLUMNS,
    Filter,
    ListApiOptions,
    ListApiResponse,
    StateResource,
    SummaryApiOptions,
    SummaryResource,
)
from rabbitry.state.tasks import Attempt, Task
from rabbitry.state.timeline import timeline_of
from rabbitry_broker.errors import ConnectionLost, RabbitryBrokerError
from rabbitry_workers.http.access import Cluster, ClusterAccess

router = APIRouter()

_TRUE: Final = ("true", "1")
SHORTEST_INTERVAL: Final = 0.1  # seconds between two looks at a log that is followed


class SharedState:
    """The state of a cluster, for the threads of a service: one of them reads at a time.

    Args:
        cluster: which it is.

    Attributes:
        on_ended: told of the attempts of tasks that have ended since it was read last.
    """

    def __init__(self, cluster: ClusterAccess) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._state: ClusterState | None = None
        self._lost = False
        self.on_ended: list[Callable[[list[tuple[Task, Attempt]]], object]] = []

    @contextmanager
    def reading(self) -> Iterator[ClusterState]:
        """Return the state, for this thread alone.

        Raises:
            ConnectError: the store cannot be reached.
            ConnectionLost: it does not answer.
        """
        with self._lock:
            if self._state is not None and self._lost:
                self._state.reopen()
                self._lost = False
            if self._state is None:
                self._state = ClusterState(self._cluster.endpoint, timeout=self._cluster.timeout)
                self._state.log.on_ended = self.on_ended
            try:
                yield self._state
            except ConnectionLost:
                self._lost = True  # whoever comes next looks for the server again
                raise


_made: Final = threading.Lock()


def shared_state(request: Request, cluster: ClusterAccess) -> SharedState:
    """Return the state that the service of a request has."""
    with _made:
        found: SharedState | None = getattr(request.app.state, "shared_state", None)
        if found is None:
            found = request.app.state.shared_state = SharedState(cluster)
        return found


def _reply(result: Any, *, message: str = "", code: int = 200) -> Response:
    good = code == 200
    return JSONResponse({"result": good, "msg": message, "data": {"result": result} if good else {}}, code)


def _answer(make: Callable[[], ListApiResponse], *, own_columns: bool) -> Response:
    try:
        answer = make()
    except ValueError as error:
        return _reply(None, message=str(error), code=400)
    except RabbitryBrokerError as error:
        return _reply(None, message=f"The state of the cluster cannot be read: {error}", code=500)
    if not own_columns and isinstance(answer.result, list):
        answer.result = [
            {name: value for name, value in row.items() if name not in OWN_COLUMNS} for row in answer.result
        ]
    return _reply(answer.asdict())


def _filters(request: Request) -> list[Filter]:
    query = request.query_params
    columns = query.getlist("filter_keys")
    predicates, values = query.getlist("filter_predicates"), query.getlist("filter_values")
    if not len(columns) == len(predicates) == len(values):
        raise ValueError("A filter is a key, a predicate and a value: there are not as many of each.")
    return list(zip(columns, predicates, values, strict=True))


def _whole(request: Request, name: str, default: int) -> int:
    given = request.query_params.get(name)
    if given is None:
        return default
    try:
        return int(given)
    except ValueError:
        raise ValueError(f"{name}={given!r} is not a whole number.") from None


def _is_true(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() in _TRUE


def _list(request: Request, cluster: ClusterAccess, resource: StateResource) -> Response:
    def make() -> ListApiResponse:
        options = ListApiOptions(
            limit=_whole(request, "limit", DEFAULT_LIMIT),
            timeout=_whole(request, "timeout", DEFAULT_RPC_TIMEOUT),
            detail=_is_true(request, "detail"),
            filters=_filters(request),
        )
        with shared_state(request, cluster).reading() as state:
            return answer_list(state, resource, options)

    return _answer(make, own_columns=_is_true(request, "own_columns"))


def _summary(request: Request, cluster: ClusterAccess, resource: SummaryResource) -> Response:
    def make() -> ListApiResponse:
        options = SummaryApiOptions(
            timeout=_whole(request, "timeout", DEFAULT_RPC_TIMEOUT),
            filters=_filters(request),
            summary_by=request.query_params.get("summary_by"),
        )
        with shared_state(request, cluster).reading() as state:
            return answer_summary(state, resource, options)

    return _answer(make, own_columns=True)


@router.get("/api/v0/tasks/timeline")
def timeline(request: Request, cluster: Cluster) -> Response:
    """Return a trace of tasks, of one job if `job_id` is given; as a file with `download=1`."""
    job_id = request.query_params.get("job_id")
    with shared_state(request, cluster).reading() as state:
        text = json.dumps(timeline_of(state, job_id))
    headers = {}
    if request.query_params.get("download") == "1":
        name = f"timeline-{time.strftime('%Y-%m-%d_%H-%M-%S')}.json"
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return Response(text, media_type="application/json", headers=headers)


@router.get("/api/v0/tasks/summarize")
def summarize_tasks(request: Request, cluster: Cluster) -> Response:
    """Return how many tasks of each function are in which state."""
    return _summary(request, cluster, SummaryResource.TASKS)


@router.get("/api/v0/actors/summarize")
def summarize_actors(request: Request, cluster: Cluster) -> Response:
    """Return how many actors of each class are in which state."""
    return _summary(request, cluster, SummaryResource.ACTORS)


@router.get("/api/v0/objects/summarize")
def summarize_objects(request: Request, cluster: Cluster) -> Response:
    """Return how many objects there are, and their size."""
    return _summary(request, cluster, SummaryResource.OBJECTS)


@router.get("/api/v0/actors")
def list_actors(request: Request, cluster: Cluster) -> Response:
    """List actors."""
    return _list(request, cluster, StateResource.ACTORS)


@router.get("/api/v0/jobs")
def list_jobs(request: Request, cluster: Cluster) -> Response:
    """List jobs."""
    return _list(request, cluster, StateResource.JOBS)


@router.get("/api/v0/nodes")
def list_nodes(request: Request, cluster: Cluster) -> Response:
    """List nodes."""
    return _list(request, cluster, StateResource.NODES)


@router.get("/api/v0/placement_groups")
def list_placement_groups(request: Request, cluster: Cluster) -> Response:
    """List placement groups."""
    return _list(request, cluster, StateResource.PLACEMENT_GROUPS)


@router.get("/api/v0/workers")
def list_workers(request: Request, cluster: Cluster) -> Response:
    """List worker processes and drivers."""
    return _list(request, cluster, StateResource.WORKERS)


@router.get("/api/v0/tasks")
def list_tasks(request: Request, cluster: Cluster) -> Response:
    """List tasks."""
    return _list(request, cluster, StateResource.TASKS)


@router.get("/api/v0/objects")
def list_objects(request: Request, cluster: Cluster) -> Response:
    """List objects."""
    return _list(request, cluster, StateResource.OBJECTS)


@router.get("/api/v0/runtime_envs")
def list_runtime_envs(request: Request, cluster: Cluster) -> Response:
    """List runtime environments."""
    return _list(request, cluster, StateResource.RUNTIME_ENVS)


@router.get("/api/v0/cluster_events")
def list_cluster_events(request: Request, cluster: Cluster) -> Response:
    """List what happened to nodes and worker processes."""
    return _list(request, cluster, StateResource.CLUSTER_EVENTS)


@router.get("/api/v0/logs")
def list_logs(request: Request, cluster: Cluster) -> Response:
    """Return the names of log files of a node, by what they are."""
    query = request.query_params
    try:
        found = names_of(
            cluster.endpoint,
            node_id=query.get("node_id"),
            node_ip=query.get("node_ip"),
            glob=query.get("glob") or "*",
            timeout=_whole(request, "timeout", DEFAULT_RPC_TIMEOUT),
        )
    except ValueError as error:
        return _reply(None, message=str(error), code=400)
    except RabbitryBrokerError as error:
        return _reply(None, message=f"The logs cannot be listed: {error}", code=500)
    return _reply(found)


@router.get("/api/v0/logs/{media_type}")
def get_log(media_type: str, request: Request, cluster: Cluster) -> Response:
    """Return what stands in a log: all of it, or for ever what comes ("stream")."""
    query = request.query_params
    interval = query.get("interval")
    try:
        options = GetLogOptions(
            timeout=_whole(request, "timeout", DEFAULT_RPC_TIMEOUT),
            node_id=query.get("node_id"),
            node_ip=query.get("node_ip"),
            media_type=media_type,
            filename=query.get("filename"),
            actor_id=query.get("actor_id"),
            task_id=query.get("task_id"),
            pid=_whole(request, "pid", 0) or None,
            lines=_whole(request, "lines", DEFAULT_LOG_LIMIT),
            interval=None if interval is None else max(SHORTEST_INTERVAL, float(interval)),
            suffix=query.get("suffix", "out"),
            submission_id=query.get("submission_id"),
            filter_ansi_code=_is_true(request, "filter_ansi_code"),
        )
        pieces = pieces_of(cluster.endpoint, options)
        first = next(pieces, b"")  # what there is not is told before the answer has begun
    except ValueError as error:
        return PlainTextResponse(str(error), 400)
    except RabbitryBrokerError as error:
        return PlainTextResponse(str(error), 500)
    return StreamingResponse(itertools.chain((first,), pieces), media_type="text/plain; charset=utf-8")
