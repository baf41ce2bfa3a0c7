"""From options to plans: what a function's or method's calls carry in their header, and which queue they take."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from warren.submit import Plan
from warren_broker.messages import (
    AFFINITY_HARD,
    AFFINITY_HARD_NOW,
    AFFINITY_SOFT,
    AFFINITY_SOFT_NOW,
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
    queue, single = placement(client, options, request)
    client.queues_used.add(queue)
    if options.priority:
        client.store.announce_priorities(queue)
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
        affinity=affinity_code(options),
    )
    return Plan(header, queue, single=single)


def affinity_code(options: Any) -> int:
    """Return what becomes of tasks for one node if it cannot run them, as it stands in a header."""
    strategy = options.scheduling_strategy
    if getattr(strategy, "node_id", None) is None:
        return AFFINITY_HARD
    if strategy.soft:
        return AFFINITY_SOFT_NOW if strategy._spill_on_unavailable else AFFINITY_SOFT
    return AFFINITY_HARD_NOW if strategy._fail_on_unavailable else AFFINITY_HARD


def placement(client: Client, options: Any, request: ResourceRequest) -> tuple[str, bool]:
    """Return (queue, one task a message) for a resource request under a scheduling strategy."""
    strategy = options.scheduling_strategy
    node = getattr(strategy, "node_id", None)
    if node is not None:
        return names.node_queue(bytes.fromhex(node)), False
    return names.task_queue(request.class_name, _selector(client, options, request)), strategy == "SPREAD"


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
