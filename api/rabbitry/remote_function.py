"""`@remote` on functions: `f.remote(...)`, `f.options(...)`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, cast

from rabbitry import by_context, current
from rabbitry.client import Client
from rabbitry.core.submit.plan import Plan
from rabbitry.launch_hooks import LaunchHook, ask
from rabbitry.options import TaskOptions
from rabbitry.outages import raise_public
from rabbitry.remote_call import CALL_DECORATOR, decorated_call
from rabbitry.signature import Signature
from rabbitry.typed_calls import Calls, P, R
from rabbitry.variants import Variants
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.functions import export

if TYPE_CHECKING:
    from typing import Literal, overload

    from typing_extensions import Unpack

    from rabbitry.typed_calls import Items, Several
    from rabbitry.typed_options import TaskCallOptions

_task_launch_hook: LaunchHook | None = None
"""Asked before a function's tasks are submitted; Ray's libraries set it under this name."""

_NAMES = ("__module__", "__name__", "__qualname__", "__doc__")
_TRAVELS = ("_function", "_options", "_signature", *_NAMES)

# What all variants of a function share: the client that has it in its cluster's store, and its content hash there.
_Exported = list[tuple[Client, bytes] | None]


class _State:
    """What a call needs. It knows no RemoteFunction: a cycle would keep what the function's closure holds, refs too."""

    __slots__ = ("__weakref__", "exported", "function", "options", "plan", "plan_client", "signature")

    def __init__(self, function: Callable[..., Any], options: TaskOptions, signature: Signature) -> None:
        self.function = function
        self.options = options
        self.signature = signature
        self._forget()

    def _forget(self) -> None:
        """Begin without what belongs to a session."""
        self.plan: Plan | None = None
        self.plan_client: Client | None = None
        self.exported: _Exported = [None]

    def make_plan(self, client: Client) -> Plan:
        options = self.options
        if _task_launch_hook is not None:
            ask(_task_launch_hook, self.function, options.resource_request(), options.scheduling_strategy)
        detached = options.lifetime == "detached"
        exported = self.exported[0]
        if exported is None or exported[0] is not client or detached:
            digest, pickled = export(self.function)
            client.exports.export(digest, pickled, self.function, detached=detached)
            if detached:
                client.kept_job.hold(for_tasks=True)
            exported = self.exported[0] = (client, digest)
        plan = client.plans.task(exported[1], self.function, options)
        self.plan, self.plan_client = plan, client
        if by_context.decides(options.scheduling_strategy):
            by_context.remember(self)
        return plan

    def __reduce__(self) -> tuple[Any, ...]:
        # Of a pickled `f.remote`: as state, because of functions that name themselves.
        return _State.__new__, (_State,), (self.function, self.options, self.signature)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.function, self.options, self.signature = state
        self._forget()


def _remote_of(state: _State) -> Callable[..., Any]:
    """Return `f.remote`, a function of its own for each `f`: so it can have the signature that the user wrote."""

    def remote(*args: Any, **kwargs: Any) -> Any:  # HOT PATH
        client = current._client
        if client is None:
            client = current.client()
        signature = state.signature
        if kwargs or not signature.low <= len(args) <= signature.high:
            signature.check(args, kwargs)
        plan = state.plan
        try:
            if plan is None or state.plan_client is not client:
                plan = state.make_plan(client)
            return client.submit(plan, args, kwargs)
        except RabbitryBrokerError as error:
            raise_public(error)

    decorator = getattr(state.function, CALL_DECORATOR, None)
    return remote if decorator is None else decorated_call(decorator, remote)


