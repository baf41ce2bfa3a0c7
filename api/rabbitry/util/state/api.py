"""Functions and a client that list, get and summarize what a cluster does; see `rabbitry.util.state`."""

from __future__ import annotations

import codecs
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from rabbitry import current
from rabbitry.dashboard_token import known_token
from rabbitry.object_ref import ObjectRef
from rabbitry.state.answers import answer_list, answer_summary
from rabbitry.state.cluster import ClusterState
from rabbitry.state.errors import RayStateApiException, ServerUnavailable
from rabbitry.state.finding import endpoint_of
from rabbitry.state.logs import GetLogOptions, names_of, pieces_of
from rabbitry.state.rest import Service, is_service
from rabbitry.state.schemas import (
    DEFAULT_LIMIT,
    DEFAULT_RPC_TIMEOUT,
    ID_COLUMNS,
    SCHEMAS,
    ActorState,
    ClusterEventState,
    Filter,
    GetApiOptions,
    JobState,
    ListApiOptions,
    ListApiResponse,
    NodeState,
    ObjectState,
    PlacementGroupState,
    RuntimeEnvState,
    StateResource,
    SummaryApiOptions,
    SummaryResource,
    TaskState,
    WorkerState,
)
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import RabbitryBrokerError

_Found = list[Any]  # in the class, `list` is a method


