"""Names that nothing in this tree uses, and why they stay: what `make lint` (vulture) is told not to report.

Each name stands with who uses it. What nobody uses is removed, not listed.
"""

# Ray's public face, which programs of users call or pass; what has no meaning here is accepted and ignored.
ActorProxy
_._default_options
_._generator_ref
_._next_sync
_._on_completed
_._default_actor_lifetime
_._in_worker
_.asend
_.athrow
_.aclose
_.unique_id
_.gcs_address
_.head_node
_.worker_nodes
_.ray_version
_.ray_commit
_.from_task_error
_.tensor_transport
_.get_temp_dir
_.get_runtime_env_string
get_resource_ids
enable_task_events
placement_group_capture_child_tasks
logging_config
enable_resource_isolation
cgroup_path
system_reserved_cpu
system_reserved_memory
wait_for_processes
disable_log_once_globally
enable_periodic_logging
object_spilling_directory
proxy_server_url

# The same of `ray.dag`, `ray.experimental`, `ray.util.collective`, `ray.util.iter` and `ray.util.timer`.
UNRECOGNIZED
_._devices
_._get_toplevel_child_nodes
_.apply_functional
_.apply_recursive
_.class_method_call
_.clear_cache
_.get_other_args_to_resolve
_.get_result_type
_.has_units_processed
_.mean_throughput
_.mean_units_processed
_.output_idx
_.persistent_id
_.persistent_load
_.push_units_processed
_.reduceOp
_.rootRank
_.rootTensor
allgather_options
dst_gpu_index
n_elements
root_tensor
src_gpu_index
_.save
_.total_time
_.with_tensor_transport
_internal_kv_reset
buffer_size_bytes
cupy_available
submit_timeout
teardown_timeout
breakpoint_uuid

# The same of `ray.util.dask`.
_._ray_postsubmit_all
use_shuffle_optimization

# Python's own protocols: importers, copies, `reprlib`, queues of asyncio.
_._init
_.create_module
_.exec_module
memo
_.maxother
_.maxstring

# OpenTelemetry's entry point, and Ray's name of a hook.
RabbitryInstrumentor
_.instrumentation_dependencies
_._instrument
_._uninstrument
setup_tracing

# joblib's backends.
supports_retrieve_callback
default_n_jobs
prefer
_.retrieve_result_callback
_.abort_everything

# pika's parameters, and what its connection calls when it is closed.
_.connection_attempts
_.socket_timeout
_.stack_timeout
_.client_properties
_._close_channels

# The same of `ray.job_submission`.
_.get_version
RUNTIME_ENV_SETUP_FAILURE
JOB_SUPERVISOR_ACTOR_START_TIMEOUT
JOB_SUPERVISOR_ACTOR_START_FAILURE
JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE
JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE
JOB_SUPERVISOR_ACTOR_DIED
JOB_ENTRYPOINT_COMMAND_START_ERROR
JOB_ENTRYPOINT_COMMAND_ERROR
driver_agent_http_address

# uvicorn's server.
_.should_exit

# Part of what a queue's name says.
bundle_index

# Called by argparse.
_._check_value
# Called by pdb and cmd, and by Python at `breakpoint()`.
_.use_rawinput
_.prompt
do_c
do_cont
_.do_EOF
do_exit
do_q
_.breakpointhook

# Asked for by Ray's own libraries, under the alias.
_pin_runtime_env_uri
expiration_s
internal_kv_get_gcs_client
PUBLIC_API
DEVELOPER_API
DEPRECATED
_mark_annotated
_is_ray_debugger_post_mortem_enabled
_.total_bytes
_._register_cloudpickle_serializer
_._register_cloudpickle_reducer
_._unregister_cloudpickle_reducer

# Used by the adapters of the alias.
_.on_last_handle_gone
RESERVED_PREFIX
_.inject_current_context
