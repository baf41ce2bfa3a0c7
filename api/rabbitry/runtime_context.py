"""`get_runtime_context()`: where the calling code runs."""

from __future__ import annotations

import contextvars
import inspect
import json
import logging
import tempfile
import threading
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from rabbitry import by_context, current
from rabbitry.core.ports import Captured, in_no_group
from rabbitry.option_rules import deprecated
from rabbitry_broker.errors import without_password
from rabbitry_broker.messages import KIND_TASK, TaskHeader
from rabbitry_broker.queue_names import parse
from rabbitry_broker.resources import ResourceRequest

if TYPE_CHECKING:
    from rabbitry.client import Client
    from rabbitry.ids import ActorID, JobID, NodeID, PlacementGroupID, TaskID

log = logging.getLogger("rabbitry")

_OTHER_ACCELERATORS = ("FURIOSA", "HPU", "MBLT", "NPU", "RBLN", "TPU", "TTNPU", "neuron_cores")


class TaskContext:
    """What an executor knows of the code it runs."""

    __slots__ = (
        "actor",
        "actor_name",
        "bundle",
        "cancelled",
        "captures",
        "checkpoint",
        "detached",
        "exit",
        "function",
        "gpus",
        "header",
        "instance",
        "node_id",
        "reconstructed",
        "resources",
        "worker_id",
    )

    def __init__(self, node_id: bytes, worker_id: bytes, header: TaskHeader, gpus: list[str] | None) -> None:
        self.node_id = node_id
        self.worker_id = worker_id
        self.header = header
        self.gpus = gpus or []
        self.actor: Any = None
        self.actor_name: str | None = None
        self.cancelled: Any = None
        self.checkpoint: Any = None
        self.exit: Any = None  # of an actor: has it end, whatever thread says so
        self.function: Any = None
        self.instance: Any = None
        self.reconstructed = False
        self.resources = header.resources  # an actor's calls have none of their own
        self.bundle = header.bundle  # nor a place
        self.captures = header.captures
        self.detached = header.lifetime == "detached"  # of an actor


_context: TaskContext | None = None
_warning = threading.local()
task_of_call: contextvars.ContextVar[bytes | None] = contextvars.ContextVar("rabbitry_task", default=None)


def set_context(context: TaskContext | None) -> None:
    """Set by executors; drivers have none."""
    global _context
    before, _context = _context, context
    if _captured(before) != _captured(context):
        by_context.forget()


def _captured(context: TaskContext | None) -> str:
    """Return the place in a placement group that what this code submits runs in too; "" for none."""
    return context.bundle if context is not None and context.captures else ""


def current_group() -> Captured:
    """Return the placement group that the calling code runs in."""
    if _context is None or not _context.bundle:
        return in_no_group()
    return Captured(parse(_context.bundle).id, _context.captures)


def task_context() -> TaskContext | None:
    """Return the context of the running task, None in a driver."""
    return _context


