"""`@remote` on classes: actor classes, handles on actors, their methods."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, overload

import msgspec

from rabbitry import current, program
from rabbitry.actor_handle import ActorHandle as Handle
from rabbitry.actor_handle import (
    ActorMethod,
    Facts,
    MethodFacts,
    classes,
    encode_facts,
    handle_from_facts,
    unpack_facts,
)
from rabbitry.arguments import flag, optional_namespace, shown, text, writable
from rabbitry.client import Client
from rabbitry.exit import ActorExit
from rabbitry.launch_hooks import LaunchHook, ask
from rabbitry.options import ActorOptions, MethodOptions
from rabbitry.outages import with_public_errors
from rabbitry.remote_call import CALL_DECORATOR, DocOfInstance, RemoteCall
from rabbitry.runtime_context import task_context, task_of_call
from rabbitry.signature import Signature
from rabbitry.suggestions import closest
from rabbitry.typed_calls import Creates, P, T
from rabbitry_broker.functions import export
from rabbitry_broker.serialization import pack_in_band

if TYPE_CHECKING:
    from typing import Concatenate, Literal, ParamSpec, Protocol, TypeAlias, TypeVar

    from typing_extensions import Self, Unpack
    from typing_extensions import TypeVar as TypeVarWithDefault

    from rabbitry.typed_calls import CreatesByType, Items, MethodOf, Several
    from rabbitry.typed_options import ActorCallOptions
    from rabbitry.typed_options import MethodOptions as MethodOptionDict

    Q = ParamSpec("Q")
    R = TypeVar("R")
    S = TypeVar("S")

__all__ = [
    "ActorClass",
    "ActorClassInheritanceException",
    "ActorHandle",
    "ActorMethod",
    "ActorProxy",
    "Facts",
    "MethodFacts",
    "checkpoint",
    "exit_actor",
    "get_actor",
    "handle_from_facts",
    "kill",
    "method",
    "unpack_facts",
]

_actor_launch_hook: LaunchHook | None = None
"""Asked before an actor is created; Ray's libraries set it under this name."""

if TYPE_CHECKING:
    H = TypeVarWithDefault("H", default=Any)
    ActorHandle: TypeAlias = Handle[H] | type[H]
    """A handle on an actor of the class H. Its methods have types where they are decorated with `@method`.

    To checkers it is the class too, for this is how they find the methods; `Handle` is what there is at run time.
    """
    ActorProxy: TypeAlias = Handle[H] | type[H]
    """Ray's name for a handle in type hints."""
else:
    ActorHandle = ActorProxy = Handle

METHOD_OPTIONS = "__rabbitry_method_options__"
_NOT_REMOTE = frozenset(dir(object)) | {"__class_getitem__", "__init_subclass__"}


class ActorClassInheritanceException(TypeError):
    """An actor class was used as a base class. Inherit from the plain class, and decorate the subclass."""


if TYPE_CHECKING:

    class _Method(Protocol):
        def __call__(self, function: Callable[Concatenate[S, Q], R], /) -> MethodOf[S, Q, R]: ...

    class _GeneratorMethod(Protocol):
        def __call__(self, function: Callable[Concatenate[S, Q], Items[R]], /) -> MethodOf[S, Q, Items[R]]: ...

    class _MethodWithSeveral(Protocol):
        def __call__(self, function: Callable[Concatenate[S, Q], Any], /) -> MethodOf[S, Q, Several]: ...


