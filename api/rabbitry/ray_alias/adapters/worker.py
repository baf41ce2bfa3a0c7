"""`ray._private.worker`: the process's worker object, as Ray's libraries read it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import rabbitry
from rabbitry import current
from rabbitry.actor import get_actor, kill, method
from rabbitry.calls import cancel, get, put, wait
from rabbitry.cluster import nodes
from rabbitry.context import RabbitryContext
from rabbitry.decorator import remote
from rabbitry.experimental.locations import get_local_object_locations, get_object_locations
from rabbitry.ids import ActorID, ClusterID, JobID, NodeID, PlacementGroupID, TaskID, WorkerID
from rabbitry.object_ref import ObjectRef
from rabbitry.ray_alias.adapters.directories import session_directory
from rabbitry.ray_alias.adapters.gcs import GcsClient
from rabbitry.ray_alias.face import MODES
from rabbitry.runtime_context import get_runtime_context, task_context
from rabbitry.session import init, is_initialized, shutdown
from rabbitry.util.node_address import get_node_ip_address
from rabbitry.util.serialization import StandaloneSerializationContext

__all__ = [
    "ObjectRef",
    "cancel",
    "get",
    "get_actor",
    "init",
    "is_initialized",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "wait",
]

SCRIPT_MODE = MODES["SCRIPT_MODE"]
WORKER_MODE = MODES["WORKER_MODE"]
LOCAL_MODE = MODES["LOCAL_MODE"]
RESTORE_WORKER_MODE = MODES["RESTORE_WORKER_MODE"]
SPILL_WORKER_MODE = MODES["SPILL_WORKER_MODE"]

RayContext = BaseContext = RabbitryContext
logger = logging.getLogger("ray")
blocking_get_inside_async_warned = False
_worker_logs_enabled = True

get_gpu_ids = rabbitry.get_gpu_ids
_post_init_hooks: list[Callable[[], None]] = rabbitry.session.after_init


class Node:
    """This process's node and session: addresses and directories."""

    max_bytes = 512 * 1024 * 1024
    backup_count = 5
    head = True
    webui_url = ""

    @property
    def session_name(self) -> str:
        """Name of the cluster's session on this host."""
        return get_runtime_context().get_session_name()

    @property
    def unique_id(self) -> str:
        """Id of the node that this process runs on, in hexadecimal."""
        return get_runtime_context().get_node_id()

    node_id = unique_id

    @property
    def address(self) -> str:
        """The store's address."""
        return get_runtime_context().gcs_address

    gcs_address = address

    @property
    def node_ip_address(self) -> str:
        """The address by which others reach this host."""
        return get_node_ip_address()

    raylet_ip_address = node_ip_address

    @property
    def cluster_id(self) -> ClusterID:
        """An id of the cluster."""
        return GcsClient().cluster_id

    @property
    def address_info(self) -> dict[str, Any]:
        """Addresses, by the names that Ray gives them."""
        return {
            "node_ip_address": self.node_ip_address,
            "raylet_ip_address": self.node_ip_address,
            "gcs_address": self.address,
            "address": self.address,
            "session_dir": self.get_session_dir_path(),
            "node_id": self.unique_id,
        }

    def get_session_dir_path(self) -> str:
        """Return the session's directory."""
        return session_directory(current.client().session)

    def get_logs_dir_path(self) -> str:
        """Return the session's directory for logs."""
        return session_directory(current.client().session, "logs")

    def get_temp_dir_path(self) -> str:
        """Return the directory below which sessions keep their files."""
        return os.path.dirname(self.get_session_dir_path())

    def get_runtime_env_dir_path(self) -> str:
        """Return the session's directory for what environments bring."""
        return session_directory(current.client().session, "runtime_resources")


_node = Node()


class CoreWorker:
    """What Ray's libraries ask of its compiled core."""

    def get_object_locations(self, refs: Sequence[ObjectRef[Any]], timeout_ms: int = -1) -> dict[ObjectRef[Any], Any]:
        """Return where objects are; see `rabbitry.experimental.get_object_locations`."""
        return get_object_locations(list(refs), timeout_ms)

    def get_local_object_locations(self, refs: Sequence[ObjectRef[Any]]) -> dict[ObjectRef[Any], Any]:
        """Return what this process knows of where objects are."""
        return get_local_object_locations(list(refs))

    def add_object_out_of_scope_callback(self, ref: ObjectRef[Any], callback: Callable[[bytes], None]) -> bool:
        """Call `callback(id)` when the last handle here is gone; False if the object is not this process's own."""
        return current.client().lifetimes.on_last_handle_gone(ref._id, callback)

    def get_local_memory_store_bytes_used(self) -> int:
        """Return how many bytes of small results this process holds."""
        return sum(map(len, list(current.client().inbox.values.values())))

    def get_disable_job_level_lineage_reconstruction(self) -> bool:
        """Return True: results are kept, and are not computed anew."""
        return True

    def get_local_ongoing_lineage_reconstruction_tasks(self) -> Sequence[tuple[Any, int]]:
        """Return nothing; see above."""
        return ()

    def get_current_task_id(self) -> TaskID:
        """Return the id of the running task."""
        return global_worker.current_task_id

    def get_worker_id(self) -> WorkerID:
        """Return the id of this process."""
        return WorkerID(global_worker.worker_id)


