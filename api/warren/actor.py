"""`@remote` on classes: actor classes, handles on actors, their methods."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from warren import current
from warren.client import Client
from warren.exceptions import ActorHandleNotFoundError, PendingCallsLimitExceeded
from warren.exit import ActorExit
from warren.ids import ActorID
from warren.object_ref import ObjectRef
from warren.options import ActorOptions, MethodOptions
from warren.runtime_context import task_context
from warren.signature import Signature
from warren.submit import Plan
from warren_broker.functions import export
from warren_broker.serialization import register_ref_class

METHOD_OPTIONS = "__warren_method_options__"
SPECIAL_METHODS = ("__ray_ready__", "__ray_terminate__", "__ray_call__")
_NOT_REMOTE = frozenset(dir(object)) | {"__class_getitem__", "__init_subclass__"}


class ActorClassInheritanceException(TypeError):
    """An actor class was used as a base class. Inherit from the plain class, and decorate the subclass."""


class MethodFacts(msgspec.Struct, array_like=True, frozen=True):
    """What a handle knows of a method.

    Attributes:
        parameters: of its signature, without `self`.
        options: given to `@method`, pickled; b"" for none.
        returns: results a call has if nothing else is said.
    """

    parameters: list[tuple[str, int, bool]]
    options: bytes
    returns: int | str


class Facts(msgspec.Struct, array_like=True, frozen=True):
    """What a handle is made of; kept in the actor's record too.

    Attributes:
        class_name: of the actor's class.
        methods: by name.
        max_task_retries: default of its methods.
        max_pending_calls: limit of unfinished calls of a handle; -1 for none.
        generator_backpressure: default of its streaming methods.
    """

    class_name: str
    methods: dict[str, MethodFacts]
    max_task_retries: int
    max_pending_calls: int
    generator_backpressure: int = -1


_encode_facts = msgspec.msgpack.Encoder().encode
_decode_facts = msgspec.msgpack.Decoder(Facts).decode


def method(*args: Any, **options: Any) -> Any:
    """Set defaults of one method of an actor class: `@method(num_returns=2)`; also bare.

    Raises:
        AssertionError: an unknown option, or positional arguments.
    """
    if len(args) == 1 and not options and callable(args[0]):
        return args[0]
    assert not args, "The @method decorator takes keyword arguments only, for example '@method(num_returns=2)'."
    assert options, "The @method decorator takes at least one option, for example '@method(num_returns=2)'."
    checked = MethodOptions.from_kwargs(**options)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        setattr(function, METHOD_OPTIONS, checked)
        return function

    return decorate


def exit_actor() -> NoReturn:
    """End the actor this code runs in: the call fails with ActorDiedError, there is no restart.

    Raises:
        TypeError: not inside an actor.
    """
    context = task_context()
    if context is None or not context.header.actor:
        raise TypeError("exit_actor() is for code inside actors; this is a driver or a task.")
    raise ActorExit


class _Method:
    """What is computed once for a method of one handle. It knows no handle: a cycle would keep actors alive."""

    __slots__ = ("facts", "name", "options", "plan", "plan_client", "signature")

    def __init__(self, class_name: str, name: str, facts: MethodFacts, options: MethodOptions) -> None:
        self.name = name
        self.facts = facts
        self.options = options
        parameters = tuple((each, kind, default) for each, kind, default in facts.parameters)
        self.signature = Signature._of_parameters(f"{class_name}.{name}", parameters)
        self.plan: Plan | None = None
        self.plan_client: Client | None = None


class ActorMethod:
    """A method of an actor, bound to a handle: `handle.method.remote(...)`."""

    __slots__ = ("_handle", "_method")

    def __init__(self, handle: ActorHandle, bound: _Method) -> None:
        self._handle = handle
        self._method = bound

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: a method runs where its actor is.

        Raises:
            TypeError: always.
        """
        name = self._method.name
        raise TypeError(
            f"Actor methods cannot be called directly. Instead of running 'object.{name}()', "
            f"try 'object.{name}.remote()'."
        )

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Send a call; return its ref (a list, None or a generator as `num_returns` says). HOT PATH.

        Raises:
            TypeError: the arguments do not fit, or cannot be pickled.
            PendingCallsLimitExceeded: more unfinished calls than `max_pending_calls`.
        """
        client = current._client
        if client is None:
            client = current.client()
        bound = self._method
        signature = bound.signature
        if kwargs or not signature.low <= len(args) <= signature.high:
            signature.check(args, kwargs)
        plan = bound.plan
        if plan is None or bound.plan_client is not client:
            plan = self._make_plan(client)
        limit = self._handle._facts.max_pending_calls
        if limit > 0 and client.actors.pending(self._handle._id) >= limit:
            raise PendingCallsLimitExceeded(
                f"The actor {self._handle!r} has {limit} unfinished calls of this process, as many as "
                "max_pending_calls allows. Wait for some of them."
            )
        return client.actors.call(plan, args, kwargs)

    def _make_plan(self, client: Client) -> Plan:
        handle, bound = self._handle, self._method
        handle._check_session(client)
        facts, options = handle._facts, bound.options
        options = msgspec.structs.replace(
            options,
            num_returns=bound.facts.returns if options.num_returns is None else options.num_returns,
            max_task_retries=facts.max_task_retries if options.max_task_retries is None else options.max_task_retries,
            generator_backpressure=facts.generator_backpressure
            if options.generator_backpressure is None
            else options.generator_backpressure,
        )
        bound.plan = client.actors.method_plan(handle._id, facts.class_name, bound.name, options)
        bound.plan_client = client
        return bound.plan

    def options(self, **options: Any) -> ActorMethod:
        """Return the method with other options for the calls made through it."""
        bound = self._method
        merged = bound.options.merged(**options)
        return ActorMethod(self._handle, _Method(self._handle._facts.class_name, bound.name, bound.facts, merged))

    def _remote(self, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None, **options: Any) -> Any:
        """Send a call with options of its own; libraries written for Ray use it."""
        target = self.options(**options) if options else self
        return target.remote(*(args or ()), **(kwargs or {}))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_method, (self._handle, self._method.name, self._method.options)

    def __repr__(self) -> str:
        return f"ActorMethod({self._handle._facts.class_name}.{self._method.name})"


def _restore_method(handle: ActorHandle, name: str, options: MethodOptions) -> ActorMethod:
    facts = handle._method_facts(name)
    return ActorMethod(handle, _Method(handle._facts.class_name, name, facts, options))


class ActorHandle:
    """A handle on an actor: its methods are `handle.method.remote(...)`.

    Strong handles (from creation, or passed along) keep the actor alive; those of `get_actor` do not.
    """

    def __init__(self, actor_id: bytes, facts: bytes, creation_ref: ObjectRef[Any] | None) -> None:
        self._id = actor_id
        self._packed_facts = facts
        self._facts = _decode_facts(facts)
        self._creation_ref = creation_ref
        self._client = current.peek()
        self._methods: dict[str, _Method] = {}

    def __getattr__(self, name: str) -> ActorMethod:
        methods: dict[str, _Method] = self.__dict__.get("_methods", {})
        bound = methods.get(name)
        if bound is None:
            if "_facts" not in self.__dict__:
                raise AttributeError(name)  # while it is being made
            facts = self._method_facts(name)
            options = _load_options(facts.options) if facts.options else MethodOptions()
            bound = methods[name] = _Method(self._facts.class_name, name, facts, options)
        return ActorMethod(self, bound)

    def _method_facts(self, name: str) -> MethodFacts:
        facts = self._facts.methods.get(name)
        if facts is None:
            if name in SPECIAL_METHODS:
                return _ANYTHING
            raise AttributeError(f"'{self._facts.class_name}' object has no attribute '{name}'")
        return facts

    def _check_session(self, client: Client) -> None:
        if self._client is not None and self._client is not client:
            raise ActorHandleNotFoundError(
                f"{self!r} belongs to a session that was shut down. Create the actor again, or get_actor() "
                "a detached one."
            )
        self._client = client

    @property
    def _actor_id(self) -> ActorID:
        return ActorID(self._id)

    _ray_actor_id = _actor_id

    def __dir__(self) -> list[str]:
        return sorted(self._facts.methods)

    def __hash__(self) -> int:
        return hash(self._id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and other._id == self._id

    def __repr__(self) -> str:
        return f"Actor({self._facts.class_name}, {self._id.hex()})"

    def __reduce__(self) -> tuple[Any, ...]:
        return handle_from_facts, (self._id, self._packed_facts, self._creation_ref)

    def __getstate__(self) -> NoReturn:
        raise TypeError("handles are pickled by __reduce__")


_ANYTHING = MethodFacts([("args", 2, False), ("kwargs", 4, False)], b"", 1)
register_ref_class(ActorHandle)


def _load_options(data: bytes) -> MethodOptions:
    import pickle

    options: MethodOptions = pickle.loads(data)
    return options


def handle_from_facts(actor_id: bytes, facts: bytes, creation_ref: ObjectRef[Any] | None) -> ActorHandle:
    """Return a handle made of what its actor's record holds; weak if `creation_ref` is None."""
    return ActorHandle(actor_id, facts, creation_ref)


