"""`get_runtime_context()`: where the calling code runs."""

from __future__ import annotations

import contextvars
import inspect
import json
import logging
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from warren import current
from warren_broker.messages import KIND_TASK, TaskHeader
from warren_broker.resources import ResourceRequest

if TYPE_CHECKING:
    from warren.client import Client

log = logging.getLogger("warren")


class TaskContext:
    """What an executor knows of the code it runs."""

    __slots__ = (
        "actor",
        "actor_name",
        "cancelled",
        "checkpoint",
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
        self.function: Any = None
        self.instance: Any = None
        self.reconstructed = False
        self.resources = header.resources  # an actor's calls have none of their own


_context: TaskContext | None = None
task_of_call: contextvars.ContextVar[bytes | None] = contextvars.ContextVar("warren_task", default=None)


def set_context(context: TaskContext | None) -> None:
    """Set by executors; drivers have none."""
    global _context
    _context = context


def task_context() -> TaskContext | None:
    """Return the context of the running task, None in a driver."""
    return _context


class RuntimeContext:
    """Where the calling code runs: driver, task or actor. Get it with `warren.get_runtime_context()`."""

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
        name = getattr(function, "__qualname__", _context.header.name)
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
        """Return the ids of the accelerators that the running task holds, by kind."""
        return {"GPU": list(_context.gpus) if _context is not None else []}

    get_resource_ids = get_accelerator_ids

    @property
    def namespace(self) -> str:
        """The namespace of named actors."""
        return self._client.namespace

    @property
    def runtime_env(self) -> dict[str, Any]:
        """The runtime environment of the running code."""
        variables = self._client.job_env
        if _context is not None and _context.header.env:
            variables = json.loads(_context.header.env)
        return {"env_vars": dict(variables)} if variables else {}

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
        return None

    def _only_in_worker(self, what: str) -> None:
        log.warning("the %s is known inside a task only; this is a driver", what)


def get_runtime_context() -> RuntimeContext:
    """Return the context of the calling code; starts a session if there is none."""
    return RuntimeContext(current.client())
