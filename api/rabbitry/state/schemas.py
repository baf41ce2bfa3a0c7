"""What the state API takes and returns: options, and a dataclass for each kind of thing, with Ray's names.

Columns that cost more, or that few want, are *detail*: they are None unless `detail=True`, or one is asked for by id.
"""

from __future__ import annotations

import dataclasses
import datetime
import warnings
from dataclasses import asdict, dataclass, field, fields
from enum import Enum, unique
from typing import Any

DEFAULT_RPC_TIMEOUT = 30
DEFAULT_LIMIT = 100
DEFAULT_LOG_LIMIT = 1000
DEFAULT_DOWNLOAD_FILENAME = "file.txt"
RAY_MAX_LIMIT_FROM_API_SERVER = 10_000
RAY_MAX_LIMIT_FROM_DATA_SOURCE = 10_000
DRIVER_TASK_ID_PREFIX = "f" * 40

PredicateType = str
SupportedFilterType = str | bool | int | float
Filter = tuple[str, PredicateType, SupportedFilterType]


@unique
class StateResource(Enum):
    """What can be listed."""

    ACTORS = "actors"
    JOBS = "jobs"
    PLACEMENT_GROUPS = "placement_groups"
    NODES = "nodes"
    WORKERS = "workers"
    TASKS = "tasks"
    OBJECTS = "objects"
    RUNTIME_ENVS = "runtime_envs"
    CLUSTER_EVENTS = "cluster_events"


@unique
class SummaryResource(Enum):
    """What can be summarized."""

    ACTORS = "actors"
    TASKS = "tasks"
    OBJECTS = "objects"