class RuntimeContext:
    """Where the calling code runs: driver, task or actor. Get it with `rabbitry.get_runtime_context()`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def _in_worker(self) -> bool:
        return _context is not None

    def get_job_id(self) -> str:
        """Return the job's id in hexadecimal."""
        return self._client.job.hex()

    def get_node_id(self) -> str:
        """Return the id of the node that this code runs on (for a driver, of a node of its host)."""
        if _context is not None:
            return _context.node_id.hex()
        return self._client.home_node().hex()

    def get_worker_id(self) -> str:
        """Return the id of this process."""
        return self._client.id.ljust(28, b"\0").hex()

    def get_task_id(self) -> str | None:
        """Return the running task's id, None in a driver."""
        task = task_of_call.get() or self._client.current_task()
        if task is None:
            self._only_in_worker("task id")
            return None
        return task.hex()

    def get_task_name(self) -> str | None:
        """Return the running task's name, None in a driver."""
        if _context is None:
            self._only_in_worker("task name")
            return None
        return _context.header.name

    def get_task_function_name(self) -> str | None:
        """Return the running function's module and name, None in a driver.

        Functions of a main program have the name of its file for a module.
        """
        if _context is None:
            self._only_in_worker("function name")
            return None
        function = _context.function
        if _context.instance is not None:
            function = getattr(type(_context.instance), _context.header.method, None)
        if function is None:
            return _context.header.name
        function = inspect.unwrap(function)
        module = getattr(function, "__module__", None)
        code = getattr(function, "__code__", None)
        if module == "__main__" and code is not None:
            module = PurePath(code.co_filename).stem
        name = getattr(function, "__qualname__", _context.header.name).rpartition("<locals>.")[2]
        return f"{module}.{name}" if module else name

    def get_actor_id(self) -> str | None:
        """Return the id of the actor this code runs in, None outside one."""
        if _context is None or not _context.header.actor:
            return None
        return _context.header.actor.hex()

    def get_actor_name(self) -> str | None:
        """Return the name of the actor this code runs in ("" if it has none), None outside one."""
        if _context is None or not _context.header.actor:
            return None
        return _context.actor_name or ""

    def is_canceled(self) -> bool:
        """True if the running actor call was cancelled (for synchronous and threaded actors).

        Raises:
            RuntimeError: in a driver.
        """
        if _context is None:
            raise RuntimeError("is_canceled() is for code inside tasks and actors")
        return _context.cancelled is not None and _context.cancelled(self.get_task_id())

    def get_assigned_resources(self) -> dict[str, float]:
        """Return the resources that the running task holds.

        Raises:
            AssertionError: called in a driver.
        """
        assert _context is not None, "get_assigned_resources() is for tasks and actors, not for a driver"
        return ResourceRequest.parse(_context.resources).to_floats()

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """Return the ids of the accelerators that the running task holds, by kind. Only GPUs have any."""
        return {
            **{kind: [] for kind in _OTHER_ACCELERATORS},
            "GPU": list(_context.gpus) if _context is not None else [],
        }

    get_resource_ids = get_accelerator_ids

    def get_node_labels(self) -> dict[str, str]:
        """Return the labels of the node that this code runs on."""
        from rabbitry.cluster import node_records
        from rabbitry.nodes import labels_of

        node_id = _context.node_id if _context is not None else self._client.home_node()
        return next((labels_of(node) for node in node_records(self._client) if node["id"] == node_id), {})

    def get_session_name(self) -> str:
        """Return the name of the cluster's session on this host."""
        return f"session_{self._client.session}"

    def get_temp_dir(self) -> str:
        """Return the directory below which sessions keep their files."""
        return tempfile.gettempdir()

    @property
    def gcs_address(self) -> str:
        """The URL of the store, which holds the state of the cluster, without its password."""
        return without_password(self._client.endpoint.store_url)

    @property
    def worker(self) -> Any:
        """This process, as Ray's libraries see theirs under the alias."""
        from rabbitry.ray_alias.adapters.worker import global_worker

        return global_worker

    # -- older names ---------------------------------------------------------------------------------------------------

    def get(self) -> dict[str, Any]:
        """Return the ids of job and node and the namespace; in a task its id too, in an actor also the actor's.

        Deprecated: ask for each by its own method.
        """
        from rabbitry.ids import ActorID, JobID, NodeID, TaskID

        _old("get()", "the method for each value")
        context: dict[str, Any] = {
            "job_id": JobID(self._client.job),
            "node_id": NodeID.from_hex(self.get_node_id()),
            "namespace": self.namespace,
        }
        if _context is not None:
            task, actor = self.get_task_id(), self.get_actor_id()
            if task is not None:
                context["task_id"] = TaskID.from_hex(task)
            if actor is not None:
                context["actor_id"] = ActorID.from_hex(actor)
        return context

    @property
    def job_id(self) -> JobID:
        """The job's id. Deprecated: use `get_job_id()`."""
        from rabbitry.ids import JobID

        _old("job_id", "get_job_id()")
        return JobID(self._client.job)

    @property
    def node_id(self) -> NodeID:
        """The node's id. Deprecated: use `get_node_id()`."""
        from rabbitry.ids import NodeID

        _old("node_id", "get_node_id()")
        return NodeID.from_hex(self.get_node_id())

    @property
    def task_id(self) -> TaskID | None:
        """The running task's id. Deprecated: use `get_task_id()`.

        Raises:
            AssertionError: called in a driver.
        """
        from rabbitry.ids import TaskID

        _old("task_id", "get_task_id()")
        assert _context is not None, "task_id is for tasks and actors, not for a driver"
        task = self.get_task_id()
        return None if task is None else TaskID.from_hex(task)

    @property
    def actor_id(self) -> ActorID | None:
        """The id of the actor this code runs in; None outside one. Deprecated: use `get_actor_id()`.

        Raises:
            AssertionError: called in a driver.
        """
        from rabbitry.ids import ActorID

        _old("actor_id", "get_actor_id()")
        assert _context is not None, "actor_id is for tasks and actors, not for a driver"
        actor = self.get_actor_id()
        return None if actor is None else ActorID.from_hex(actor)

    @property
    def current_placement_group_id(self) -> PlacementGroupID:
        """The id of the group the task runs in, the nil id outside one. Deprecated: use `get_placement_group_id()`."""
        from rabbitry.ids import PlacementGroupID

        _old("current_placement_group_id", "get_placement_group_id()")
        group = current_group().group
        return PlacementGroupID(group) if group else PlacementGroupID.nil()

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether what this task submits runs in its placement group."""
        return current_group().captures

    @property
    def namespace(self) -> str:
        """The namespace of named actors."""
        return self._client.namespace

    @property
    def runtime_env(self) -> dict[str, Any]:
        """The runtime environment of the running code."""
        from rabbitry.runtime_env import RuntimeEnv

        env = dict(self._client.job_env)  # a process is in one environment: that of what it runs
        hook = env.get("worker_process_setup_hook")
        if isinstance(hook, dict):
            env["worker_process_setup_hook"] = hook.get("name", "")
        return RuntimeEnv(_validate=False, **env)

    def get_runtime_env_string(self) -> str:
        """Return `runtime_env` as JSON."""
        return json.dumps(self.runtime_env)

    @property
    def current_actor(self) -> Any:
        """A handle on the actor this code runs in.

        Raises:
            RuntimeError: not inside an actor.
        """
        if _context is None or _context.actor is None:
            raise RuntimeError("current_actor is available inside an actor only")
        return _context.actor()

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """True if the actor this code runs in was restarted.

        Raises:
            AssertionError: not inside an actor.
        """
        assert _context is not None, "was_current_actor_reconstructed is for actors, not for a driver"
        assert _context.header.kind != KIND_TASK, "was_current_actor_reconstructed is for actors, not for tasks"
        return _context.reconstructed

    def get_placement_group_id(self) -> str | None:
        """Return the id of the placement group the task runs in; None outside one."""
        return current_group().group.hex() or None

    def _only_in_worker(self, what: str) -> None:
        # In a worker there may be no task either (a thread that user code started): nothing to warn of.
        if _context is not None or getattr(_warning, "now", False):
            return
        _warning.now = True  # a filter or formatter of the user's logging may ask again
        try:
            log.warning("the %s is known inside a task only; this is a driver", what)
        finally:
            _warning.now = False


def _old(name: str, instead: str) -> None:
    deprecated(f"{name} of the runtime context is deprecated: use {instead}.")


def get_runtime_context() -> RuntimeContext:
    """Return the context of the calling code; starts a session if there is none."""
    return RuntimeContext(current.client())
