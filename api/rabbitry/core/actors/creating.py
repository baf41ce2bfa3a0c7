"""Creating actors: their record, then the task that makes them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from rabbitry.core.actors.directory import ActorDirectory
from rabbitry.core.failures import killed_cause
from rabbitry.core.identity import Identity, Job
from rabbitry.core.lives.references import References
from rabbitry.core.submit.arguments import NO_RECORDS, Arguments
from rabbitry.core.submit.environments import Environments
from rabbitry.core.submit.exports import Exports
from rabbitry.core.submit.kept_job import KeptJob
from rabbitry.core.submit.outbox import Outbox
from rabbitry.core.submit.plan import Plan
from rabbitry.core.submit.plans import Plans
from rabbitry.exceptions import ActorAlreadyExistsError
from rabbitry.object_ref import ObjectRef, made_here
from rabbitry.options import ActorOptions
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import FIRST_INDEX, TaskIds, new_actor_id
from rabbitry_broker.messages import ActorSpec, encode_frame
from rabbitry_broker.resources import ResourceRequest
from rabbitry_broker.store.actors import name_field


class CreationRecords(Protocol):
    """Records of actors in the store; see `ActorRecords`."""

    def create(
        self, actor_id: bytes, *, name: bytes, fields: dict[str, Any], holds: bytes = b""
    ) -> tuple[bytes, bytes] | None:
        """Put an actor on record; return (id, facts) of the living one that has its name."""

    def set_frame(self, actor_id: bytes, frame: bytes, queue: str) -> None:
        """Keep what makes the actor, for its restarts."""

    def kill(self, actor_id: bytes, *, no_restart: bool, cause: bytes) -> str:
        """Kill an actor; return the state it was in."""


class ActorCreating:
    """Creates actors for one client. Any thread may use it.

    Args:
        identity: of the client.
        job: where its actors live, unless it is said otherwise.
        records: of actors.
        directory: remembers those made here.
        plans: makes the plan of the creating task.
        exports: stores classes.
        arguments: packs the constructor's.
        outbox: sends the task.
        references: counts handles on creation objects.
        ids: of tasks.
        detached_ids: of tasks that outlive the client.
        register: makes the client known as alive.
        environments: of its actors.
        kept_job: what detached ones have to know of the job when its driver has left.
    """

    def __init__(
        self,
        identity: Identity,
        job: Job,
        records: CreationRecords,
        directory: ActorDirectory,
        *,
        plans: Plans,
        exports: Exports,
        arguments: Arguments,
        outbox: Outbox,
        references: References,
        ids: TaskIds,
        detached_ids: TaskIds,
        register: Callable[[], None],
        environments: Environments,
        kept_job: KeptJob,
    ) -> None:
        self._environments = environments
        self._kept_job = kept_job
        self._identity = identity
        self._job = job
        self._records = records
        self._directory = directory
        self._plans = plans
        self._exports = exports
        self._arguments = arguments
        self._outbox = outbox
        self._references = references
        self._ids = ids
        self._detached_ids = detached_ids
        self._register = register

    def create(
        self,
        *,
        cls: type,
        pickled: tuple[bytes, bytes],
        class_name: str,
        options: ActorOptions,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        handle_facts: bytes,
        is_async: bool,
    ) -> tuple[bytes, ObjectRef[Any] | None, bytes | None]:
        """Register and submit a new actor.

        Returns:
            (actor id, ref that keeps it alive, None); or, with `get_if_exists` and a living actor of that name,
            (its id, None, its facts).

        Raises:
            ActorAlreadyExistsError: the name is taken.
            TypeError: an argument cannot be pickled.
        """
        self._register()
        identity = self._identity
        actor_id = new_actor_id(identity.job)
        namespace = options.namespace or self._job.namespace
        name = name_field(namespace, options.name) if options.name else b""
        detached = options.lifetime == "detached"
        durable = {False: "", True: "always", "explicit": "explicit"}[options.durable]
        running = ResourceRequest.from_floats(options.running_request())
        spec = ActorSpec(
            running=running.class_name,
            concurrency=options.concurrency(is_async=is_async),
            groups=dict(options.concurrency_groups),
            is_async=is_async,
            durable=durable,
            name=options.name or "",
            class_name=class_name,
            facts=handle_facts,
            out_of_order=options.out_of_order(is_async=is_async),
            replicas=options.durable_replicas,
        )
        digest, data = pickled
        self._exports.export(digest, data, cls)
        env = self._environments.code(options.runtime_env, of=cls, threads=running.threads)
        task_id = (self._detached_ids if detached else self._ids).next()
        taken = self._records.create(
            actor_id,
            name=name,
            fields={
                "class": class_name,
                "facts": identity.signer.seal(b"facts" + actor_id, handle_facts),
                "owner": identity.id,
                "job": identity.job,
                "detached": b"1" if detached else b"0",
                "max_restarts": -1 if durable and not options.max_restarts else options.max_restarts,
                "restarts": 0,
                "durable": durable,
                "creation": task_id if detached else b"",
            },
            holds=digest + self._environments.holds(env) + self._kept_job.hold() if detached else b"",
        )
        if taken is not None:
            if not options.get_if_exists:
                raise ActorAlreadyExistsError(
                    f"The name {options.name!r} (namespace {namespace!r}) is already taken by a living actor. "
                    "Choose another name, or pass get_if_exists=True to get that actor."
                )
            return taken[0], None, identity.signer.open(b"facts" + taken[0], taken[1])
        try:
            plan = self._plans.creation(actor_id, digest, namespace=namespace, options=options, spec=spec, env=env)
            ref = self._submit(task_id, actor_id, plan, args, kwargs)
        except Exception:
            # It was not accepted: its name is free again, and nothing of it is kept.
            self._references.unpin(creation_pin(actor_id))
            with suppress(RabbitryBrokerError):
                self._records.kill(actor_id, no_restart=True, cause=killed_cause(actor_id))
            raise
        if not detached:
            self._directory.created(ref._id, actor_id)
        return actor_id, ref, None

    def _submit(
        self, task_id: bytes, actor_id: bytes, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ObjectRef[Any]:
        """Send the task that creates an actor; return the handle on its creation object."""
        if args or kwargs:
            pin_as = creation_pin(actor_id)
            payload, dependencies, inline = self._arguments.pack(task_id, args, kwargs, pin_as=pin_as)
        else:
            payload, dependencies, inline = b"", [], NO_RECORDS
        ref = made_here(task_id + FIRST_INDEX, self._references)
        task = (task_id, payload, 0, dependencies, inline, 0)
        frame = encode_frame(self._identity.signer, plan.header_bytes, [task])
        self._records.set_frame(actor_id, frame, plan.queue)
        if dependencies and len(inline) < len(dependencies):
            self._outbox.add_parked(plan, task)
        else:
            self._outbox.add(plan, task)
        return ref


def creation_pin(actor_id: bytes) -> bytes:
    """Return what a constructor's arguments are pinned under: restarts need them as long as the actor lives."""
    return b"actor" + actor_id
