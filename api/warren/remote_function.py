"""`@remote` on functions: `f.remote(...)`, `f.options(...)`."""

from __future__ import annotations

import functools
import inspect
import json
import pickle
from collections.abc import Callable
from typing import Any, NoReturn

from warren import current
from warren.client import Client
from warren.options import TaskOptions
from warren.signature import Signature
from warren.submit import Plan
from warren_broker.functions import export
from warren_broker.messages import DYNAMIC, STREAMING, TaskHeader
from warren_broker.queues import names
from warren_broker.resources import ResourceRequest
from warren_broker.serialization import note_ref


class RemoteFunction:
    """A function that runs as a task: `f.remote(*args)` submits it and returns at once.

    Made by `@warren.remote`. It may be pickled and used inside tasks, its own among them.
    """

    def __init__(self, function: Callable[..., Any], options: TaskOptions) -> None:
        self._function = function
        self._options = options.for_function(function)
        self._signature = Signature(function)
        self._plan: Plan | None = None
        self._plan_client: Client | None = None
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        name = self._function.__name__
        raise TypeError(
            f"Remote functions cannot be called directly. Instead of running '{name}()', try '{name}.remote()'."
        )

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Submit the task; return its ref (a list for num_returns > 1, None for 0, a generator for streams).

        Raises:
            TypeError: the arguments do not fit the function's signature, or cannot be pickled.
        """
        client = current._client
        if client is None:
            client = current.client()
        signature = self._signature
        if kwargs or not signature.low <= len(args) <= signature.high:
            signature.check(args, kwargs)
        plan = self._plan
        if plan is None or self._plan_client is not client:
            plan = self._make_plan(client)
        return client.submit(plan, args, kwargs)

    def options(self, **options: Any) -> RemoteFunction:
        """Return this function with other options for the calls made through it; see `warren.remote`.

        Raises:
            ValueError: an unknown option, a bad value, or `max_calls` (which belongs to the decorator).
            TypeError: a value of the wrong type.
        """
        return RemoteFunction(self._function, self._options.merged(**options))

    def _remote(
        self, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None, **options: Any
    ) -> Any:
        """Submit with options for this call; libraries written for Ray use it."""
        function = self.options(**options) if options else self
        return function.remote(*(args or ()), **(kwargs or {}))

    @property
    def _default_options(self) -> dict[str, Any]:
        return self._options.given()

    def _make_plan(self, client: Client) -> Plan:
        # Set before the export: a recursive function pickles a wrapper of itself on the way.
        options = self._options
        digest, pickled = export(self._function)
        client.export(digest, pickled)
        plan = plan_for(client, digest, self._function, options)
        client.plans.setdefault(digest, []).append(plan)
        self._plan, self._plan_client = plan, client
        return plan

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFunction, (self._function, self._options)

    def __repr__(self) -> str:
        return f"RemoteFunction({self._function.__module__}.{self._function.__qualname__})"


def returns_code(num_returns: int | str) -> int:
    """Return `num_returns` as it stands in a header."""
    if num_returns == "streaming":
        return STREAMING
    if num_returns == "dynamic":
        return DYNAMIC
    return int(num_returns)


def retry_code(retry_exceptions: Any) -> bytes:
    """Return `retry_exceptions` as it stands in a header."""
    if retry_exceptions is True:
        return b"*"
    if not retry_exceptions:
        return b""
    import cloudpickle

    return bytes(cloudpickle.dumps(tuple(retry_exceptions), pickle.HIGHEST_PROTOCOL))


def env_code(client: Client, runtime_env: Any) -> bytes:
    """Return the environment variables of a task as they stand in a header: the job's, then its own."""
    variables = dict(client.job_env)
    if runtime_env:
        variables.update(runtime_env.get("env_vars") or {})
    return json.dumps(variables, sort_keys=True).encode() if variables else b""


def plan_for(client: Client, digest: bytes, function: Callable[..., Any], options: TaskOptions) -> Plan:
    """Return the plan of a function's calls with these options."""
    request = ResourceRequest.from_floats(options.resource_request())
    queue, single = placement(options, request)
    header = TaskHeader(
        function=digest,
        name=options.name or getattr(function, "__qualname__", None) or type(function).__name__,
        owner=client.id,
        job=client.job,
        resources=request.class_name,
        num_returns=returns_code(options.num_returns if options.num_returns is not None else 1),
        max_retries=options.max_retries,
        retry_exceptions=retry_code(options.retry_exceptions),
        retry_delay=options.retry_delay,
        max_calls=options.max_calls,
        priority=options.priority,
        env=env_code(client, options.runtime_env),
        lifetime=options.lifetime or "",
        backpressure=max(0, options.generator_backpressure or 0),
        namespace=client.namespace,
    )
    return Plan(header, queue, single=single)


def placement(options: Any, request: ResourceRequest) -> tuple[str, bool]:
    """Return (queue, one task a message) for a resource request under a scheduling strategy."""
    strategy = options.scheduling_strategy
    if strategy is None or strategy == "DEFAULT":
        return names.task_queue(request.class_name, options.label_selector), False
    if strategy == "SPREAD":
        return names.task_queue(request.class_name, options.label_selector), True
    node = getattr(strategy, "node_id", None)
    if node is not None and not strategy.soft:
        return names.node_queue(bytes.fromhex(node)), False
    return names.task_queue(request.class_name, options.label_selector), False


def is_generator(function: Callable[..., Any]) -> bool:
    """True if calling it makes a generator, asynchronous or not."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


__all__ = ["RemoteFunction", "note_ref", "plan_for"]
