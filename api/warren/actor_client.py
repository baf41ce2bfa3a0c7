"""A client's dealings with actors: creating, calling, finding, killing them.

HOT PATH: `call` (`benchmarks/`: `actor_*`). Calls of one client to one actor keep their order: they wait in one *line*
a target actor, whatever the method, and leave in one message with one frame a run of equal methods.

An actor lives as long as a handle on its creation object does (see `references`): a strong handle holds that object's
ref, so all counting of refs counts handles too. When the last one goes, the actor is told to end after what was sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warren.exceptions import ActorAlreadyExistsError, ActorDeath, ActorDiedError, load_task_error, store_error
from warren.object_ref import ObjectRef, made_here
from warren.plans import env_code, placement, retry_code, returns_code
from warren.submit import Line, Plan
from warren_broker import records
from warren_broker.ids import FIRST_INDEX, new_actor_id
from warren_broker.messages import (
    KIND_ACTOR_CALL,
    KIND_ACTOR_CREATION,
    ActorSpec,
    Completion,
    TaskHeader,
    encode,
    encode_frame,
)
from warren_broker.queues import names
from warren_broker.resources import ResourceRequest
from warren_broker.store.actors import DEAD, ActorRecords, name_field

if TYPE_CHECKING:
    from warren.client import Client
    from warren.options import ActorOptions, MethodOptions

END_METHOD = "__warren_end__"  # the last handle is gone: finish what came before, then end
CHECK_SECONDS = 0.5


class ActorClient:
    """What one client knows of actors. Any thread may call anything."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.records = ActorRecords(client.store)
        self.lines: dict[bytes, Line] = {}
        self.tracked: dict[bytes, Plan] = {}  # calls without a result yet, by task id
        self.owned: dict[bytes, bytes] = {}  # creation object -> actor id
        self._counts: dict[bytes, int] = {}
        self._gone: dict[bytes, bytes] = {}  # actor id -> error record

    # -- creating ----------------------------------------------------------------------------------------------------

    def create(
        self,
        *,
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
        client = self._client
        client.register()
        actor_id = new_actor_id(client.job)
        namespace = options.namespace or client.namespace
        name = name_field(namespace, options.name) if options.name else b""
        detached = options.lifetime == "detached"
        durable = {False: "", True: "always", "explicit": "explicit"}[options.durable]
        spec = ActorSpec(
            running=ResourceRequest.from_floats(options.running_request()).class_name,
            concurrency=options.concurrency(is_async=is_async),
            groups=dict(options.concurrency_groups),
            is_async=is_async,
            durable=durable,
            name=options.name or "",
            class_name=class_name,
            facts=handle_facts,
            out_of_order=options.out_of_order(is_async=is_async),
        )
        digest, data = pickled
        client.export(digest, data)
        taken = self.records.create(
            actor_id,
            name=name,
            get_if_exists=options.get_if_exists,
            fields={
                "class": class_name,
                "facts": client.signer.seal(b"facts" + actor_id, handle_facts),
                "owner": client.id,
                "job": client.job,
                "detached": b"1" if detached else b"0",
                "max_restarts": -1 if durable and not options.max_restarts else options.max_restarts,
                "restarts": 0,
                "durable": durable,
            },
        )
        if taken is not None:
            if not options.get_if_exists:
                raise ActorAlreadyExistsError(
                    f"The name {options.name!r} (namespace {namespace!r}) is taken by a living actor. "
                    "Choose another name, or pass get_if_exists=True to get that actor."
                )
            return taken[0], None, client.signer.open(b"facts" + taken[0], taken[1])
        request = ResourceRequest.from_floats(options.placement_request())
        place = placement(client, options, request)
        client.queues_used.add(place.queue)
        queue = place.next_queue()
        header = TaskHeader(
            function=digest,
            name=f"{class_name}.__init__",
            owner=client.id,
            job=client.job,
            resources=request.class_name,
            kind=KIND_ACTOR_CREATION,
            max_retries=-1,
            env=env_code(client, options.runtime_env),
            lifetime="detached" if detached else "",
            actor=actor_id,
            method="__init__",
            namespace=namespace,
            extra=encode(spec),
            elsewhere=place.elsewhere,
            impatient=place.impatient,
        )
        plan = Plan(header, queue, single=True)
        ids = client.detached_task_ids if detached else client.task_ids
        task_id = ids.next()
        if args or kwargs:
            payload, dependencies, inline = client.pack_arguments(task_id, args, kwargs, pin_as=b"actor" + actor_id)
        else:
            payload, dependencies, inline = b"", [], {}
        ref = made_here(task_id + FIRST_INDEX, client.references)
        if not detached:
            self.owned[ref._id] = actor_id
        task = (task_id, payload, 0, dependencies, inline, 0)
        self.records.set_frame(actor_id, encode_frame(client.signer, plan.header_bytes, [task]), queue)
        if dependencies and len(inline) < len(dependencies):
            client.outbox.add_parked(plan, task)
        else:
            client.outbox.add(plan, task)
        return actor_id, ref, None

    # -- calling -----------------------------------------------------------------------------------------------------

    def method_plan(self, actor_id: bytes, class_name: str, method: str, options: MethodOptions) -> Plan:
        """Return the plan of one method's calls with these options, fully resolved."""
        client = self._client
        header = TaskHeader(
            function=actor_id,
            name=options.name or f"{class_name}.{method}",
            owner=client.id,
            job=client.job,
            resources="",
            kind=KIND_ACTOR_CALL,
            num_returns=returns_code(1 if options.num_returns is None else options.num_returns),
            max_retries=options.max_task_retries or 0,
            retry_exceptions=retry_code(options.retry_exceptions),
            actor=actor_id,
            method=method,
            group=options.concurrency_group or "",
            backpressure=max(0, options.generator_backpressure or 0),
            namespace=client.namespace,
        )
        plan = Plan(header, names.actor_queue(actor_id))
        plan.line = self.line(actor_id)
        return plan

    def line(self, actor_id: bytes) -> Line:
        """Return the line of calls to an actor."""
        line = self.lines.get(actor_id)
        if line is None:
            line = self.lines.setdefault(actor_id, Line(names.actor_queue(actor_id)))
        return line

    def call(self, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Send a call; return what `handle.method.remote()` returns. HOT PATH."""
        client = self._client
        task_id = client.task_ids.next()
        actor_id = plan.function
        self.tracked[task_id] = plan
        if self._gone and actor_id in self._gone:
            return self._refuse(plan, task_id)
        return client.submit(plan, args, kwargs, task_id)

    def _refuse(self, plan: Plan, task_id: bytes) -> Any:
        """A call to an actor known to be dead fails without a trip."""
        client = self._client
        result = client.submit_nowhere(plan, task_id)
        self._fail(task_id, plan, self._gone[plan.function])
        return result

    def pending(self, actor_id: bytes) -> int:
        """Return how many calls of this process to the actor have not finished."""
        client = self._client
        if client.in_flight:
            client.inbox.drain()
        return sum(1 for each in list(self.tracked.values()) if each.function == actor_id)

    # -- finding, killing --------------------------------------------------------------------------------------------

    def lookup(self, name: str, namespace: str | None) -> tuple[bytes, bytes]:
        """Return (id, facts) of the living actor of that name.

        Raises:
            ValueError: there is none.
        """
        space = namespace or self._client.namespace
        actor_id = self.records.by_name(space, name)
        if actor_id is not None:
            state, facts = self.records.fields(actor_id, "state", "facts")
            if state is not None and state.decode() != DEAD and facts is not None:
                return actor_id, self._client.signer.open(b"facts" + actor_id, facts)
        raise ValueError(
            f"Failed to look up actor with name '{name}' in namespace '{space}'. Either it was never created, is dead, "
            "or lives in another namespace (pass namespace=...)."
        )

    def facts_of(self, actor_id: bytes) -> bytes:
        """Return an actor's facts.

        Raises:
            ValueError: no such actor.
        """
        (facts,) = self.records.fields(actor_id, "facts")
        if facts is None:
            raise ValueError(f"no actor {actor_id.hex()} is known")
        return self._client.signer.open(b"facts" + actor_id, facts)

    def list_named(self, all_namespaces: bool) -> list[tuple[str, str]]:
        """Return (namespace, name) of the named living actors."""
        mine = self._client.namespace
        return [(space, name) for space, name in self.records.names() if all_namespaces or space == mine]

    def kill(self, actor_id: bytes, *, no_restart: bool) -> None:
        """Kill an actor's process at once; running and waiting calls fail."""
        self._client.outbox.flush()
        cause = killed_cause(actor_id)
        state = self.records.kill(actor_id, no_restart=no_restart, cause=cause)
        if no_restart and state != DEAD:
            # The node hears of it a moment later: a call that comes after this must not be served any more.
            self._gone[actor_id] = records.ERROR + cause

    # -- ends --------------------------------------------------------------------------------------------------------

    def handles_gone(self, actor_id: bytes) -> None:
        """No handle is left anywhere: the actor ends after what was sent to it."""
        client = self._client
        header = TaskHeader(
            function=actor_id,
            name=END_METHOD,
            owner=client.id,
            job=client.job,
            resources="",
            kind=KIND_ACTOR_CALL,
            num_returns=0,
            max_retries=0,
            actor=actor_id,
            method=END_METHOD,
        )
        plan = Plan(header, names.actor_queue(actor_id))
        plan.line = self.line(actor_id)
        client.outbox.add_call(plan, (client.task_ids.next(), b"", 0, [], {}, 0))
        client.references.unpin(b"actor" + actor_id)
        self.lines.pop(actor_id, None)

    def collected(self, object_id: bytes) -> bytes | None:
        """Return the actor whose last local handle was this object's, if it was one."""
        return self.owned.pop(object_id, None)

    def check_pending(self) -> None:
        """Fail the calls to actors that died where nobody could tell us (their node died with them)."""
        ids = list({plan.function for plan in list(self.tracked.values())})
        if not ids:
            return
        for actor_id, (state, cause) in zip(ids, self.records.states(ids), strict=True):
            if state == DEAD or not state:
                record = records.ERROR + (cause or killed_cause(actor_id))
                self._gone[actor_id] = record
                for task_id, plan in list(self.tracked.items()):
                    if plan.function == actor_id:
                        self._fail(task_id, plan, record)

    def _fail(self, task_id: bytes, plan: Plan, record: bytes) -> None:
        """Fail one call here and, if no result stands, in the store."""
        from warren_broker.ids import object_id

        client = self._client
        count = plan.header.num_returns
        indexes = range(1, count + 1) if count > 0 else ((1, 0) if count < 0 else ())
        keys = [object_id(task_id, index) for index in indexes]
        items: list[bytes] = []
        if keys:
            for key in keys:
                items += (key, record)
            store = client.store
            store.when_room(lambda: store.commit(client.id, items, b"", require_owner=False))
            standing = store.fetch(keys)
            items = []
            for key, stands in zip(keys, standing, strict=True):
                items += (key, stands if stands is not None else record)
        client.inbox.accept(Completion(b"", 1, 0.0, items, [task_id]))
        client.inbox.wake()

    def end_all(self) -> None:
        """The client leaves: its actors, but for detached ones, end."""
        for actor_id in list(self.owned.values()):
            self.records.kill(actor_id, no_restart=True, cause=owner_gone_cause(actor_id))
        self.owned.clear()


def killed_cause(actor_id: bytes) -> bytes:
    """The stored error of calls to a killed actor."""
    return death_record("", actor_id, "It was killed with kill().")


def owner_gone_cause(actor_id: bytes) -> bytes:
    """The stored error of calls to an actor whose creator is gone."""
    return death_record("", actor_id, "Its owner has left: the driver or actor that created it.")


def death_record(class_name: str, actor_id: bytes, reason: str, **facts: Any) -> bytes:
    """Return the stored ActorDiedError with these facts; see `ActorDeath`."""
    return store_error(ActorDiedError(ActorDeath(class_name, actor_id.hex(), reason, **facts)))


__all__ = ["ActorClient", "load_task_error"]