class RemoteFunction(Calls[P, R]):
    """A function that runs as a task: `f.remote(*args)` submits it and returns at once.

    Made by `@rabbitry.remote`. It may be pickled and used inside tasks, its own among them.

    `remote` takes what the function takes, or refs of it; it returns the ref of the result (a list of refs for
    num_returns > 1, None for 0, a generator of refs for streams), and raises TypeError if the arguments do not fit the
    function's signature, or cannot be pickled; RabbitrySystemError if a server stays away.
    """

    def __init__(self, function: Callable[P, R], options: TaskOptions) -> None:
        options = options.for_function(function)
        self._begin(function, _State(function, options, Signature(function)))

    def _begin(self, function: Callable[..., Any], state: _State) -> None:
        functools.update_wrapper(cast(Any, self), function)
        self._function = function
        self._options = state.options
        self._signature = state.signature
        self._state = state
        self._variants: Variants[RemoteFunction[P, Any]] = Variants()
        self.__dict__["remote"] = functools.update_wrapper(_remote_of(state), function)

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: tasks run on the cluster.

        Raises:
            TypeError: always.
        """
        name = f"{self._function.__module__}.{self._function.__qualname__}"
        raise TypeError(
            f"Remote functions cannot be called directly. Instead of running '{name}()', try '{name}.remote()'."
        )

    if not TYPE_CHECKING:  # to checkers it cannot be called
        __call__ = _refuse

    if TYPE_CHECKING:

        @overload
        def options(
            self, *, num_returns: Literal["streaming"], **options: Unpack[TaskCallOptions]
        ) -> RemoteFunction[P, Items[Any]]: ...
        @overload
        def options(  # type: ignore[overload-overlap]
            self, *, num_returns: Literal[1] | None = ..., **options: Unpack[TaskCallOptions]
        ) -> RemoteFunction[P, R]: ...
        @overload
        def options(
            self, *, num_returns: Literal["dynamic"], **options: Unpack[TaskCallOptions]
        ) -> RemoteFunction[P, Any]: ...
        @overload
        def options(self, *, num_returns: int, **options: Unpack[TaskCallOptions]) -> RemoteFunction[P, Several]: ...

    def options(self, **options: Any) -> RemoteFunction[P, Any]:
        """Return this function with other options for the calls made through it; see `rabbitry.remote`.

        Raises:
            ValueError: an unknown option, a bad value, or `max_calls` (which belongs to the decorator).
            TypeError: a value of the wrong type.
        """
        return self._variants.get(options, lambda: self._variant(options))

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """Note a call in a lazy graph, and return its node; see `rabbitry.dag`."""
        from rabbitry.dag.function_node import FunctionNode

        return FunctionNode(self, args, kwargs, {})

    def _variant(self, options: dict[str, Any]) -> RemoteFunction[P, Any]:
        variant: RemoteFunction[P, Any] = RemoteFunction.__new__(RemoteFunction)
        state = {name: getattr(self, name) for name in _TRAVELS}
        variant.__setstate__({**state, "_options": self._options.merged(**options).for_function(self._function)})
        variant._state.exported = self._state.exported
        return variant

    def _remote(self, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None, **options: Any) -> Any:
        """Submit with options for this call; libraries written for Ray use it."""
        function: RemoteFunction[..., Any] = self.options(**options) if options else self
        return function.remote(*(args or ()), **(kwargs or {}))

    @property
    def _default_options(self) -> dict[str, Any]:
        return self._options.given()

    @property
    def _plan(self) -> Plan | None:
        return self._state.plan

    def __reduce__(self) -> tuple[Any, ...]:
        # As state, and with what was computed from the function: one that names itself has neither its defaults nor
        # its name yet when the wrapper inside of it is made again.
        state = {name: getattr(self, name) for name in _TRAVELS}
        return RemoteFunction.__new__, (RemoteFunction,), state

    def __setstate__(self, state: dict[str, Any]) -> None:
        function = state["_function"]
        self._begin(function, _State(function, state["_options"], state["_signature"]))
        remote = self.__dict__["remote"]
        for name in _NAMES:
            self.__dict__[name] = state[name]
            setattr(remote, name, state[name])

    def __dir__(self) -> list[str]:
        return ["bind", "options", "remote"]

    def __repr__(self) -> str:
        return f"RemoteFunction({self._function.__module__}.{self._function.__qualname__})"
