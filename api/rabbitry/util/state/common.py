"""What the state API takes and returns, under the name of Ray's module; see `rabbitry.state.schemas`."""

from typing import Any, Final

from rabbitry.state.schemas import (
    DEFAULT_LIMIT,
    DEFAULT_LOG_LIMIT,
    DEFAULT_RPC_TIMEOUT,
    DRIVER_TASK_ID_PREFIX,
    RAY_MAX_LIMIT_FROM_API_SERVER,
    RAY_MAX_LIMIT_FROM_DATA_SOURCE,
    ActorState,
    ClusterEventState,
    GetApiOptions,
    Humanify,
    JobState,
    ListApiOptions,
    ListApiResponse,
    NodeState,
    ObjectState,
    PlacementGroupState,
    PredicateType,
    RuntimeEnvState,
    StateResource,
    StateSchema,
    SummaryApiOptions,
    SummaryResource,
    SupportedFilterType,
    TaskState,
    WorkerState,
    state_column,
)
from rabbitry.util.state.exception import RayStateApiException

__all__ = [
    "DEFAULT_LIMIT",
    "DEFAULT_LOG_LIMIT",
    "DEFAULT_RPC_TIMEOUT",
    "DRIVER_TASK_ID_PREFIX",
    "RAY_MAX_LIMIT_FROM_API_SERVER",
    "RAY_MAX_LIMIT_FROM_DATA_SOURCE",
    "ActorState",
    "ClusterEventState",
    "GetApiOptions",
    "Humanify",
    "JobState",
    "ListApiOptions",
    "ListApiResponse",
    "NodeState",
    "ObjectState",
    "PlacementGroupState",
    "PredicateType",
    "RuntimeEnvState",
    "StateResource",
    "StateSchema",
    "SummaryApiOptions",
    "SummaryResource",
    "SupportedFilterType",
    "TaskState",
    "WorkerState",
    "dict_to_state",
    "resource_to_schema",
    "state_column",
]

_SCHEMAS: Final[dict[StateResource, Any]] = {
    StateResource.ACTORS: ActorState,
    StateResource.CLUSTER_EVENTS: ClusterEventState,
    StateResource.JOBS: JobState,
    StateResource.NODES: NodeState,
    StateResource.OBJECTS: ObjectState,
    StateResource.PLACEMENT_GROUPS: PlacementGroupState,
    StateResource.RUNTIME_ENVS: RuntimeEnvState,
    StateResource.TASKS: TaskState,
    StateResource.WORKERS: WorkerState,
}


def resource_to_schema(resource: StateResource) -> Any:
    """Return the class whose instances describe what is listed.

    >>> resource_to_schema(StateResource.TASKS).__name__
    'TaskState'
    """
    return _SCHEMAS[resource]


def dict_to_state(d: dict[str, Any], state_resource: StateResource) -> Any:
    """Return a row of the state API as an object.

    Args:
        d: the row.
        state_resource: of what.

    Raises:
        RayStateApiException: its fields are not those of such rows.
    """
    try:
        return resource_to_schema(state_resource)(**d)
    except TypeError as error:
        raise RayStateApiException(f"this is no row of {state_resource.value}: {error}") from error
