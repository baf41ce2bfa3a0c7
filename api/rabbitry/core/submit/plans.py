"""From options to plans: what the calls of a function, actor or method carry in their header, and where they go.

The only place where headers of tasks are made. A new option of tasks that travels with them is a field of `TaskHeader`,
a line in `Plans.task`, and whoever heeds it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rabbitry.arguments import writable
from rabbitry.core.identity import Identity, Job
from rabbitry.core.submit.placement import Placements
from rabbitry.core.submit.plan import Line, Plan, Timings
from rabbitry.core.submit.routes import Preferred, Spread
from rabbitry.options import ActorOptions, MethodOptions, TaskOptions
from rabbitry_broker import queue_names as names
from rabbitry_broker.messages import (
    DYNAMIC,
    KIND_ACTOR_CALL,
    KIND_ACTOR_CREATION,
    STREAMING,
    ActorSpec,
    TaskHeader,
    encode,
)
from rabbitry_broker.resources import ResourceRequest
from rabbitry_broker.serialization import pack_in_band

END_METHOD = "__rabbitry_end__"  # the last handle is gone: finish what came before, then end


def returns_code(num_returns: int | str | None) -> int:
    """Return `num_returns` as it stands in a header."""
    if num_returns == "streaming":
        return STREAMING
    if num_returns == "dynamic":
        return DYNAMIC
    return 1 if num_returns is None else int(num_returns)


def retry_code(retry_exceptions: Any) -> bytes:
    """Return `retry_exceptions` as it stands in a header."""
    if retry_exceptions is True:
        return b"*"
    if not retry_exceptions:
        return b""
    return pack_in_band(tuple(retry_exceptions), "retry_exceptions").data


class Plans:
    """Makes plans for one client. Any thread may use it.

    Args:
        identity: of the client.
        job: what its job says.
        placements: finds the queues.
        environment: returns what stands in a header for an environment.
        timings: run times that plans of the same function share.
        announce_priorities: has nodes know that a queue has tasks with priorities.
        note_queue: hears of each queue that a plan leads to.
    """

    def __init__(
        self,
        identity: Identity,
        job: Job,
        placements: Placements,
        timings: Timings,
        *,
        environment: Callable[..., bytes],
        announce_priorities: Callable[[str], None],
        note_queue: Callable[[str], None],
    ) -> None:
        self._id = identity.id
        self._job_id = identity.job
        self._job = job
        self._placements = placements
        self._timings = timings
        self._environment = environment
        self._announce_priorities = announce_priorities
        self._note_queue = note_queue

    def become(self, client: bytes) -> None:
        """What it is for: `become` of the whole."""
        self._id = client

    def task(self, digest: bytes, function: Callable[..., Any], options: TaskOptions) -> Plan:
        """Return the plan of a function's calls with these options.

        Args:
            digest: content hash of the function.
            function: itself, for its name.
            options: of the calls, complete.
        """
        amounts = options.resource_request()
        request = ResourceRequest.from_floats(amounts)
        called = writable(getattr(function, "__qualname__", None) or type(function).__name__)
        called = called.rpartition("<locals>.")[2]  # as in Ray, where it was defined is no part of its name
        place = self._placements.of(options, request, what=called, holds=amounts)
        self._note_queue(place.queue)
        priority = options.priority or self._job.priority
        if priority:
            self._announce_priorities(place.queue)
        header = TaskHeader(
            function=digest,
            name=options.name or called,
            owner=self._id,
            job=self._job_id,
            resources=request.class_name,
            num_returns=returns_code(options.num_returns),
            max_retries=options.max_retries,
            retry_exceptions=retry_code(options.retry_exceptions),
            retry_delay=options.retry_delay,
            max_calls=options.max_calls,
            priority=priority,
            env=self._environment(
                options.runtime_env, detached=options.lifetime == "detached", of=function, threads=request.threads
            ),
            lifetime=options.lifetime or "",
            backpressure=max(0, options.generator_backpressure or 0),
            namespace=self._job.namespace,
            elsewhere=place.elsewhere,
            impatient=place.impatient,
            bundle=place.bundle,
            captures=place.captures,
            events=options.enable_task_events,
            written=_written(called, options.name),
        )
        single = isinstance(place.route, Preferred | Spread)
        return Plan(header, place.queue, single=single, route=place.route, timing=self._timings.of(digest))

    def creation(
        self,
        actor_id: bytes,
        digest: bytes,
        *,
        namespace: str,
        options: ActorOptions,
        spec: ActorSpec,
        env: bytes,
    ) -> Plan:
        """Return the plan of the one task that creates an actor.

        Args:
            actor_id: of the actor.
            digest: content hash of its class.
            namespace: where the actor lives.
            options: of the actor, complete.
            spec: what its node must know of it.
            env: what stands in headers for its environment.
        """
        amounts = options.placement_request()
        request = ResourceRequest.from_floats(amounts)
        place = self._placements.of(
            options, request, what=spec.short_name, holds=options.running_request(), placed_with=amounts
        )
        self._note_queue(place.queue)
        if self._job.priority:
            self._announce_priorities(place.queue)
        called = f"{spec.short_name}.__init__"
        name = f"{spec.name}:{called}" if spec.name else called
        header = TaskHeader(
            function=digest,
            name=name,
            owner=self._id,
            job=self._job_id,
            resources=request.class_name,
            kind=KIND_ACTOR_CREATION,
            max_retries=-1,
            priority=self._job.priority,
            env=env,
            lifetime="detached" if options.lifetime == "detached" else "",
            actor=actor_id,
            method="__init__",
            namespace=namespace,
            extra=encode(spec),
            elsewhere=place.elsewhere,
            impatient=place.impatient,
            bundle=place.bundle,
            captures=place.captures,
            events=options.enable_task_events,
            written=_written(called, name),
        )
        return Plan(header, place.next_queue(), single=True)

    def method(self, actor_id: bytes, class_name: str, method: str, options: MethodOptions, line: Line) -> Plan:
        """Return the plan of one method's calls with these options, fully resolved.

        Args:
            actor_id: of the actor.
            class_name: of the actor, without what the class stands in.
            method: its name.
            options: of the calls, complete.
            line: of this client's calls to the actor.
        """
        called = f"{class_name}.{method}"
        header = TaskHeader(
            function=actor_id,
            name=options.name or called,
            owner=self._id,
            job=self._job_id,
            resources="",
            kind=KIND_ACTOR_CALL,
            num_returns=returns_code(options.num_returns),
            max_retries=options.max_task_retries or 0,
            retry_exceptions=retry_code(options.retry_exceptions),
            actor=actor_id,
            method=method,
            group=options.concurrency_group or "",
            backpressure=max(0, options.generator_backpressure or 0),
            namespace=self._job.namespace,
            events=options.enable_task_events is not False,
            written=_written(called, options.name),
        )
        return Plan(header, names.actor_queue(actor_id), line=line)

    def end(self, actor_id: bytes, line: Line) -> Plan:
        """Return the plan of the call that tells an actor to end after what was sent."""
        header = TaskHeader(
            function=actor_id,
            name=END_METHOD,
            owner=self._id,
            job=self._job_id,
            resources="",
            kind=KIND_ACTOR_CALL,
            num_returns=0,
            max_retries=0,
            actor=actor_id,
            method=END_METHOD,
            events=False,
        )
        return Plan(header, names.actor_queue(actor_id), line=line)


def _written(called: str, name: str | None) -> str:
    """Return what stands in headers for the name of what is called: nothing, if the option `name` says no other."""
    return called if name and name != called else ""