class Worker:
    """This process, seen as Ray's libraries see theirs."""

    debugger_breakpoint = b""
    ray_debugger_external = False
    load_code_from_local = False
    job_logging_config = None
    _filter_logs_by_job = True

    def __init__(self) -> None:
        self.core_worker = CoreWorker()

    @property
    def connected(self) -> bool:
        """True while there is a session."""
        return is_initialized()

    @property
    def mode(self) -> int | None:
        """WORKER_MODE in tasks and actors, SCRIPT_MODE in a driver, None without a session."""
        if not is_initialized():
            return None
        return SCRIPT_MODE if task_context() is None else WORKER_MODE

    @property
    def node(self) -> Node:
        """The node of this process."""
        return _node

    @property
    def gcs_client(self) -> GcsClient:
        """Reads and writes the cluster's key-value store."""
        return GcsClient()

    @property
    def current_job_id(self) -> JobID:
        """The job's id."""
        return JobID.from_hex(get_runtime_context().get_job_id())

    @property
    def worker_id(self) -> bytes:
        """The id of this process."""
        return bytes.fromhex(get_runtime_context().get_worker_id())

    @property
    def current_node_id(self) -> NodeID:
        """The id of the node that this process runs on."""
        return NodeID.from_hex(get_runtime_context().get_node_id())

    @property
    def actor_id(self) -> ActorID:
        """The id of the actor that this process hosts; the nil id in others."""
        actor = get_runtime_context().get_actor_id() if task_context() is not None else None
        return ActorID.from_hex(actor) if actor else ActorID.nil()

    @property
    def current_task_id(self) -> TaskID:
        """The id of the running task; the nil id in a driver."""
        task = get_runtime_context().get_task_id() if task_context() is not None else None
        return TaskID.from_hex(task) if task else TaskID.nil()

    @property
    def placement_group_id(self) -> PlacementGroupID:
        """The id of the placement group that this code runs in; the nil id outside one."""
        group = get_runtime_context().get_placement_group_id()
        return PlacementGroupID.from_hex(group) if group else PlacementGroupID.nil()

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether what this code submits runs in its placement group."""
        return get_runtime_context().should_capture_child_tasks_in_placement_group

    @property
    def namespace(self) -> str:
        """The namespace of named actors."""
        return get_runtime_context().namespace

    @property
    def runtime_env(self) -> Any:
        """The runtime environment of the running code."""
        return get_runtime_context().runtime_env

    @property
    def node_ip_address(self) -> str:
        """The address by which others reach this host."""
        return get_node_ip_address()

    def get_serialization_context(self) -> StandaloneSerializationContext:
        """Return what registers serialisers and serialises values."""
        return StandaloneSerializationContext()

    def check_connected(self) -> None:
        """Start a session if there is none."""
        if not is_initialized():
            init()

    def get_accelerator_ids_for_accelerator_resource(self, resource_name: str, resource_regex: str) -> list[str]:
        """Return the ids of the accelerators of one kind that the running task holds."""
        return list(get_runtime_context().get_accelerator_ids().get(resource_name, []))


global_worker = Worker()


def _mode(worker: Worker = global_worker) -> int | None:
    """Return the mode of this process."""
    return worker.mode


def get_dashboard_url() -> str:
    """Return where the session's dashboard is, "" if it has none."""
    session = rabbitry.session.context()
    return str(session.dashboard_url or "") if session is not None else ""


def print_worker_logs(data: dict[str, Any], print_file: Any) -> None:
    """Print lines as the driver prints what its tasks print."""
    for line in data.get("lines", ()):
        print(line, file=print_file)


def _initialize_global_worker(*_: Any) -> Any:
    """Say that sessions begin by `init` alone.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError("a session begins by ray.init()")


def __getattr__(name: str) -> Any:
    if name == "_global_node":
        return _node if is_initialized() else None
    raise AttributeError(f"rabbitry has no counterpart of ray._private.worker.{name}", name=name)
