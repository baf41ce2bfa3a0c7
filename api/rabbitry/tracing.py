"""Traces by OpenTelemetry: a span for each task that is submitted, for its wait and for its run, on whatever node.

Off unless something switches it on before `init()`: `init(_tracing_startup_hook="module:function")`, the variable
RABBITRY_TRACING=on, `rabbitry.util.tracing.enable()`, or a program that is run by `opentelemetry-instrument`. While it
is off nothing of it is imported, and no task pays for it: what submits and runs tasks is wrapped when a client is made.

    submit (PRODUCER) --> queue (INTERNAL)
                      '-> run (CONSUMER), inside of which user code makes spans, and submits more

The context of the submitting span travels in the task's header, so each traced task has a header of its own.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

import msgspec

from rabbitry import environment
from rabbitry.core.submit.plan import Plan
from rabbitry_broker.messages import KIND_ACTOR_CALL, KIND_ACTOR_CREATION, Task, TaskHeader
from rabbitry_broker.records import ERROR_TAG

_NAME: Final = "rabbitry"
_VARIABLES: Final = "OTEL_"
_KINDS: Final = {KIND_ACTOR_CREATION: "actor creation", KIND_ACTOR_CALL: "actor call"}


class _State:
    """Whether this process makes spans, and how its workers begin to."""

    def __init__(self) -> None:
        self.on = False
        self.hook = ""


_state: Final = _State()


def enable(hook: str = "") -> None:
    """Make spans from the next `init()` on.

    Args:
        hook: `module:function` that sets up a tracer provider; it is called here, and in each worker process. "" for
            what the variables OTEL_... say there.

    Raises:
        ModuleNotFoundError: OpenTelemetry, or the module of the hook, is not installed.
        ValueError: the hook is no such text, or the module has no such function.
    """
    try:
        require()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: pip install 'rabbitry[tracing]'", name=error.name) from None
    if hook:
        _load(hook)()
    _state.on, _state.hook = True, hook


def disable() -> None:
    """Make no spans from the next `init()` on."""
    _state.on, _state.hook = False, ""


def is_on() -> bool:
    """True if this process makes spans; the variables of the environment count, too."""
    if not _state.on and environment.is_yes(environment.TRACING):
        enable()
        _set_up_by_variables()
    return _state.on


def facts() -> str:
    """Return what workers must know to make spans too; "" if there are none."""
    if not is_on():
        return ""
    variables = {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)}
    return json.dumps({"hook": _state.hook, "variables": variables})


def begin_in_worker(told: str) -> None:
    """Make spans in this worker process as its job wants.

    Args:
        told: what `facts` returned in the driver.

    Raises:
        Exception: what the hook raises; OpenTelemetry is not installed here.
    """
    read = json.loads(told)
    for name, value in read["variables"].items():
        os.environ.setdefault(str(name), str(value))
    if read["hook"]:
        enable(str(read["hook"]))
        return
    # A worker process may be ended at any time: its spans must not wait long.
    os.environ.setdefault("OTEL_BSP_SCHEDULE_DELAY", "500")
    enable()
    _set_up_by_variables()


def _set_up_by_variables() -> None:
    """Set up a tracer provider as OpenTelemetry's own variables say, unless there is one."""
    from opentelemetry import trace

    if type(trace.get_tracer_provider()) is not trace.ProxyTracerProvider:
        return
    configurators = list(entry_points(group="opentelemetry_configurator"))
    if configurators:
        configurators[0].load()().configure(auto_instrumentation_version="")
    else:
        from opentelemetry.sdk._configuration import _OTelSDKConfigurator

        _OTelSDKConfigurator().configure(auto_instrumentation_version="")  # type: ignore[no-untyped-call]


def require() -> None:
    """Return if OpenTelemetry is installed.

    Raises:
        ModuleNotFoundError: it is not.
    """
    import_module("opentelemetry.trace")


