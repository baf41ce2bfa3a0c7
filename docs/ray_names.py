"""The public names of Ray Core 2.x, and what has to be said of those that are different here.

Whether a name is there is asked of our modules when the page is made (`docs.tables.ray_table`).
"""

from __future__ import annotations

from typing import Final

_PLACED: Final = (
    "num_cpus", "num_gpus", "memory", "object_store_memory", "resources", "accelerator_type", "label_selector",
    "fallback_strategy", "scheduling_strategy", "placement_group", "placement_group_bundle_index",
    "placement_group_capture_child_tasks", "runtime_env", "enable_task_events", "name",
)  # fmt: skip

NAMES: Final[dict[str, tuple[str, ...]]] = {
    "ray": (
        "init", "shutdown", "is_initialized", "remote", "get", "put", "wait", "cancel", "kill", "method", "get_actor",
        "get_gpu_ids", "get_runtime_context", "nodes", "cluster_resources", "available_resources", "timeline",
        "ObjectRef", "ObjectRefGenerator", "DynamicObjectRefGenerator", "ObjectID", "ActorID", "ActorClassID",
        "FunctionID", "JobID", "NodeID", "PlacementGroupID", "TaskID", "UniqueID", "WorkerID", "LoggingConfig",
        "ClientBuilder", "client", "Language", "cpp_function", "java_function", "java_actor_class", "SCRIPT_MODE",
        "WORKER_MODE", "autoscaler", "data", "serve", "train", "tune", "rllib", "workflow", "dag", "widgets",
    ),
    "ray.util": (
        "ActorPool", "as_completed", "map_unordered", "list_named_actors", "inspect_serializability",
        "register_serializer", "deregister_serializer", "get_node_ip_address", "get_node_instance_id", "log_once",
        "disable_log_once_globally", "enable_periodic_logging", "accelerators", "placement_group",
        "get_placement_group", "get_current_placement_group", "remove_placement_group", "placement_group_table",
        "collective", "connect", "disconnect", "iter", "pdb", "ray_debugpy",
    ),
    "Modules": (
        "ray.actor", "ray.autoscaler.sdk", "ray.cluster_utils", "ray.cloudpickle", "ray.dag", "ray.exceptions",
        "ray.job_config", "ray.job_submission", "ray.remote_function", "ray.runtime_context", "ray.runtime_env",
        "ray.types", "ray.util.accelerators", "ray.util.actor_pool", "ray.util.collective", "ray.util.dask",
        "ray.util.joblib", "ray.util.metrics", "ray.util.multiprocessing", "ray.util.placement_group",
        "ray.util.queue", "ray.util.scheduling_strategies", "ray.util.spark", "ray.util.state", "ray.util.tracing",
        "ray.dashboard", "ray.experimental", "ray.data", "ray.train", "ray.tune", "ray.serve", "ray.rllib",
        "ray.workflow", "ray.llm",
    ),
    "ray.init": (
        "address", "num_cpus", "num_gpus", "resources", "labels", "object_store_memory", "local_mode",
        "ignore_reinit_error", "include_dashboard", "dashboard_host", "dashboard_port", "job_config",
        "configure_logging", "logging_level", "logging_format", "logging_config", "log_to_driver", "namespace",
        "runtime_env", "enable_resource_isolation", "cgroup_path", "system_reserved_cpu", "system_reserved_memory",
    ),
    "Options of tasks": (
        *_PLACED, "num_returns", "max_retries", "retry_exceptions", "max_calls",
        "_generator_backpressure_num_objects", "_num_objects_per_yield", "_labels",
    ),
    "Options of actors": (
        *_PLACED, "namespace", "lifetime", "get_if_exists", "max_restarts", "max_task_retries", "max_concurrency",
        "max_pending_calls", "concurrency_groups", "allow_out_of_order_execution", "enable_tensor_transport",
        "_actor_generator_backpressure_num_objects", "_labels",
    ),
    "runtime_env": (
        "env_vars", "working_dir", "py_modules", "excludes", "pip", "uv", "conda", "py_executable", "container",
        "image_uri", "worker_process_setup_hook", "config", "java_jars", "nsight", "rocprof_sys",
    ),
    "ray.get_runtime_context()": (
        "get_job_id", "get_node_id", "get_worker_id", "get_task_id", "get_task_name", "get_task_function_name",
        "get_actor_id", "get_actor_name", "get_assigned_resources", "get_accelerator_ids", "get_node_labels",
        "get_placement_group_id", "get_runtime_env_string", "get_session_name", "get_temp_dir", "get_resource_ids",
        "is_canceled", "current_actor", "was_current_actor_reconstructed", "namespace", "runtime_env", "gcs_address",
    ),
    "ray.util.scheduling_strategies": (
        "NodeAffinitySchedulingStrategy", "NodeLabelSchedulingStrategy", "PlacementGroupSchedulingStrategy", "In",
        "NotIn", "Exists", "DoesNotExist",
    ),
    "ray.util.placement_group": (
        "PlacementGroup", "placement_group", "get_placement_group", "get_current_placement_group",
        "remove_placement_group", "placement_group_table",
    ),
    "ray.util.state": (
        "get_actor", "get_job", "get_log", "get_node", "get_objects", "get_placement_group", "get_task", "get_worker",
        "list_actors", "list_cluster_events", "list_jobs", "list_logs", "list_nodes", "list_objects",
        "list_placement_groups", "list_runtime_envs", "list_tasks", "list_workers", "summarize_actors",
        "summarize_objects", "summarize_tasks", "StateApiClient",
    ),
    "ray.util.metrics": ("Counter", "Gauge", "Histogram"),
    "ray.job_submission": (
        "JobSubmissionClient", "JobStatus", "JobErrorType", "JobInfo", "JobDetails", "DriverInfo", "JobType",
    ),
    "ray.exceptions": (
        "RayError", "RayTaskError", "RayActorError", "RaySystemError", "ActorAlreadyExistsError", "ActorDiedError",
        "ActorHandleNotFoundError", "ActorPlacementGroupRemoved", "ActorUnavailableError", "ActorUnschedulableError",
        "AsyncioActorExit", "AuthenticationError", "CrossLanguageError", "GetTimeoutError", "LocalRayletDiedError",
        "NodeDiedError", "ObjectFetchTimedOutError", "ObjectFreedError", "ObjectLostError",
        "ObjectReconstructionFailedError", "ObjectRefStreamEndOfStreamError", "ObjectStoreFullError",
        "OutOfDiskError", "OutOfMemoryError", "OwnerDiedError", "PendingCallsLimitExceeded",
        "PlasmaObjectNotAvailable", "RayCgraphCapacityExceeded", "RayChannelError", "RayChannelTimeoutError",
        "RayDirectTransportError", "ReferenceCountingAssertionError", "RpcError", "RuntimeEnvSetupError",
        "StreamingGeneratorReplayInconsistentError", "TaskCancelledError", "TaskPlacementGroupRemoved",
        "TaskUnschedulableError", "UnserializableException", "UserCodeException", "WorkerCrashedError",
    ),
}  # fmt: skip
"""Group to names."""

