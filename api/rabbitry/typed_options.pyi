"""The options that `@remote`, `@method` and `.options()` take, for type checkers alone.

`rabbitry.option_rules` says which there are, `rabbitry.option_checks` what each may be. `num_returns` is missing here:
what a call returns depends on it, so it stands in the overloads.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

from rabbitry.scheduling import (
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

Strategy: TypeAlias = (
    Literal["DEFAULT", "SPREAD"]
    | NodeAffinitySchedulingStrategy
    | NodeLabelSchedulingStrategy
    | PlacementGroupSchedulingStrategy
    | None
)
RetryExceptions: TypeAlias = bool | Sequence[type[Exception]]

class PlacedOptions(TypedDict, total=False):
    """Of tasks and actors alike."""

    num_cpus: float | None
    num_gpus: float | None
    memory: float | None
    resources: Mapping[str, float] | None
    accelerator_type: str | None
    label_selector: Mapping[str, str] | None
    fallback_strategy: Sequence[Mapping[str, Any]] | None
    scheduling_strategy: Strategy
    placement_group: Any
    placement_group_bundle_index: int
    placement_group_capture_child_tasks: bool | None
    runtime_env: Mapping[str, Any] | None
    enable_task_events: bool
    name: str | None
    lifetime: Literal["detached", "non_detached"] | None
    _labels: Mapping[str, str] | None

class TaskCallOptions(PlacedOptions, total=False):
    """Of `f.options()`."""

    max_retries: int | None
    retry_exceptions: RetryExceptions
    retry_delay: float
    priority: int
    object_store_memory: None
    _generator_backpressure_num_objects: int | None

class TaskOptions(TaskCallOptions, total=False):
    """Of `@remote` on functions."""

    max_calls: int | None
    _num_objects_per_yield: int | None

class ActorCallOptions(PlacedOptions, total=False):
    """Of `A.options()`."""

    namespace: str | None
    get_if_exists: bool
    object_store_memory: int | None
    max_restarts: int | None
    max_task_retries: int | None
    max_concurrency: int | None
    max_pending_calls: int | None
    allow_out_of_order_execution: bool | None
    durable: bool | Literal["explicit"]
    durable_replicas: int
    enable_tensor_transport: bool | None
    _actor_generator_backpressure_num_objects: int | None

class ActorOptions(ActorCallOptions, total=False):
    """Of `@remote` on classes."""

    concurrency_groups: Mapping[str, int] | None

class MethodOptions(TypedDict, total=False):
    """Of `@method`."""

    max_task_retries: int | None
    retry_exceptions: RetryExceptions | None
    concurrency_group: str | None
    enable_task_events: bool | None
    tensor_transport: str | None
    _generator_backpressure_num_objects: int | None
    _num_objects_per_yield: int | None

class MethodCallOptions(TypedDict, total=False):
    """Of `handle.method.options()`."""

    max_task_retries: int | None
    retry_exceptions: RetryExceptions | None
    concurrency_group: str | None
    enable_task_events: bool | None
    tensor_transport: str | None
    name: str | None
    _generator_backpressure_num_objects: int | None
    _labels: Mapping[str, str] | None
