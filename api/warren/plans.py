"""From options to plans: what a function's or method's calls carry in their header, and which queue they take."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from warren.routes import Bound, Spread
from warren.submit import Plan
from warren_broker.messages import (
    DYNAMIC,
    STREAMING,
    TaskHeader,
)
from warren_broker.queues import names
from warren_broker.resources import ResourceRequest

if TYPE_CHECKING:
    from warren.client import Client
    from warren.options import TaskOptions


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
    place = placement(client, options, request)
    client.queues_used.add(place.queue)
    if options.priority:
        client.store.announce_priorities(place.queue)
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
        elsewhere=place.elsewhere,
        impatient=place.impatient,
    )
    return Plan(header, place.queue, single=isinstance(place.route, Spread), route=place.route)


class Placement(NamedTuple):
    """Where the tasks of a plan go.

    Attributes:
        queue: the queue they go to.
        elsewhere: as `TaskHeader.elsewhere`.
        impatient: as `TaskHeader.impatient`.
        route: decides for each message instead of `queue`; None if all go there.
    """

    queue: str
    elsewhere: str = ""
    impatient: bool = False
    route: Bound | Spread | None = None

    def next_queue(self) -> str:
        """Return the queue of the next message."""
        return self.route.next_queue() if self.route is not None else self.queue


def placement(client: Client, options: Any, request: ResourceRequest) -> Placement:
    """Return where tasks with a resource request go under their scheduling strategy."""
    strategy = options.scheduling_strategy
    selector = _selector(client, options, request)
    queue = names.task_queue(request.class_name, selector)
    node = getattr(strategy, "node_id", None)
    if node is not None:
        elsewhere = queue if strategy.soft else ""
        impatient = strategy._spill_on_unavailable or strategy._fail_on_unavailable
        node_id = bytes.fromhex(node)
        return Placement(names.node_queue(node_id), elsewhere, impatient, Bound(client, node_id, elsewhere))
    if strategy == "SPREAD":
        return Placement(queue, queue, True, Spread(client, request, selector, queue))
    return Placement(queue)


def _selector(client: Client, options: Any, request: ResourceRequest) -> str:
    """Return the label selector to use: of those that would do, the first that some living node satisfies now."""
    wanted: str = options.label_selector
    preferred = [wanted]
    soft = getattr(options.scheduling_strategy, "soft_selector", None)
    if soft is not None and soft():
        preferred.insert(0, ";".join(sorted({*wanted.split(";"), *soft().split(";")} - {""})))
    preferred += options.fallback_strategy
    if len(preferred) == 1:
        return wanted
    from warren.cluster import could_run, node_records

    living = [node for node in node_records(client) if node["alive"]]
    for selector in preferred:
        if any(could_run(node, request, selector) for node in living):
            return selector
    return wanted