class StateApiClient:
    """Lists, gets and summarizes what a cluster does. Any thread may use it.

    Args:
        address: None or "auto" for the cluster of this session, else for the one that the environment names, else for
            the newest session of this user on this machine; `amqp://...`, `unix:///directory`; or `http://...` of the
            HTTP service (`rabbitry dashboard`).
        cookies: of requests to the HTTP service.
        headers: of requests to the HTTP service; None for one with the user's token for it, if there is one.

    Raises:
        RayStateApiException: there is no cluster.
    """

    def __init__(
        self,
        address: str | None = None,
        cookies: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._address = address
        self._service = Service(str(address), _headers(headers), cookies) if is_service(address) else None

    @contextmanager
    def _state(self, timeout: float) -> Iterator[ClusterState]:
        client = current.peek() if self._address in (None, "auto") else None
        try:
            if client is not None:
                client.send_events()  # what this process has submitted just now is to be seen
                yield ClusterState(client.endpoint, source=client.store)
            else:
                with ClusterState(endpoint_of(self._address), timeout=timeout) as state:
                    yield state
        except RabbitryBrokerError as error:
            raise ServerUnavailable(f"The state of the cluster cannot be read: {error}") from error

    def get(
        self, resource: StateResource, id: str, options: GetApiOptions | None = None, _explain: bool = False
    ) -> Any:
        """Return what has an id, with all details.

        Args:
            resource: of which kind it is.
            id: hexadecimal; of jobs that of the submission.
            options: a timeout.
            _explain: accepted for Ray's sake.

        Returns:
            None if there is none; for tasks that were run several times a list of their attempts, for objects always
            a list.

        Raises:
            ValueError: nothing of that kind has an id.
            RayStateApiException: the state cannot be read.
        """
        resource = StateResource(resource)
        if resource not in ID_COLUMNS:
            raise ValueError(f"Can't get {resource.name} by id.")
        filters: list[Filter] = [(ID_COLUMNS[resource], "=", id)]
        wanted = ListApiOptions(timeout=(options or GetApiOptions()).timeout, detail=True, filters=filters)
        found = self._make(resource, self._list(resource, wanted))
        if resource is StateResource.OBJECTS:
            return found
        if not found:
            return None
        return found if len(found) > 1 else found[0]

    def list(
        self,
        resource: StateResource,
        options: ListApiOptions,
        raise_on_missing_output: bool = True,
        _explain: bool = False,
    ) -> _Found:
        """Return what there is of a kind.

        Args:
            resource: the kind.
            options: what is wanted of it.
            raise_on_missing_output: False to be given what is known, though not all is.
            _explain: warn of what is left out.

        Raises:
            ValueError: an impossible filter or limit.
            RayStateApiException: the state cannot be read, or not all of it.
        """
        resource = StateResource(resource)
        answer = self._list(resource, options)
        if raise_on_missing_output:
            _require_all(resource.value, answer)
        if _explain:
            _warn(resource.value, answer)
        return self._make(resource, answer)

    def summary(
        self,
        resource: SummaryResource,
        *,
        options: SummaryApiOptions,
        raise_on_missing_output: bool = True,
        _explain: bool = False,
    ) -> dict[str, Any]:
        """Return a summary, `{"cluster": {"summary": ...}}`; see `list`."""
        resource = SummaryResource(resource)
        if self._service is not None:
            path = f"/api/v0/{resource.value}/summarize"
            parameters = {"timeout": options.timeout, **_filters(options.filters)}
            if options.summary_by:
                parameters["summary_by"] = options.summary_by
            answer = ListApiResponse(**self._service.get(path, parameters, options.timeout)["result"])
        else:
            with self._state(options.timeout) as state:
                answer = answer_summary(state, resource, options)
        if raise_on_missing_output:
            _require_all(resource.value, answer)
        summary: dict[str, Any] = answer.result["node_id_to_summary"]  # type: ignore[call-overload]
        return summary

    def _list(self, resource: StateResource, options: ListApiOptions) -> ListApiResponse:
        if self._service is None:
            with self._state(options.timeout) as state:
                return answer_list(state, resource, options)
        parameters = {"limit": options.limit, "timeout": options.timeout, "detail": options.detail, "own_columns": True}
        parameters |= _filters(options.filters)
        answer = self._service.get(f"/api/v0/{resource.value}", parameters, options.timeout)
        return ListApiResponse(**answer["result"])

    @staticmethod
    def _make(resource: StateResource, answer: ListApiResponse) -> _Found:
        schema = SCHEMAS[resource]
        known = [each.name for each in fields(schema)]
        return [schema(**{name: row.get(name) for name in known}) for row in answer.result]


def _headers(given: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return the headers of requests to the HTTP service.

    Raises:
        TokenError: the token is too weak, or others can read it.
    """
    if given is not None:
        return given
    token = known_token()
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _filters(filters: Any) -> dict[str, Any]:
    filters = filters or []
    return {
        "filter_keys": [key for key, _, _ in filters],
        "filter_predicates": [predicate for _, predicate, _ in filters],
        "filter_values": [value for _, _, value in filters],
    }


def _require_all(what: str, answer: ListApiResponse) -> None:
    if answer.partial_failure_warning:
        raise RayStateApiException(
            f"Not all {what} can be told: {answer.partial_failure_warning} Pass raise_on_missing_output=False for "
            "those that can."
        )
    if answer.total != answer.num_after_truncation:
        raise RayStateApiException(
            f"Of {answer.total} {what} only {answer.num_after_truncation} are known: the others were too many for what "
            "the cluster keeps, or for one answer. Pass raise_on_missing_output=False for those that are."
        )


def _warn(what: str, answer: ListApiResponse) -> None:
    told = list(answer.warnings or [])
    if answer.total > answer.num_after_truncation:
        told.append(f"Of {answer.total} {what} only {answer.num_after_truncation} are known.")
    if answer.num_filtered > len(answer.result):
        told.append(f"These are {len(answer.result)} of {answer.num_filtered} {what}: filter, or raise the limit.")
    for text in told:
        warnings.warn(text, stacklevel=4)


def get_actor(
    id: str, address: str | None = None, timeout: int = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> ActorState | None:
    """Return an actor with all details; None if there is none.

    Args:
        id: its id, hexadecimal.
        address: as in `StateApiClient`.
        timeout: seconds for the request.
        _explain: accepted for Ray's sake.

    Raises:
        RayStateApiException: the state cannot be read.
    """
    found: ActorState | None = StateApiClient(address).get(
        StateResource.ACTORS, id, GetApiOptions(timeout=timeout), _explain
    )
    return found


def get_placement_group(
    id: str, address: str | None = None, timeout: int = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> PlacementGroupState | None:
    """Return a placement group with all details; None if there is none.

    Args:
        id: its id, hexadecimal.
        address: as in `StateApiClient`.
        timeout: seconds for the request.
        _explain: accepted for Ray's sake.

    Raises:
        RayStateApiException: the state cannot be read.
    """
    found: PlacementGroupState | None = StateApiClient(address).get(
        StateResource.PLACEMENT_GROUPS, id, GetApiOptions(timeout=timeout), _explain
    )
    return found


def get_node(
    id: str, address: str | None = None, timeout: int = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> NodeState | None:
    """Return a node with all details; None if there is none.

    Args:
        id: its id, hexadecimal.
        address: as in `StateApiClient`.
        timeout: seconds for the request.
        _explain: accepted for Ray's sake.

    Raises:
        RayStateApiException: the state cannot be read.
    """
    found: NodeState | None = StateApiClient(address).get(
        StateResource.NODES, id, GetApiOptions(timeout=timeout), _explain
    )
    return found


def get_job(
    id: str, address: str | None = None, timeout: int = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> JobState | None:
    """Return a submitted job with all details; None if there is none.

    Args:
        id: its id, hexadecimal, as it was given when the job was submitted.
        address: as in `StateApiClient`.
        timeout: seconds for the request.
        _explain: accepted for Ray's sake.

    Raises:
        RayStateApiException: the state cannot be read.
    """
    found: JobState | None = StateApiClient(address).get(
        StateResource.JOBS, id, GetApiOptions(timeout=timeout), _explain
    )
    return found


def get_worker(
    id: str, address: str | None = None, timeout: int = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> WorkerState | None:
    """Return a worker process with all details; None if there is none.

    Args:
        id: its id, hexadecimal.
        address: as in `StateApiClient`.
        timeout: seconds for the request.
        _explain: accepted for Ray's sake.

    Raises:
        RayStateApiException: the state cannot be read.
    """
    found: WorkerState | None = StateApiClient(address).get(
        StateResource.WORKERS, id, GetApiOptions(timeout=timeout), _explain
    )
    return found


def get_task(
    id: str | ObjectRef[Any], address: str | None = None, timeout: int = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> TaskState | list[TaskState] | None:
    """Return a task with all details; a list if it was tried several times; None if it is not known.

    Args:
        id: its id, or one of its results.
        address: as in `StateApiClient`.
        timeout: seconds for the request.
        _explain: accepted for Ray's sake.

    Raises:
        RayStateApiException: the state cannot be read.
    """
    text = id if isinstance(id, str) else id.task_id().hex()
    found: TaskState | list[TaskState] | None = StateApiClient(address).get(
        StateResource.TASKS, text, GetApiOptions(timeout=timeout), _explain
    )
    return found


def get_objects(
    id: str, address: str | None = None, timeout: int = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> list[ObjectState]:
    """Return an object with all details; an empty list if it is not there.

    Args:
        id: its id, hexadecimal.
        address: as in `StateApiClient`.
        timeout: seconds for the request.
        _explain: accepted for Ray's sake.

    Raises:
        RayStateApiException: the state cannot be read.
    """
    found: list[ObjectState] = StateApiClient(address).get(
        StateResource.OBJECTS, id, GetApiOptions(timeout=timeout), _explain
    )
    return found


def list_actors(
    address: str | None = None,
    filters: list[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[ActorState]:
    """Return actors, also those that have been dead for less than an hour.

    Args:
        address: as in `StateApiClient`.
        filters: (column, "=" or "!=", value); all must hold, and case does not count.
        limit: entries to return at most.
        timeout: seconds for the request.
        detail: also the columns that only details have, which are None else.
        raise_on_missing_output: False to be given what is known, though not all is.
        _explain: warn of what is left out.

    Raises:
        ValueError: an impossible filter or limit.
        RayStateApiException: the state cannot be read, or not all of it.
    """
    options = ListApiOptions(limit=limit, timeout=timeout, detail=detail, filters=filters)
    return StateApiClient(address).list(StateResource.ACTORS, options, raise_on_missing_output, _explain)


def list_placement_groups(
    address: str | None = None,
    filters: list[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[PlacementGroupState]:
    """Return placement groups.

    Args:
        address: as in `StateApiClient`.
        filters: (column, "=" or "!=", value); all must hold, and case does not count.
        limit: entries to return at most.
        timeout: seconds for the request.
        detail: also the columns that only details have, which are None else.
        raise_on_missing_output: False to be given what is known, though not all is.
        _explain: warn of what is left out.

    Raises:
        ValueError: an impossible filter or limit.
        RayStateApiException: the state cannot be read, or not all of it.
    """
    options = ListApiOptions(limit=limit, timeout=timeout, detail=detail, filters=filters)
    return StateApiClient(address).list(StateResource.PLACEMENT_GROUPS, options, raise_on_missing_output, _explain)


def list_nodes(
    address: str | None = None,
    filters: list[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[NodeState]:
    """Return nodes, also those that have been dead for less than ten minutes.

    Args:
        address: as in `StateApiClient`.
        filters: (column, "=" or "!=", value); all must hold, and case does not count.
        limit: entries to return at most.
        timeout: seconds for the request.
        detail: also the columns that only details have, which are None else.
        raise_on_missing_output: False to be given what is known, though not all is.
        _explain: warn of what is left out.

    Raises:
        ValueError: an impossible filter or limit.
        RayStateApiException: the state cannot be read, or not all of it.
    """
    options = ListApiOptions(limit=limit, timeout=timeout, detail=detail, filters=filters)
    return StateApiClient(address).list(StateResource.NODES, options, raise_on_missing_output, _explain)


def list_jobs(
    address: str | None = None,
    filters: list[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[JobState]:
    """Return jobs: drivers, and what was submitted.

    Args:
        address: as in `StateApiClient`.
        filters: (column, "=" or "!=", value); all must hold, and case does not count.
        limit: entries to return at most.
        timeout: seconds for the request.
        detail: also the columns that only details have, which are None else.
        raise_on_missing_output: False to be given what is known, though not all is.
        _explain: warn of what is left out.

    Raises:
        ValueError: an impossible filter or limit.
        RayStateApiException: the state cannot be read, or not all of it.
    """
    options = ListApiOptions(limit=limit, timeout=timeout, detail=detail, filters=filters)
    return StateApiClient(address).list(StateResource.JOBS, options, raise_on_missing_output, _explain)


def list_workers(
    address: str | None = None,
    filters: list[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[WorkerState]:
    """Return worker processes and drivers.

    Args:
        address: as in `StateApiClient`.
        filters: (column, "=" or "!=", value); all must hold, and case does not count.
        limit: entries to return at most.
        timeout: seconds for the request.
        detail: also the columns that only details have, which are None else.
        raise_on_missing_output: False to be given what is known, though not all is.
        _explain: warn of what is left out.

    Raises:
        ValueError: an impossible filter or limit.
        RayStateApiException: the state cannot be read, or not all of it.
    """
    options = ListApiOptions(limit=limit, timeout=timeout, detail=detail, filters=filters)
    return StateApiClient(address).list(StateResource.WORKERS, options, raise_on_missing_output, _explain)


def list_tasks(
    address: str | None = None,
    filters: list[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[TaskState]:
    """Return tasks and calls of actors, the latest first, an entry for each attempt.

    Args:
        address: as in `StateApiClient`.
        filters: (column, "=" or "!=", value); all must hold, and case does not count.
        limit: entries to return at most.
        timeout: seconds for the request.
        detail: also the columns that only details have, which are None else.
        raise_on_missing_output: False to be given what is known, though not all is.
        _explain: warn of what is left out.

    Raises:
        ValueError: an impossible filter or limit.
        RayStateApiException: the state cannot be read, or not all of it.
    """
    options = ListApiOptions(limit=limit, timeout=timeout, detail=detail, filters=filters)
    return StateApiClient(address).list(StateResource.TASKS, options, raise_on_missing_output, _explain)


def list_objects(
    address: str | None = None,
    filters: list[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[ObjectState]:
    """Return objects that are in the store.

    Args:
        address: as in `StateApiClient`.
        filters: (column, "=" or "!=", value); all must hold, and case does not count.
        limit: entries to return at most.
        timeout: seconds for the request.
        detail: also the columns that only details have, which are None else.
        raise_on_missing_output: False to be given what is known, though not all is.
        _explain: warn of what is left out.

    Raises:
        ValueError: an impossible filter or limit.
        RayStateApiException: the state cannot be read, or not all of it.
    """
    options = ListApiOptions(limit=limit, timeout=timeout, detail=detail, filters=filters)
    return StateApiClient(address).list(StateResource.OBJECTS, options, raise_on_missing_output, _explain)


def list_runtime_envs(
    address: str | None = None,
    filters: list[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[RuntimeEnvState]:
    """Return runtime environments that tasks and actors have asked for.

    Args:
        address: as in `StateApiClient`.
        filters: (column, "=" or "!=", value); all must hold, and case does not count.
        limit: entries to return at most.
        timeout: seconds for the request.
        detail: also the columns that only details have, which are None else.
        raise_on_missing_output: False to be given what is known, though not all is.
        _explain: warn of what is left out.

    Raises:
        ValueError: an impossible filter or limit.
        RayStateApiException: the state cannot be read, or not all of it.
    """
    options = ListApiOptions(limit=limit, timeout=timeout, detail=detail, filters=filters)
    return StateApiClient(address).list(StateResource.RUNTIME_ENVS, options, raise_on_missing_output, _explain)


def list_cluster_events(
    address: str | None = None,
    filters: list[Filter] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[ClusterEventState]:
    """Return nodes and worker processes that came and went.

    Args:
        address: as in `StateApiClient`.
        filters: (column, "=" or "!=", value); all must hold, and case does not count.
        limit: entries to return at most.
        timeout: seconds for the request.
        detail: also the columns that only details have, which are None else.
        raise_on_missing_output: False to be given what is known, though not all is.
        _explain: warn of what is left out.

    Raises:
        ValueError: an impossible filter or limit.
        RayStateApiException: the state cannot be read, or not all of it.
    """
    options = ListApiOptions(limit=limit, timeout=timeout, detail=detail, filters=filters)
    return StateApiClient(address).list(StateResource.CLUSTER_EVENTS, options, raise_on_missing_output, _explain)


def summarize_tasks(
    address: str | None = None,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """Return how many tasks there are of each function: `{"cluster": {"summary": ...}}`.

    Args:
        address: as in `StateApiClient`.
        timeout: seconds for the request.
        raise_on_missing_output: False to be given what is known, though not all is.
        _explain: accepted for Ray's sake.

    Raises:
        RayStateApiException: the state cannot be read, or not all of it.
    """
    return _summary(SummaryResource.TASKS, address, timeout, raise_on_missing_output, _explain)


def summarize_actors(
    address: str | None = None,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """Return how many actors there are of each class: `{"cluster": {"summary": ...}}`.

    Args:
        address: as in `StateApiClient`.
        timeout: seconds for the request.
        raise_on_missing_output: False to be given what is known, though not all is.
        _explain: accepted for Ray's sake.

    Raises:
        RayStateApiException: the state cannot be read, or not all of it.
    """
    return _summary(SummaryResource.ACTORS, address, timeout, raise_on_missing_output, _explain)


def summarize_objects(
    address: str | None = None,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """Return how many objects there are of each call site: `{"cluster": {"summary": ...}}`.

    Args:
        address: as in `StateApiClient`.
        timeout: seconds for the request.
        raise_on_missing_output: False to be given what is known, though not all is.
        _explain: accepted for Ray's sake.

    Raises:
        RayStateApiException: the state cannot be read, or not all of it.
    """
    return _summary(SummaryResource.OBJECTS, address, timeout, raise_on_missing_output, _explain)


def _summary(
    resource: SummaryResource, address: str | None, timeout: int, raise_on_missing_output: bool, explain: bool
) -> dict[str, Any]:
    options = SummaryApiOptions(timeout=timeout)
    client = StateApiClient(address)
    return client.summary(resource, options=options, raise_on_missing_output=raise_on_missing_output, _explain=explain)


def list_logs(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    glob_filter: str | None = None,
    timeout: int = DEFAULT_RPC_TIMEOUT,
) -> dict[str, list[str]]:
    """Return the names of log files, by what they are: `worker_out`, `worker_err` and others.

    Args:
        address: as in `StateApiClient`.
        node_id: of the node whose files are wanted, hexadecimal; None for all nodes, or for `node_ip`.
        node_ip: address of that node.
        glob_filter: pattern of names.
        timeout: seconds for the request.

    Raises:
        RayStateApiException: there is no such node, or it does not answer.
    """
    client = StateApiClient(address)
    if client._service is not None:
        given = {"node_id": node_id, "node_ip": node_ip, "glob": glob_filter, "timeout": timeout}
        wanted = {name: value for name, value in given.items() if value}
        names: dict[str, list[str]] = client._service.get("/api/v0/logs", wanted, timeout)["result"]
        return names
    try:
        return names_of(_endpoint(address), node_id=node_id, node_ip=node_ip, glob=glob_filter or "*", timeout=timeout)
    except RabbitryBrokerError as error:
        raise RayStateApiException(f"The logs cannot be listed: {error}") from error


def get_log(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    filename: str | None = None,
    actor_id: str | None = None,
    task_id: str | None = None,
    pid: int | None = None,
    follow: bool = False,
    tail: int = -1,
    timeout: int = DEFAULT_RPC_TIMEOUT,
    suffix: str = "out",
    encoding: str | None = "utf-8",
    errors: str | None = "strict",
    submission_id: str | None = None,
    attempt_number: int = 0,
    _interval: float | None = None,
    filter_ansi_code: bool = False,
) -> Iterator[Any]:
    """Yield what stands in a log, piece by piece.

    Args:
        address: as in `StateApiClient`.
        node_id: of the node that has it, hexadecimal; not needed for a task or an actor.
        node_ip: address of that node instead.
        filename: name of the file, as `list_logs` has it.
        actor_id: what an actor printed instead.
        task_id: what a task printed instead.
        pid: what a process printed instead.
        follow: also yield what comes, for ever.
        tail: only so many lines at the end; -1 for all.
        timeout: seconds until the node answers.
        suffix: "out" or "err".
        encoding: of the text; None for bytes.
        errors: what to do with bytes that are none of it, as for `bytes.decode`.
        submission_id: accepted for Ray's sake: see `JobSubmissionClient.get_job_logs`.
        attempt_number: accepted for Ray's sake: attempts stand one after the other.
        _interval: seconds between two looks at a file that is followed.
        filter_ansi_code: leave out what colours text.

    Raises:
        ValueError: not enough is said, or what contradicts itself.
        RayStateApiException: there is no such log, or its node does not answer.
    """
    options = GetLogOptions(
        timeout=timeout,
        node_id=node_id,
        node_ip=node_ip,
        media_type="stream" if follow else "file",
        filename=filename,
        actor_id=actor_id,
        task_id=task_id,
        attempt_number=attempt_number,
        pid=pid,
        lines=tail,
        interval=_interval,
        suffix=suffix,
        submission_id=submission_id,
        filter_ansi_code=filter_ansi_code,
    )
    return _log(StateApiClient(address), address, options, encoding, errors)


def _log(
    client: StateApiClient, address: str | None, options: GetLogOptions, encoding: str | None, errors: str | None
) -> Iterator[Any]:
    if client._service is not None:
        given = {each.name: getattr(options, each.name) for each in fields(options) if each.name != "media_type"}
        wanted = {name: value for name, value in given.items() if value not in (None, False)}
        pieces = client._service.pieces(f"/api/v0/logs/{options.media_type}", wanted, options.timeout)
    else:
        pieces = pieces_of(_endpoint(address), options)
    decoder = None if encoding is None else codecs.getincrementaldecoder(encoding)(errors or "strict")
    try:
        for piece in pieces:
            yield piece if decoder is None else decoder.decode(piece)
    except RabbitryBrokerError as error:
        raise RayStateApiException(f"The log cannot be read: {error}") from error


def _endpoint(address: str | None) -> Endpoint:
    client = current.peek() if address in (None, "auto") else None
    return client.endpoint if client is not None else endpoint_of(address)
