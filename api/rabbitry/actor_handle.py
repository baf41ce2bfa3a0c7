"""Handles on actors, and their methods."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakValueDictionary

import msgspec

from rabbitry import current
from rabbitry.client import Client
from rabbitry.core.submit.plan import Plan
from rabbitry.exceptions import ActorHandleNotFoundError, PendingCallsLimitExceeded
from rabbitry.ids import ActorID
from rabbitry.object_ref import ObjectRef
from rabbitry.options import MethodOptions
from rabbitry.outages import raise_public, with_public_errors
from rabbitry.remote_call import DocOfInstance, RemoteCall, decorated_call, described
from rabbitry.signature import Signature
from rabbitry.suggestions import closest
from rabbitry.typed_calls import Calls, Handles, P, R, T
from rabbitry.variants import Variants
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.pickling import register_ref_class

if TYPE_CHECKING:
    from typing import Literal, overload

    from typing_extensions import Unpack

    from rabbitry.typed_calls import Items, Several
    from rabbitry.typed_options import MethodCallOptions

SPECIAL_METHODS = ("__ray_ready__", "__ray_terminate__", "__ray_call__")


class MethodFacts(msgspec.Struct, array_like=True, frozen=True):
    """What a handle knows of a method.

    Attributes:
        parameters: of its signature, without `self`.
        options: given to `@method`, pickled; b"" for none.
        returns: results a call has if nothing else is said.
        decorator: of its calls (see `decorated_call`), pickled; b"" for none.
    """

    parameters: list[tuple[str, int, bool]]
    options: bytes
    returns: int | str
    decorator: bytes = b""


class Facts(msgspec.Struct, array_like=True, frozen=True):
    """What a handle is made of; kept in the actor's record too.

    Attributes:
        class_name: of the actor's class, with what that stands in: `Outer.Inner`.
        methods: by name.
        max_task_retries: default of its methods.
        max_pending_calls: limit of unfinished calls of a handle; -1 for none.
        generator_backpressure: default of its streaming methods.
        events: default of its methods: whether what becomes of calls is recorded.
    """

    class_name: str
    methods: dict[str, MethodFacts]
    max_task_retries: int
    max_pending_calls: int
    generator_backpressure: int = -1
    events: bool = True

    @property
    def short_name(self) -> str:
        """The name of the class alone, as in the names of calls."""
        return self.class_name.rpartition(".")[2]


encode_facts = msgspec.msgpack.Encoder().encode
_decode_facts = msgspec.msgpack.Decoder(Facts).decode


classes: WeakValueDictionary[bytes, type] = WeakValueDictionary()
"""The classes of which this process made actors, by their packed facts: where docstrings and annotations are known."""


def unpack_facts(packed: bytes) -> Facts:
    """Return the facts that an actor's record or specification holds."""
    return _decode_facts(packed)


class _Method:
    """What is computed once for a method of one handle. It knows no handle: a cycle would keep actors alive."""

    __slots__ = ("decorated", "facts", "limit", "name", "options", "plan", "plan_client", "signature", "variants")

    def __init__(self, of: Facts, name: str, facts: MethodFacts, options: MethodOptions) -> None:
        self.name = name
        self.facts = facts
        self.options = options
        self.decorated: tuple[Callable[..., Any], _Method] | None = None
        if facts.decorator:
            plain = _Method(of, name, msgspec.structs.replace(facts, decorator=b""), options)
            self.decorated = _load(facts.decorator), plain
        parameters = tuple((each, kind, default) for each, kind, default in facts.parameters)
        self.signature = Signature._of_parameters(f"{of.short_name}.{name}", parameters)
        self.limit = of.max_pending_calls
        self.plan: Plan | None = None
        self.plan_client: Client | None = None
        self.variants: Variants[_Method] = Variants()


class _MethodCall(RemoteCall):
    """`handle.method.remote`: sends a call; returns its ref (a list, None or a generator as `num_returns` says).

    Raises:
        TypeError: the arguments do not fit, or cannot be pickled.
        PendingCallsLimitExceeded: more unfinished calls than `max_pending_calls`.
    """

    __slots__ = ()

    def _facts(self) -> tuple[str, inspect.Signature, str | None]:
        return self.args[0]._facts()  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.args[0], "remote")


_MethodCall.__doc__ = DocOfInstance(str(_MethodCall.__doc__), lambda call: call._facts()[2])  # type: ignore[assignment]


def _send(actor_method: ActorMethod[..., Any], *args: Any, **kwargs: Any) -> Any:  # HOT PATH
    client = current._client
    if client is None:
        client = current.client()
    bound = actor_method._method
    if bound.decorated is not None:
        decorator, plain = bound.decorated
        return decorated_call(decorator, ActorMethod(actor_method._handle, plain).remote)(*args, **kwargs)
    signature = bound.signature
    if kwargs or not signature.low <= len(args) <= signature.high:
        signature.check(args, kwargs)
    plan = bound.plan
    if plan is None or bound.plan_client is not client:
        plan = with_public_errors(actor_method._make_plan)(client)
    limit = bound.limit
    if limit > 0 and client.actors.pending(actor_method._handle._rabbitry_id) >= limit:
        raise PendingCallsLimitExceeded(
            f"The actor {actor_method._handle!r} has {limit} unfinished calls of this process, as many as "
            "max_pending_calls allows. Wait for some of them."
        )
    try:
        return client.actors.call(plan, args, kwargs)
    except RabbitryBrokerError as error:
        raise_public(error)