class ActorClass:
    """A class whose instances live in processes of their own: `Class.remote(...)` creates one.

    Made by `@warren.remote`. It may be pickled and used inside tasks and actors.
    """

    def __init__(self, cls: type, options: ActorOptions) -> None:
        self._cls = cls
        self._options = options
        self._signature = Signature.of_constructor(cls)
        self._methods = _methods_of(cls)
        self._is_async = any(_is_coroutine(getattr(cls, name)) for name in self._methods)
        self._exported: tuple[Client, tuple[bytes, bytes]] | None = None
        for name in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(self, name, getattr(cls, name, None))
        options.concurrency(is_async=self._is_async)
        options.out_of_order(is_async=self._is_async)
        if options.durable:
            self._check_durable()

    def _check_durable(self) -> None:
        concurrency = self._options.concurrency(is_async=self._is_async)
        if self._is_async or concurrency > 1 or self._options.concurrency_groups:
            raise ValueError(
                f"durable=True is for actors that run one call at a time, and {self._cls.__name__} is "
                f"{'asynchronous' if self._is_async else 'threaded'}: its state between two calls is not one state."
            )

    @classmethod
    def make(cls, target: type, options: dict[str, Any]) -> ActorClass:
        """Return the actor class of a plain class; what `@remote` calls."""
        if isinstance(target, ActorClass) or any(isinstance(base, ActorClass) for base in target.__mro__):
            raise ActorClassInheritanceException(f"{target!r} is an actor class already.")
        return cls(target, ActorOptions.from_kwargs(**options))

    def __mro_entries__(self, bases: tuple[Any, ...]) -> NoReturn:
        raise ActorClassInheritanceException(
            f"Inheriting from the actor class '{self._cls.__name__}' is not possible. Inherit from the plain class, "
            "and put @remote on the subclass."
        )

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: instances live in processes of their own.

        Raises:
            TypeError: always.
        """
        name = self._cls.__name__
        raise TypeError(f"Actors cannot be instantiated directly. Instead of '{name}()', use '{name}.remote()'.")

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Create an actor; returns its handle at once.

        Raises:
            TypeError: the arguments do not fit the constructor, or cannot be pickled.
            ActorAlreadyExistsError: the name is taken.
        """
        client = current.client()
        self._signature.check(args, kwargs)
        if self._exported is None or self._exported[0] is not client:
            self._exported = (client, export(self._cls))
        options = self._options
        facts = _encode_facts(
            Facts(
                self._cls.__name__,
                self._methods,
                options.max_task_retries,
                options.max_pending_calls,
                options.generator_backpressure,
            )
        )
        actor_id, creation_ref, existing = client.actors.create(
            pickled=self._exported[1],
            class_name=self._cls.__name__,
            options=options,
            args=args,
            kwargs=kwargs,
            handle_facts=facts,
            is_async=self._is_async,
        )
        if existing is not None:
            return handle_from_facts(actor_id, existing, None)
        return handle_from_facts(actor_id, facts, creation_ref)

    def options(self, **options: Any) -> ActorClass:
        """Return the class with other options for actors made through it.

        Raises:
            ValueError: an unknown option or a bad value.
        """
        return ActorClass(self._cls, self._options.merged(**options))

    def _remote(
        self, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None, **options: Any
    ) -> ActorHandle:
        """Create an actor with options of its own; libraries written for Ray use it."""
        target = self.options(**options) if options else self
        return target.remote(*(args or ()), **(kwargs or {}))

    @property
    def __ray_metadata__(self) -> ActorClass:
        return self

    @property
    def modified_class(self) -> type:
        """The plain class."""
        return self._cls

    @property
    def _default_options(self) -> dict[str, Any]:
        return self._options.given()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._cls, name)

    def __reduce__(self) -> tuple[Any, ...]:
        # As state, and with all that was computed from the class: one whose methods name it is still without them when
        # the actor class inside of it is made again.
        return ActorClass.__new__, (ActorClass,), {**self.__dict__, "_exported": None}

    def __repr__(self) -> str:
        return f"ActorClass({self._cls.__name__})"