NOTES: Final[dict[tuple[str, str], str]] = {
    ("ray", "get"): "also takes `progress=True`, which shows a bar",
    ("ray", "nodes"): "ports and sockets of Ray's own processes are 0 and empty",
    ("ray", "autoscaler"): "`sdk.request_resources`, for `rabbitry autoscale`",
    ("ray.init", "address"): "`amqp://...` (with `store=`), `auto`, `local` or `unix:///...`; not `ray://`",
    ("ray.init", "local_mode"): "must be False, as in current versions of Ray",
    ("ray.util", "connect"): "refused: `init(address=...)` connects from anywhere that reaches the servers",
    ("ray.util", "disconnect"): "does nothing: `shutdown()` ends a session",
    ("Options of tasks", "memory"): "admits, and does not limit; `RABBITRY_EXECUTOR_MEMORY_LIMIT` limits",
    ("Options of actors", "memory"): "admits, and does not limit; `RABBITRY_EXECUTOR_MEMORY_LIMIT` limits",
    ("Options of tasks", "placement_group"): "deprecated, as in Ray: use `scheduling_strategy`",
    ("Options of actors", "placement_group"): "deprecated, as in Ray: use `scheduling_strategy`",
    ("Options of tasks", "object_store_memory"): "refused, as Ray does for tasks",
    ("Options of actors", "object_store_memory"): "accepted, without effect",
    ("Options of actors", "enable_tensor_transport"): "accepted: tensors travel by the object store",
}
"""(group, name) to how it differs."""

_WHEEL: Final = "Ray's own, under the alias"

INSTEAD: Final[dict[str, str]] = {
    **dict.fromkeys(("data", "serve", "train", "tune", "rllib", "widgets"), _WHEEL),
    **dict.fromkeys(("ray.data", "ray.serve", "ray.train", "ray.tune", "ray.rllib"), _WHEEL),
    "ray.types": _WHEEL,
    **dict.fromkeys(("workflow", "ray.workflow"), "gone from Ray too, after 2.47"),
    **dict.fromkeys(("nsight", "rocprof_sys"), "refused: nodes start no profiler"),
    "ray.llm": "does not run, not under the alias either",
    "ray.dashboard": "a service: `rabbitry dashboard`, or `init(include_dashboard=True)`",
    "ray.util.spark": "start nodes with `rabbitry start`",
    "Language": "under the alias; nodes run Python only",
    "cpp_function": "nodes run Python only",
    "java_function": "nodes run Python only",
    "java_actor_class": "nodes run Python only",
    "java_jars": "nodes run Python only",
    "SCRIPT_MODE": "under the alias",
    "WORKER_MODE": "under the alias",
}
"""Name that is not there to what to do without it."""