class ActorMethod(Calls[P, R]):
    """A method of an actor, bound to a handle: `handle.method.remote(...)`."""

    __slots__ = ("_handle", "_method")

    def __init__(self, handle: ActorHandle[Any], bound: _Method) -> None:
        self._handle = handle
        self._method = bound

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: a method runs where its actor is.

        Raises:
            TypeError: always.
        """
        name = self._method.name
        raise TypeError(
            f"Actor methods cannot be called directly. Instead of running 'object.{name}()', "
            f"try 'object.{name}.remote()'."
        )

    if not TYPE_CHECKING:  # to checkers it cannot be called, and `remote` they know from Calls
        __call__ = _refuse

        # In C alone: `_MethodCall(_send, self)`.
        remote = property(functools.partial(_MethodCall, _send))

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """Note a call in a lazy graph; return its node (a tuple, for several results); see `rabbitry.dag`."""
        from rabbitry.dag.class_node import bind_method

        return bind_method(self, args, kwargs)

    def _make_plan(self, client: Client) -> Plan:
        handle, bound = self._handle, self._method
        handle._rabbitry_check_session(client)
        facts, options = handle._rabbitry_facts, bound.options
        options = msgspec.structs.replace(
            options,
            num_returns=bound.facts.returns if options.num_returns is None else options.num_returns,
            max_task_retries=facts.max_task_retries if options.max_task_retries is None else options.max_task_retries,
            generator_backpressure=facts.generator_backpressure
            if options.generator_backpressure is None
            else options.generator_backpressure,
            enable_task_events=facts.events if options.enable_task_events is None else options.enable_task_events,
        )
        bound.plan = client.actors.method_plan(handle._rabbitry_id, facts.short_name, bound.name, options)
        bound.plan_client = client
        return bound.plan

    if TYPE_CHECKING:

        @overload
        def options(
            self, *, num_returns: Literal["streaming"], **options: Unpack[MethodCallOptions]
        ) -> ActorMethod[P, Items[Any]]: ...
        @overload
        def options(  # type: ignore[overload-overlap]
            self, *, num_returns: Literal[1] | None = ..., **options: Unpack[MethodCallOptions]
        ) -> ActorMethod[P, R]: ...
        @overload
        def options(
            self, *, num_returns: Literal["dynamic"], **options: Unpack[MethodCallOptions]
        ) -> ActorMethod[P, Any]: ...
        @overload
        def options(self, *, num_returns: int, **options: Unpack[MethodCallOptions]) -> ActorMethod[P, Several]: ...

    def options(self, **options: Any) -> ActorMethod[P, Any]:
        """Return the method with other options for the calls made through it."""
        bound, of = self._method, self._handle._rabbitry_facts
        variant = bound.variants.get(
            options, lambda: _Method(of, bound.name, bound.facts, bound.options.merged(**options))
        )
        return ActorMethod(self._handle, variant)

    def _remote(self, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None, **options: Any) -> Any:
        """Send a call with options of its own; libraries written for Ray use it."""
        target: ActorMethod[..., Any] = self.options(**options) if options else self
        return target.remote(*(args or ()), **(kwargs or {}))

    def _facts(self) -> tuple[str, inspect.Signature, str | None]:
        """Return name, signature and docstring; without annotations and docstring where the class is not known."""
        bound, handle = self._method, self._handle
        name = f"{handle._rabbitry_facts.short_name}.{bound.name}"
        cls = classes.get(handle._rabbitry_packed_facts)
        if cls is not None:
            try:
                return name, *described(cls, bound.name)
            except (ValueError, TypeError, AttributeError):
                pass
        return name, bound.signature.inspected(), None

    @property
    def __name__(self) -> str:
        return self._method.name

    @property
    def __signature__(self) -> inspect.Signature:
        return self._facts()[1]

    def __dir__(self) -> list[str]:
        return ["bind", "options", "remote"]

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_method, (self._handle, self._method.name, self._method.options)

    def __repr__(self) -> str:
        return f"ActorMethod({self._handle._rabbitry_facts.short_name}.{self._method.name})"


ActorMethod.__doc__ = DocOfInstance(str(ActorMethod.__doc__), lambda method: method._facts()[2])  # type: ignore[assignment]


def _restore_method(handle: ActorHandle[Any], name: str, options: MethodOptions) -> ActorMethod[..., Any]:
    facts = handle._rabbitry_method_facts(name)
    return ActorMethod(handle, _Method(handle._rabbitry_facts, name, facts, options))


_new_method = ActorMethod.__new__


class ActorHandle(Handles[T]):
    """A handle on an actor: its methods are `handle.method.remote(...)`.

    Strong handles (from creation, or passed along) keep the actor alive; those of `get_actor` do not.

    What is not a method of the actor has a name that begins with `_rabbitry`, `_ray`, `_repr_html_`, `_actor_id` or
    `_get_local_state`: any other name is free for methods.
    """

    def __init__(self, actor_id: bytes, facts: bytes, creation_ref: ObjectRef[Any] | None) -> None:
        self._rabbitry_id = actor_id
        self._rabbitry_packed_facts = facts
        self._rabbitry_facts = _decode_facts(facts)
        self._rabbitry_creation_ref = creation_ref
        self._rabbitry_client = current.peek()
        self._rabbitry_methods: dict[str, _Method] = {}

    def _rabbitry_method(self, name: str) -> ActorMethod[..., Any]:
        try:
            bound = self.__dict__["_rabbitry_methods"][name]
        except KeyError:
            bound = self._rabbitry_bind(name)
        # HOT PATH: without a call of `__init__`.
        method: ActorMethod[..., Any] = _new_method(ActorMethod)
        method._handle = self
        method._method = bound
        return method

    def _rabbitry_bind(self, name: str) -> _Method:
        if "_rabbitry_methods" not in self.__dict__:
            raise AttributeError(name)  # while it is being made
        facts = self._rabbitry_method_facts(name)
        options: MethodOptions = _load(facts.options) if facts.options else MethodOptions()
        bound = self._rabbitry_methods[name] = _Method(self._rabbitry_facts, name, facts, options)
        return bound

    if not TYPE_CHECKING:  # checkers find the methods in the class; see `rabbitry.actor.ActorHandle`
        __getattr__ = _rabbitry_method

    def _rabbitry_method_facts(self, name: str) -> MethodFacts:
        facts = self._rabbitry_facts.methods.get(name)
        if facts is None:
            if name in SPECIAL_METHODS:
                return _ANYTHING
            known = self._rabbitry_facts.methods
            raise AttributeError(
                f"'{self._rabbitry_facts.class_name}' object has no attribute '{name}'.{closest(name, known)}"
                + ("" if known else " It has no methods.")
            )
        return facts

    def _rabbitry_check_session(self, client: Client) -> None:
        if self._rabbitry_client is not None and self._rabbitry_client is not client:
            raise ActorHandleNotFoundError(
                f"{self!r} belongs to a session that was shut down. Create the actor again, or get_actor() "
                "a detached one."
            )
        self._rabbitry_client = client

    @property
    def _actor_id(self) -> ActorID:
        return ActorID(self._rabbitry_id)

    _ray_actor_id = _actor_id

    def _get_local_state(self) -> int | None:
        """Return the actor's state by its record, as Ray numbers them; None if there is no record (any more).

        1 is waiting for its creation, 2 alive, 3 restarting, 4 dead.
        """
        client = current.client()
        self._rabbitry_check_session(client)
        if client.actors.known_dead(self._rabbitry_id):
            return _STATE_NUMBERS["DEAD"]  # the node that ends it may not have said so yet
        client.outbox.flush()
        return _STATE_NUMBERS.get(client.actors.state_of(self._rabbitry_id))

    def __dir__(self) -> list[str]:
        return sorted(name for name in self._rabbitry_facts.methods if not name.startswith("_"))

    def __hash__(self) -> int:
        return hash(self._rabbitry_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and other._rabbitry_id == self._rabbitry_id

    def __repr__(self) -> str:
        return f"Actor({self._rabbitry_facts.class_name}, {self._rabbitry_id.hex()})"

    def _repr_html_(self) -> str:
        from rabbitry.notebook import table

        name = self._rabbitry_facts.class_name
        return table(f"Actor {name}", [("id", self._rabbitry_id.hex()), ("methods", ", ".join(dir(self)))])

    def __reduce__(self) -> tuple[Any, ...]:
        return handle_from_facts, (self._rabbitry_id, self._rabbitry_packed_facts, self._rabbitry_creation_ref)

    def __getstate__(self) -> NoReturn:
        raise TypeError("handles are pickled by __reduce__")


_STATE_NUMBERS = {"PENDING": 1, "ALIVE": 2, "RESTARTING": 3, "DEAD": 4}
_ANYTHING = MethodFacts([("args", 2, False), ("kwargs", 4, False)], b"", 1)
ActorHandle.__module__ = ActorMethod.__module__ = "rabbitry.actor"  # where users find them
register_ref_class(ActorHandle)


def _load(data: bytes) -> Any:
    import pickle

    return pickle.loads(data)


def handle_from_facts(actor_id: bytes, facts: bytes, creation_ref: ObjectRef[Any] | None) -> ActorHandle[Any]:
    """Return a handle made of what its actor's record holds; weak if `creation_ref` is None."""
    return ActorHandle(actor_id, facts, creation_ref)