class Humanify:
    """Turns values of columns into text for people."""

    @staticmethod
    def timestamp(milliseconds: float) -> str:
        """Return a time (milliseconds since 1970) as date and time of day, here."""
        return str(datetime.datetime.fromtimestamp(milliseconds / 1000).astimezone())[:26]

    @staticmethod
    def memory(size: float) -> str:
        """Return bytes with a unit.

        Example:
            >>> Humanify.memory(3 << 20)
            '3.000 MiB'
        """
        for exponent, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
            if size >= 1 << exponent:
                return f"{size / (1 << exponent):.3f} {unit}"
        return f"{size:.3f} B"

    @staticmethod
    def duration(milliseconds: float) -> str:
        """Return a duration as hours, minutes and seconds."""
        return str(datetime.timedelta(milliseconds=milliseconds))

    @staticmethod
    def events(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return events of a task with their times as text."""
        return [
            {**each, "created_ms": Humanify.timestamp(each["created_ms"])} if "created_ms" in each else each
            for each in events
        ]

    @staticmethod
    def node_resources(resources: dict[str, Any]) -> dict[str, Any]:
        """Return the resources of a node, those that are memory with a unit."""
        return {name: Humanify.memory(amount) if "memory" in name else amount for name, amount in resources.items()}


@dataclass
class ListApiOptions:
    """How to list.

    Attributes:
        limit: entries to return at most.
        timeout: seconds for the whole request.
        detail: also the columns that only details have.
        filters: (column, "=" or "!=", value); all of them must hold.
        exclude_driver: leave out drivers as tasks; there are none here.
        server_timeout_multiplier: of the timeout, what the server may take.
    """

    limit: int = DEFAULT_LIMIT
    timeout: int = DEFAULT_RPC_TIMEOUT
    detail: bool = False
    filters: list[Filter] | None = field(default_factory=list)
    exclude_driver: bool = True
    server_timeout_multiplier: float = 0.8

    def __post_init__(self) -> None:
        self.timeout = max(1, int(self.timeout * self.server_timeout_multiplier))
        self.filters = checked_filters(self.filters)

    def has_conflicting_filters(self) -> bool:
        """True if two filters ask for different values of one column: nothing can fit, and a warning says so."""
        wanted: dict[str, Any] = {}
        for column, predicate, value in self.filters or ():
            if predicate == "=" and wanted.setdefault(column, value) != value:
                warnings.warn(
                    f"Two filters want column {column!r} to be {wanted[column]!r} and {value!r}: nothing is both.",
                    UserWarning,
                    stacklevel=2,
                )
                return True
        return False


@dataclass
class GetApiOptions:
    """How to get one thing; see `ListApiOptions`."""

    timeout: int = DEFAULT_RPC_TIMEOUT
    server_timeout_multiplier: float = 0.8

    def __post_init__(self) -> None:
        self.timeout = max(1, int(self.timeout * self.server_timeout_multiplier))


@dataclass
class SummaryApiOptions:
    """How to summarize; see `ListApiOptions`.

    Attributes:
        timeout: seconds for the whole request.
        filters: as in `ListApiOptions`.
        summary_by: of tasks: "func_name" (the default) or "lineage".
    """

    timeout: int = DEFAULT_RPC_TIMEOUT
    filters: list[Filter] | None = field(default_factory=list)
    summary_by: str | None = None

    def __post_init__(self) -> None:
        self.filters = checked_filters(self.filters)


def checked_filters(filters: Any) -> list[Filter]:
    """Return filters as a list.

    Raises:
        ValueError: one is not (column, "=" or "!=", value).
    """
    checked: list[Filter] = []
    for each in filters or ():
        if not isinstance(each, (tuple, list)) or len(each) != 3:
            raise ValueError(f"The filter {each!r} is not a tuple (column, predicate, value).")
        column, predicate, value = each
        if predicate not in ("=", "!="):
            raise ValueError(f"The filter {each!r} has the predicate {predicate!r}. Available predicates: =, !=.")
        if not isinstance(column, str):
            raise ValueError(f"The filter {each!r} names no column: {column!r} is not text.")
        checked.append((column, predicate, value))
    return checked


def state_column(*, filterable: bool, detail: bool = False, format_fn: Any = None, **kwargs: Any) -> Any:
    """Return a dataclass field for a column.

    Args:
        filterable: filters may name it.
        detail: only shown with details.
        format_fn: makes text for people of a value.
        **kwargs: as `dataclasses.field` takes them.
    """
    if detail and "default" not in kwargs:
        kwargs["default"] = None
    facts = {"detail": detail, "filterable": filterable, "format_fn": format_fn}
    return field(metadata={**kwargs.pop("metadata", {}), **facts}, **kwargs)


class StateSchema:
    """What all states have in common. Values are attributes, and items too."""

    @classmethod
    def humanify(cls, state: dict[str, Any]) -> dict[str, Any]:
        """Return a state with values that people read more easily."""
        shown = dict(state)
        for each in fields(cls):  # type: ignore[arg-type]
            make = each.metadata.get("format_fn")
            if make is not None and shown.get(each.name) is not None:
                shown[each.name] = make(shown[each.name])
        return shown

    @classmethod
    def list_columns(cls, detail: bool = True) -> list[str]:
        """Return the columns, those of details only with `detail`."""
        return [each.name for each in fields(cls) if detail or not each.metadata.get("detail")]  # type: ignore[arg-type]

    @classmethod
    def columns(cls) -> set[str]:
        """Return all columns."""
        return set(cls.list_columns(detail=True))

    @classmethod
    def filterable_columns(cls) -> set[str]:
        """Return the columns that filters may name."""
        return {each.name for each in fields(cls) if each.metadata.get("filterable")}  # type: ignore[arg-type]

    @classmethod
    def base_columns(cls) -> set[str]:
        """Return the columns that are shown without details."""
        return set(cls.list_columns(detail=False))

    @classmethod
    def detail_columns(cls) -> set[str]:
        """Return the columns that are shown with details."""
        return set(cls.list_columns(detail=True))

    def asdict(self) -> dict[str, Any]:
        """Return the state as a dictionary."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self, key, value)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a column; `default` if there is no such column."""
        return getattr(self, key, default)


@dataclass
class ActorState(StateSchema):
    """An actor.

    Attributes:
        actor_id: its id.
        class_name: its class.
        state: DEPENDENCIES_UNREADY (arguments of its constructor are not there), PENDING_CREATION, ALIVE, RESTARTING
            or DEAD.
        job_id: the job that made it.
        name: its name; "" without one.
        node_id: the node that it is on, or was on last.
        pid: of its process; 0 before it has one.
        ray_namespace: its namespace.
        serialized_runtime_env: its environment, as JSON.
        required_resources: what it needs to be placed.
        death_cause: why it is dead.
        is_detached: it outlives its job.
        placement_group_id: that it is placed in.
        repr_name: what it calls itself.
        num_restarts: how often it was restarted.
        num_restarts_due_to_lineage_reconstruction: 0.
        num_restarts_due_to_node_preemption: 0.
        call_site: not recorded.
        label_selector: labels that its node must have.
        fallback_strategy: not recorded.
        pending_reason: of one that has no process: what it waits for. Not in Ray.
    """

    actor_id: str = state_column(filterable=True)
    class_name: str = state_column(filterable=True)
    state: str = state_column(filterable=True)
    job_id: str = state_column(filterable=True)
    name: str | None = state_column(filterable=True)
    node_id: str | None = state_column(filterable=True)
    pid: int | None = state_column(filterable=True)
    ray_namespace: str | None = state_column(filterable=True)
    serialized_runtime_env: str | None = state_column(filterable=False, detail=True)
    required_resources: dict[str, float] | None = state_column(filterable=False, detail=True)
    death_cause: dict[str, Any] | None = state_column(filterable=False, detail=True)
    is_detached: bool | None = state_column(filterable=False, detail=True)
    placement_group_id: str | None = state_column(detail=True, filterable=True)
    repr_name: str | None = state_column(detail=True, filterable=True)
    num_restarts: int | None = state_column(filterable=False, detail=True)
    num_restarts_due_to_lineage_reconstruction: int | None = state_column(filterable=False, detail=True)
    num_restarts_due_to_node_preemption: int | None = state_column(filterable=False, detail=True)
    call_site: str | None = state_column(detail=True, filterable=False)
    label_selector: dict[str, str] | None = state_column(detail=True, filterable=False)
    fallback_strategy: dict[str, Any] | None = state_column(detail=True, filterable=False)
    pending_reason: str | None = state_column(detail=True, filterable=False)


@dataclass
class PlacementGroupState(StateSchema):
    """A placement group.

    Attributes:
        placement_group_id: its id.
        name: its name; "" without one.
        creator_job_id: the job that made it.
        state: PENDING, PREPARED, CREATED, RESCHEDULING or REMOVED.
        bundles: their resources and nodes.
        is_detached: it outlives its job.
        stats: of its placing.
        topology_strategy: none.
        topology_assignments: none.
    """

    placement_group_id: str = state_column(filterable=True)
    name: str = state_column(filterable=True)
    creator_job_id: str = state_column(filterable=True)
    state: str = state_column(filterable=True)
    bundles: list[dict[str, Any]] | None = state_column(filterable=False, detail=True)
    is_detached: bool | None = state_column(filterable=True, detail=True)
    stats: dict[str, Any] | None = state_column(filterable=False, detail=True)
    topology_strategy: dict[str, Any] | None = state_column(filterable=False, detail=True)
    topology_assignments: dict[str, Any] | None = state_column(filterable=False, detail=True)


@dataclass
class NodeState(StateSchema):
    """A node.

    Attributes:
        node_id: its id.
        node_ip: the address of its host.
        is_head_node: True for the oldest that lives. No node is the head here; programs written for Ray look for one.
        state: ALIVE or DEAD.
        state_message: more of that.
        node_name: what people call it.
        resources_total: what it has, by name.
        labels: its labels.
        start_time_ms: when it was started, in milliseconds since 1970.
        end_time_ms: when it was missed; 0 while it lives.
    """

    node_id: str = state_column(filterable=True)
    node_ip: str = state_column(filterable=True)
    is_head_node: bool = state_column(filterable=True)
    state: str = state_column(filterable=True)
    state_message: str | None = state_column(filterable=False)
    node_name: str = state_column(filterable=True)
    resources_total: dict[str, float] = state_column(filterable=False, format_fn=Humanify.node_resources)
    labels: dict[str, str] = state_column(filterable=False)
    start_time_ms: int | None = state_column(filterable=False, detail=True, format_fn=Humanify.timestamp)
    end_time_ms: int | None = state_column(filterable=False, detail=True, format_fn=Humanify.timestamp)


@dataclass
class JobState(StateSchema):
    """A job: a driver, or an entrypoint that was submitted.

    Attributes:
        type: DRIVER or SUBMISSION.
        job_id: its id; None for a submission whose driver has not begun.
        submission_id: its id as a submission; None for a driver of its own.
        driver_info: id, node_ip_address and pid of its driver.
        status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        entrypoint: what was started.
        message: more of the status.
        error_type: what kind of failure it was.
        start_time: milliseconds since 1970.
        end_time: the same; None while it runs.
        metadata: what the submitter said of it.
        runtime_env: its environment.
        driver_agent_http_address: not there.
        driver_node_id: the node that runs its entrypoint.
        driver_exit_code: with which the driver ended.
    """

    type: str
    job_id: str | None = None
    submission_id: str | None = None
    driver_info: dict[str, Any] | None = None
    status: str = "RUNNING"
    entrypoint: str = ""
    message: str | None = None
    error_type: str | None = None
    start_time: int | None = None
    end_time: int | None = None
    metadata: dict[str, str] | None = None
    runtime_env: dict[str, Any] | None = None
    driver_agent_http_address: str | None = None
    driver_node_id: str | None = None
    driver_exit_code: int | None = None

    @classmethod
    def filterable_columns(cls) -> set[str]:
        """Return the columns that filters may name."""
        return {"job_id", "type", "status", "submission_id"}

    @classmethod
    def list_columns(cls, detail: bool = True) -> list[str]:
        """Return the columns, those of details only with `detail`."""
        names = [each.name for each in fields(cls)]
        return names if detail else [name for name in names if name in _JOB_COLUMNS]


_JOB_COLUMNS = frozenset(
    ("job_id", "submission_id", "entrypoint", "type", "status", "message", "error_type", "driver_info")
)


@dataclass
class WorkerState(StateSchema):
    """A worker process, or a driver.

    Attributes:
        worker_id: its id.
        is_alive: it runs.
        worker_type: WORKER or DRIVER.
        exit_type: SYSTEM_ERROR, INTENDED_SYSTEM_EXIT, USER_ERROR, INTENDED_USER_EXIT or NODE_OUT_OF_MEMORY.
        node_id: its node.
        ip: the address of its host.
        pid: of the process.
        exit_detail: why it ended.
        worker_launch_time_ms: when it was asked for; -1, not recorded.
        worker_launched_time_ms: when the process was started; -1, not recorded.
        start_time_ms: when it was ready, in milliseconds since 1970.
        end_time_ms: when it ended; 0 while it lives.
        debugger_port: of its debugger.
        num_paused_threads: that wait in a debugger.
    """

    worker_id: str = state_column(filterable=True)
    is_alive: bool = state_column(filterable=True)
    worker_type: str = state_column(filterable=True)
    exit_type: str | None = state_column(filterable=True)
    node_id: str = state_column(filterable=True)
    ip: str = state_column(filterable=True)
    pid: int = state_column(filterable=True)
    exit_detail: str | None = state_column(detail=True, filterable=False)
    worker_launch_time_ms: int | None = state_column(filterable=False, detail=True)
    worker_launched_time_ms: int | None = state_column(filterable=False, detail=True)
    start_time_ms: int | None = state_column(filterable=False, detail=True, format_fn=Humanify.timestamp)
    end_time_ms: int | None = state_column(filterable=False, detail=True, format_fn=Humanify.timestamp)
    debugger_port: int | None = state_column(filterable=True, detail=True)
    num_paused_threads: int | None = state_column(filterable=True, detail=True)


@dataclass
class ClusterEventState(StateSchema):
    """Something that happened in the cluster: a node or a worker process came or went.

    Attributes:
        severity: INFO, WARNING or ERROR.
        time: date and time of day.
        source_type: what told of it: NODE or WORKER.
        message: what happened.
        event_id: its id.
        custom_fields: what else is known.
    """

    severity: str = state_column(filterable=True)
    time: str = state_column(filterable=False)
    source_type: str = state_column(filterable=True)
    message: str = state_column(filterable=False)
    event_id: str = state_column(filterable=True)
    custom_fields: dict[str, Any] | None = state_column(filterable=False, detail=True)


@dataclass
class TaskState(StateSchema):
    """One attempt of a task, or of a call of an actor.

    Attributes:
        task_id: its id.
        attempt_number: 0 for the first.
        name: what it is called.
        state: PENDING_ARGS_AVAIL (results of others that it takes are not there), PENDING_NODE_ASSIGNMENT (in a queue,
            or on a node that has no room), SUBMITTED_TO_WORKER (an executor has it behind another one),
            PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY (its actor has it), RUNNING, RUNNING_IN_RAY_GET,
            RUNNING_IN_RAY_WAIT, FINISHED or FAILED.
        job_id: the job that it belongs to.
        actor_id: of the actor, for calls and creations.
        type: NORMAL_TASK, ACTOR_CREATION_TASK or ACTOR_TASK.
        func_or_class_name: what it runs.
        parent_task_id: the task that submitted it; of a driver, an id that begins with 40 times f.
        node_id: the node that has it, or had it.
        worker_id: the process that has it, or had it.
        worker_pid: of that process.
        error_type: what kind of failure it was; None without one.
        language: PYTHON.
        required_resources: what it needs, by name.
        runtime_env_info: its environment.
        placement_group_id: that it is placed in.
        events: its states, each with `created_ms`, milliseconds since 1970.
        profiling_data: not recorded.
        creation_time_ms: when it was submitted.
        start_time_ms: when it began.
        end_time_ms: when it ended.
        task_log_info: not recorded.
        error_message: what the error said.
        is_debugger_paused: it waits in a debugger; not recorded.
        call_site: not recorded.
        label_selector: labels that its node must have.
        fallback_strategy: not recorded.
        pending_reason: of one that has not begun: what it waits for. Not in Ray.
    """

    task_id: str = state_column(filterable=True)
    attempt_number: int = state_column(filterable=True)
    name: str = state_column(filterable=True)
    state: str = state_column(filterable=True)
    job_id: str = state_column(filterable=True)
    actor_id: str | None = state_column(filterable=True)
    type: str = state_column(filterable=True)
    func_or_class_name: str = state_column(filterable=True)
    parent_task_id: str = state_column(filterable=True)
    node_id: str | None = state_column(filterable=True)
    worker_id: str | None = state_column(filterable=True)
    worker_pid: int | None = state_column(filterable=True)
    error_type: str | None = state_column(filterable=True)
    language: str | None = state_column(detail=True, filterable=True)
    required_resources: dict[str, float] | None = state_column(detail=True, filterable=False)
    runtime_env_info: dict[str, Any] | None = state_column(detail=True, filterable=False)
    placement_group_id: str | None = state_column(detail=True, filterable=True)
    events: list[dict[str, Any]] | None = state_column(detail=True, filterable=False, format_fn=Humanify.events)
    profiling_data: dict[str, Any] | None = state_column(detail=True, filterable=False)
    creation_time_ms: int | None = state_column(detail=True, filterable=False, format_fn=Humanify.timestamp)
    start_time_ms: int | None = state_column(detail=True, filterable=False, format_fn=Humanify.timestamp)
    end_time_ms: int | None = state_column(detail=True, filterable=False, format_fn=Humanify.timestamp)
    task_log_info: dict[str, Any] | None = state_column(detail=True, filterable=False)
    error_message: str | None = state_column(detail=True, filterable=False)
    is_debugger_paused: bool | None = state_column(detail=True, filterable=True)
    call_site: str | None = state_column(detail=True, filterable=False)
    label_selector: dict[str, str] | None = state_column(detail=True, filterable=False)
    fallback_strategy: dict[str, Any] | None = state_column(detail=True, filterable=False)
    pending_reason: str | None = state_column(detail=True, filterable=False)


@dataclass
class ObjectState(StateSchema):
    """An object that is in the store.

    Attributes:
        object_id: its id.
        object_size: bytes.
        task_status: of the task whose result it is; NIL for what was put.
        attempt_number: of that task, counted from 1.
        reference_type: what keeps it: LOCAL_REFERENCE, CAPTURED_IN_OBJECT, PINNED_IN_MEMORY or ACTOR_HANDLE.
        call_site: not recorded.
        type: WORKER or DRIVER: what its owner is.
        pid: of its owner; 0 if that is not known.
        ip: of its owner's host.
    """

    object_id: str = state_column(filterable=True)
    object_size: int = state_column(filterable=True, format_fn=Humanify.memory)
    task_status: str = state_column(filterable=True)
    attempt_number: int = state_column(filterable=True)
    reference_type: str = state_column(filterable=True)
    call_site: str = state_column(filterable=True)
    type: str = state_column(filterable=True)
    pid: int = state_column(filterable=True)
    ip: str = state_column(filterable=True)


@dataclass
class RuntimeEnvState(StateSchema):
    """A runtime environment that tasks or actors have asked for.

    Attributes:
        runtime_env: the environment.
        success: it could be made.
        creation_time_ms: how long that took.
        node_id: on which node.
        ref_cnt: tasks and actors that have it.
        error: why it could not be made.
    """

    runtime_env: dict[str, Any] = state_column(filterable=True)
    success: bool = state_column(filterable=True)
    creation_time_ms: float | None = state_column(filterable=False, format_fn=Humanify.duration)
    node_id: str = state_column(filterable=True)
    ref_cnt: int | None = state_column(detail=True, filterable=False)
    error: str | None = state_column(detail=True, filterable=True)


SCHEMAS: dict[StateResource, type[Any]] = {
    StateResource.ACTORS: ActorState,
    StateResource.JOBS: JobState,
    StateResource.PLACEMENT_GROUPS: PlacementGroupState,
    StateResource.NODES: NodeState,
    StateResource.WORKERS: WorkerState,
    StateResource.TASKS: TaskState,
    StateResource.OBJECTS: ObjectState,
    StateResource.RUNTIME_ENVS: RuntimeEnvState,
    StateResource.CLUSTER_EVENTS: ClusterEventState,
}
"""What an entry of each kind is."""

ID_COLUMNS: dict[StateResource, str] = {
    StateResource.NODES: "node_id",
    StateResource.ACTORS: "actor_id",
    StateResource.PLACEMENT_GROUPS: "placement_group_id",
    StateResource.WORKERS: "worker_id",
    StateResource.TASKS: "task_id",
    StateResource.OBJECTS: "object_id",
    StateResource.JOBS: "submission_id",
}
"""By which column one of a kind is asked for."""

OWN_COLUMNS = frozenset(("pending_reason",))
"""Columns that Ray does not have: left out for its clients, which refuse what they do not know."""


@dataclass
class ListApiResponse:
    """What a list is answered with.

    Attributes:
        total: entries there are.
        num_after_truncation: of those, how many the source has told of.
        num_filtered: of those, how many fit the filters.
        result: of those, what the limit lets through.
        partial_failure_warning: says that a source failed; "" if none did.
        warnings: what else should be known.
    """

    total: int
    num_after_truncation: int
    num_filtered: int
    result: list[dict[str, Any]]
    partial_failure_warning: str | None = ""
    warnings: list[str] | None = None

    def asdict(self) -> dict[str, Any]:
        """Return it as a dictionary."""
        return dataclasses.asdict(self)
