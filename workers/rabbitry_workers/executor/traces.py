"""Traces in an executor: begun as its job wants, if at all. Nothing of OpenTelemetry is loaded before."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rabbitry_broker.messages import Task, TaskHeader

log = logging.getLogger("rabbitry")


def of_client(told: str) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """Begin to make spans; return what makes them of what is submitted here, None for no traces.

    Args:
        told: what the job said of it, which may be nonsense: work goes on without traces then.
    """
    if not told:
        return None
    try:
        from rabbitry import tracing

        tracing.begin_in_worker(told)
    except Exception as error:
        log.warning("no traces of what runs in this process: %s: %s", type(error).__name__, error)
        return None
    return tracing.traced_submit, tracing.traced_creation


def of_run(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return what runs a task that carries a context."""
    try:
        from rabbitry import tracing

        tracing.require()
    except ModuleNotFoundError:
        return run  # OpenTelemetry is not installed here
    return tracing.traced_run(run)


def running(header: TaskHeader, task: Task, results: list[bytes] | None = None) -> AbstractContextManager[None]:
    """Return the stretch in which a call runs that carries a context."""
    try:
        from rabbitry import tracing

        tracing.require()
    except ModuleNotFoundError:
        return nullcontext()
    return tracing.running(header, task, results=results)