@overload
def method(function: Callable[Concatenate[S, Q], R], /) -> MethodOf[S, Q, R]: ...
@overload
def method(*, num_returns: Literal["streaming"], **options: Unpack[MethodOptionDict]) -> _GeneratorMethod: ...
@overload
def method(*, num_returns: Literal[1, "dynamic"] | None = ..., **options: Unpack[MethodOptionDict]) -> _Method: ...
@overload
def method(*, num_returns: int, **options: Unpack[MethodOptionDict]) -> _MethodWithSeveral: ...
def method(*args: Any, **options: Any) -> Any:
    """Set defaults of one method of an actor class: `@method(num_returns=2)`; also bare.

    It also gives the method its types: checkers know the arguments and the result of `handle.method.remote(...)`.

    Raises:
        AssertionError: an unknown option, or positional arguments.
    """
    if len(args) == 1 and not options and callable(args[0]):
        return args[0]
    assert not args, "The @method decorator takes keyword arguments only, for example '@method(num_returns=2)'."
    assert options, "The @method decorator takes at least one option, for example '@method(num_returns=2)'."
    checked = MethodOptions.from_kwargs(**options)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if not callable(function) or not hasattr(function, "__dict__"):
            raise TypeError(f"The @method decorator is for methods of a class, got {shown(function)}.")
        setattr(function, METHOD_OPTIONS, checked)
        return function

    return decorate


def exit_actor() -> NoReturn:
    """End the actor this code runs in: the call fails with ActorDiedError, there is no restart.

    Calls that run at the same time (threaded and asyncio actors) have 30 s to end; none begins any more. It may also be
    called in a thread that a method has started: that thread ends, and the actor.

    Raises:
        TypeError: not inside an actor.
    """
    context = task_context()
    if context is None or not context.header.actor:
        raise TypeError("exit_actor API is called on a non-actor worker: this is a driver or a task.")
    if context.exit is not None:
        context.exit()
    if threading.current_thread() is not threading.main_thread() and task_of_call.get() is None:
        raise SystemExit(0)  # a thread of the user's: of any other class Python would print a traceback
    raise ActorExit


# What all variants of an actor class share: the client that exported it, and (content hash, pickle).
_Exported = list[tuple[Client, tuple[bytes, bytes]] | None]


class ActorClassMetadata(msgspec.Struct, frozen=True):
    """What libraries written for Ray ask an actor class for (`__ray_metadata__`).

    Attributes:
        modified_class: the plain class.
    """

    modified_class: type

    @property
    def class_name(self) -> str:
        """The name of the class, with what that stands in: `Outer.Inner`."""
        return self.modified_class.__qualname__


class _Creation(RemoteCall):
    """`Class.remote`: creates an actor; returns its handle at once.

    Raises:
        TypeError: the arguments do not fit the constructor, or cannot be pickled.
        ActorAlreadyExistsError: the name is taken.
    """

    __slots__ = ()

    def _facts(self) -> tuple[str, inspect.Signature, str | None]:
        actor_class = self.args[0]
        cls = actor_class._rabbitry_cls
        try:
            signature = inspect.signature(cls)
        except (ValueError, TypeError):
            signature = actor_class._rabbitry_signature.inspected()
        document = getattr(cls, "__doc__", None) or getattr(cls.__init__, "__doc__", None)
        return cls.__name__, signature, document and inspect.cleandoc(document)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.args[0], "remote")


_Creation.__doc__ = DocOfInstance(str(_Creation.__doc__), lambda call: call._facts()[2])  # type: ignore[assignment]