def _methods_of(cls: type) -> dict[str, MethodFacts]:
    import cloudpickle

    methods: dict[str, MethodFacts] = {}
    for name, function in inspect.getmembers(cls, callable):
        if (name in _NOT_REMOTE and getattr(object, name, None) is function) or name == "__class__":
            continue
        if isinstance(function, type) or name in ("__init__", "__new__", "__init_subclass__", "__subclasshook__"):
            continue
        try:
            parameters = Signature.of_method(cls, name).parameters
        except (ValueError, TypeError):
            continue
        options = getattr(function, METHOD_OPTIONS, None)
        settled = (options or MethodOptions()).for_function(function)
        methods[name] = MethodFacts(
            [(str(each), int(kind), bool(default)) for each, kind, default in parameters],
            cloudpickle.dumps(options) if options is not None else b"",
            settled.num_returns if settled.num_returns is not None else 1,
        )
    return methods


def _is_coroutine(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """Return a (weak) handle on the living actor of that name.

    Raises:
        ValueError: there is none, or the name or namespace is empty.
        TypeError: not text.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of an actor is a str, got {name!r}")
    if not name:
        raise ValueError("Please supply a non-empty value to get_actor")
    if namespace is not None:
        if not isinstance(namespace, str):
            raise TypeError(f"a namespace is a str, got {namespace!r}")
        if not namespace:
            raise ValueError('"" is not a valid namespace. Pass None for the current one.')
    actor_id, facts = current.client().actors.lookup(name, namespace)
    return handle_from_facts(actor_id, facts, None)


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """Kill an actor's process at once. Its running and waiting calls fail; its name is free.

    Args:
        actor: a handle.
        no_restart: False to let it restart if it has restarts left.

    Raises:
        ValueError: not a handle.
    """
    if not isinstance(actor, ActorHandle):
        raise ValueError(f"kill() takes an actor's handle, got {type(actor).__name__}. For tasks there is cancel().")
    client = current.client()
    actor._check_session(client)
    client.actors.kill(actor._id, no_restart=no_restart)


def checkpoint() -> None:
    """Inside a method of a `durable="explicit"` actor: commit the state with this call.

    Raises:
        TypeError: not inside a durable actor.
    """
    context = task_context()
    if context is None or context.checkpoint is None:
        raise TypeError("checkpoint() is for methods of durable actors")
    context.checkpoint()