def _load(hook: str) -> Callable[[], object]:
    module, separator, name = hook.partition(":")
    if not separator or not module or not name:
        raise ValueError(f"The hook {hook!r} is not 'module:function'.")
    function: Callable[[], object] | None = getattr(import_module(module), name, None)
    if not callable(function):
        raise ValueError(f"The hook {hook!r}: module {module} has no function {name!r}.")
    return function


# -- submitting --------------------------------------------------------------------------------------------------------


def traced_submit(submit: Callable[..., Any]) -> Callable[..., Any]:
    """Return what submits tasks of a plan, with a span for each."""

    def traced(plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any], task_id: bytes | None = None) -> Any:
        with _submitting(plan.header):
            return submit(_with_context(plan), args, kwargs, task_id)

    return traced


def traced_creation(make_plan: Callable[..., Plan]) -> Callable[..., Plan]:
    """Return what makes the plan of an actor's creation, with a span for it."""

    def traced(*args: Any, **kwargs: Any) -> Plan:
        plan = make_plan(*args, **kwargs)
        with _submitting(plan.header):
            return _with_context(plan)

    return traced


@contextmanager
def _submitting(header: TaskHeader) -> Iterator[None]:
    from opentelemetry import trace

    with trace.get_tracer(_NAME).start_as_current_span(
        f"{header.name} ray.remote", kind=trace.SpanKind.PRODUCER, attributes=_attributes(header)
    ):
        yield


def _with_context(plan: Plan) -> Plan:
    """Return a plan whose tasks carry the context of the current span."""
    from opentelemetry.propagate import inject

    carrier: dict[str, str] = {}
    inject(carrier)
    context = json.dumps([time.time_ns(), carrier], separators=(",", ":"))
    header = msgspec.structs.replace(plan.header, trace=context)
    return Plan(header, plan.queue, single=True, route=plan.route, timing=plan.timing, line=plan.line)


# -- running -----------------------------------------------------------------------------------------------------------


@contextmanager
def running(header: TaskHeader, task: Task, *, results: list[bytes] | None = None) -> Iterator[None]:
    """Make spans of a task's wait, which is over, and of its run, which this is.

    Args:
        header: of the task, with a context.
        task: itself.
        results: where its results gather (id, record, ...): an error among them is the span's.
    """
    from opentelemetry import trace
    from opentelemetry.propagate import extract

    try:
        sent, carrier = json.loads(header.trace)
        context, sent = extract(carrier), int(sent)
    except (ValueError, TypeError, AttributeError):
        yield  # nobody of ours wrote that
        return
    tracer = trace.get_tracer(_NAME)
    attributes = {
        **_attributes(header),
        "ray.task_id": task[0].hex(),
        "ray.attempt": task[2],
        "ray.worker.pid": os.getpid(),
    }
    now = time.time_ns()
    waited = tracer.start_span(
        f"{header.name} queue", context=context, start_time=min(sent, now), attributes=attributes
    )
    waited.end(now)
    with tracer.start_as_current_span(
        f"{header.name} ray.remote_worker", context=context, kind=trace.SpanKind.CONSUMER, attributes=attributes
    ) as span:
        yield
        if results is not None and any(record[:1] == bytes((ERROR_TAG,)) for record in results[1::2]):
            span.set_status(trace.Status(trace.StatusCode.ERROR))


def traced_run(run: Callable[..., None]) -> Callable[..., None]:
    """Return what runs a task of a header with a context, with spans."""

    def traced(header: TaskHeader, function: Callable[..., Any], task: Task, out: Any) -> None:
        with running(header, task, results=out.items):
            run(header, function, task, out)

    return traced


def _attributes(header: TaskHeader) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ray.remote": _KINDS.get(header.kind, "task"),
        "ray.function": header.name,
        "ray.job_id": header.job.hex(),
        "ray.resources": header.resources,
    }
    if header.actor:
        found["ray.actor_id"] = header.actor.hex()
        found["ray.actor_method"] = header.method
    return found