class ActorClass(Creates[T, P]):
    """A class whose instances live in processes of their own: `Class.remote(...)` creates one.

    Made by `@rabbitry.remote`. It may be pickled and used inside tasks and actors. Other attributes than its own
    (`remote`, `options`, `bind`, and names that begin with `_rabbitry`) are those of the plain class.
    """

    def __init__(self, cls: type, options: ActorOptions) -> None:
        self._rabbitry_cls = cls
        self._rabbitry_options = options
        self._rabbitry_signature = Signature.of_constructor(cls)
        self._rabbitry_methods = _methods_of(cls)
        self._rabbitry_is_async = any(
            _is_coroutine(getattr(cls, name)) for name in ("__init__", *self._rabbitry_methods)
        )
        self._rabbitry_exported: _Exported = [None]
        for name in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(self, name, getattr(cls, name, None))
        self._rabbitry_check_options()

    def _rabbitry_check_options(self) -> None:
        """Refuse options that do not go together with the class.

        Raises:
            ValueError: there is one.
        """
        self._rabbitry_options.concurrency(is_async=self._rabbitry_is_async)
        self._rabbitry_options.out_of_order(is_async=self._rabbitry_is_async)
        if self._rabbitry_options.explicit.get("enable_tensor_transport") is False:
            self._rabbitry_check_tensor_transports()
        if self._rabbitry_options.durable:
            self._rabbitry_check_durable()

    def _rabbitry_check_tensor_transports(self) -> None:
        for name in self._rabbitry_methods:
            options = getattr(getattr(self._rabbitry_cls, name), METHOD_OPTIONS, None)
            if options is not None and options.tensor_transport is not None:
                raise ValueError(
                    f"{self.__name__}.{name} has @method(tensor_transport=...), but the class "
                    "@remote(enable_tensor_transport=False): leave one of them out."
                )

    def _rabbitry_check_durable(self) -> None:
        concurrency = self._rabbitry_options.concurrency(is_async=self._rabbitry_is_async)
        if self._rabbitry_is_async or concurrency > 1 or self._rabbitry_options.concurrency_groups:
            kind = "asynchronous" if self._rabbitry_is_async else "threaded"
            raise ValueError(
                f"durable=True is for actors that run one call at a time, and {self._rabbitry_cls.__name__} is {kind}: "
                "its state between two calls is not one state."
            )

    def __mro_entries__(self, bases: tuple[Any, ...]) -> NoReturn:
        raise ActorClassInheritanceException(
            "Inheriting from actor classes is not currently supported. Inherit from the plain class behind "
            f"'{self._rabbitry_cls.__name__}', and put @remote on the subclass."
        )

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: instances live in processes of their own.

        Raises:
            TypeError: always.
        """
        name = self._rabbitry_cls.__qualname__
        raise TypeError(f"Actors cannot be instantiated directly. Instead of '{name}()', use '{name}.remote()'.")

    if not TYPE_CHECKING:  # checkers know it from Creates

        @property
        def remote(self):
            """Create an actor, with the signature of its constructor; see `_Creation`."""
            return _Creation(ActorClass._rabbitry_create, self)

    @with_public_errors
    def _rabbitry_create(self, *args: Any, **kwargs: Any) -> Handle[T]:
        client = current.client()
        self._rabbitry_signature.check(args, kwargs)
        if _actor_launch_hook is not None:
            given = self._rabbitry_options
            ask(_actor_launch_hook, self._rabbitry_cls, given.running_request(), given.scheduling_strategy)
        exported = self._rabbitry_exported[0]
        if exported is None or exported[0] is not client:
            exported = self._rabbitry_exported[0] = (client, export(self._rabbitry_cls))
        options = self._rabbitry_options
        class_name = writable(self._rabbitry_cls.__qualname__)
        facts = encode_facts(
            Facts(
                class_name,
                self._rabbitry_methods,
                options.max_task_retries,
                options.max_pending_calls,
                options.generator_backpressure,
                options.enable_task_events,
            )
        )
        actor_id, creation_ref, existing = client.actors.create(
            cls=self._rabbitry_cls,
            pickled=exported[1],
            class_name=class_name,
            options=options,
            args=args,
            kwargs=kwargs,
            handle_facts=facts,
            is_async=self._rabbitry_is_async,
        )
        classes[facts] = self._rabbitry_cls
        if existing is not None:
            return handle_from_facts(actor_id, existing, None)
        return handle_from_facts(actor_id, facts, creation_ref)

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """Note an actor in a lazy graph, and return its node; see `rabbitry.dag`."""
        from rabbitry.dag.class_node import ClassNode

        return ClassNode(self, args, kwargs, {})

    def options(self, **options: Unpack[ActorCallOptions]) -> Self:
        """Return the class with other options for actors made through it.

        Raises:
            ValueError: an unknown option or a bad value.
        """
        variant = type(self).__new__(type(self))
        variant.__dict__.update(self.__dict__, _rabbitry_options=self._rabbitry_options.merged(**options))
        variant._rabbitry_check_options()
        return variant

    def _remote(self, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None, **options: Any) -> Any:
        """Create an actor with options of its own; libraries written for Ray use it."""
        target = self.options(**options) if options else self
        return target._rabbitry_create(*(args or ()), **(kwargs or {}))

    @property
    def __ray_metadata__(self) -> ActorClassMetadata:
        return ActorClassMetadata(self._rabbitry_cls)

    @property
    def _default_options(self) -> dict[str, Any]:
        return self._rabbitry_options.given()

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("__", "_rabbitry")):
            raise AttributeError(name)
        try:
            return getattr(self._rabbitry_cls, name)
        except AttributeError as error:
            raise AttributeError(f"{error}.{closest(name, dir(self))}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        # As state, and with all that was computed from the class: one whose methods name it is still without them when
        # the actor class inside of it is made again.
        return ActorClass.__new__, (ActorClass,), {**self.__dict__, "_rabbitry_exported": [None]}

    def __dir__(self) -> list[str]:
        return sorted(
            {"bind", "options", "remote", *(name for name in dir(self._rabbitry_cls) if not name.startswith("_"))}
        )

    def __repr__(self) -> str:
        return f"ActorClass({self._rabbitry_cls.__name__})"


if TYPE_CHECKING:

    class ActorClassByType(CreatesByType[T], ActorClass[T, ...]):
        """An actor class, where the checker finds the constructor in the type of the class (pyright)."""


def make_actor_class(target: type, options: dict[str, Any]) -> ActorClass[Any]:
    """Return the actor class of a plain class; what `@remote` calls.

    Raises:
        ActorClassInheritanceException: `target` is an actor class, or inherits from one.
    """
    if isinstance(target, ActorClass) or any(isinstance(base, ActorClass) for base in target.__mro__):
        raise ActorClassInheritanceException(f"{target!r} is an actor class already.")
    return ActorClass(target, ActorOptions.from_kwargs(**options))


def _methods_of(cls: type) -> dict[str, MethodFacts]:
    methods: dict[str, MethodFacts] = {}
    for name, function in inspect.getmembers(cls, callable):
        if writable(name) != name:
            continue  # what no message can name
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
            pack_in_band(options).data if options is not None else b"",
            settled.num_returns if settled.num_returns is not None else 1,
            pack_in_band(decorator).data if (decorator := getattr(function, CALL_DECORATOR, None)) is not None else b"",
        )
    return methods


def _is_coroutine(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


@with_public_errors
def get_actor(name: str, namespace: str | None = None) -> ActorHandle[Any]:
    """Return a (weak) handle on the living actor of that name.

    Raises:
        ValueError: there is none, or the name or namespace is empty (or None, for the name) or no Unicode text.
        TypeError: not text.
    """
    if name is None or (isinstance(name, str) and not name):
        raise ValueError("Please supply a non-empty value to get_actor: the name of an actor.")  # Ray's class for both
    name = text("the name of an actor", name)
    namespace = optional_namespace("the namespace", namespace)
    actor_id, facts = current.client().actors.lookup(name, namespace)
    return handle_from_facts(actor_id, facts, None)


@with_public_errors
def kill(actor: ActorHandle[Any], *, no_restart: bool = True) -> None:
    """Kill an actor's process at once. Its running and waiting calls fail; its name is free.

    Args:
        actor: a handle.
        no_restart: False to let it restart if it has restarts left.

    Raises:
        ValueError: not a handle.
    """
    if not isinstance(actor, Handle):
        raise ValueError(
            f"{program.name()}.kill() only supported for actors, got {type(actor)}. For tasks there is cancel()."
        )
    no_restart = flag("no_restart", no_restart)
    client = current.client()
    actor._rabbitry_check_session(client)
    client.actors.kill(actor._rabbitry_id, no_restart=no_restart, class_name=actor._rabbitry_facts.class_name)


def checkpoint() -> None:
    """Inside a method of a `durable="explicit"` actor: commit the state with this call.

    Raises:
        TypeError: not inside a durable actor.
    """
    context = task_context()
    if context is None or context.checkpoint is None:
        raise TypeError("checkpoint() is for methods of durable actors")
    context.checkpoint()
