"""`@remote` on functions: `f.remote(...)`, `f.options(...)`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn

from warren import current
from warren.client import Client
from warren.options import TaskOptions
from warren.plans import plan_for
from warren.signature import Signature
from warren.submit import Plan
from warren_broker.functions import export

_TRAVELS = ("_function", "_options", "_signature", "__module__", "__name__", "__qualname__", "__doc__")


class RemoteFunction:
    """A function that runs as a task: `f.remote(*args)` submits it and returns at once.

    Made by `@warren.remote`. It may be pickled and used inside tasks, its own among them.
    """

    def __init__(self, function: Callable[..., Any], options: TaskOptions) -> None:
        self._function = function
        self._options = options.for_function(function)
        self._signature = Signature(function)
        self._plan: Plan | None = None
        self._plan_client: Client | None = None
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: tasks run on the cluster.

        Raises:
            TypeError: always.
        """
        name = self._function.__name__
        raise TypeError(
            f"Remote functions cannot be called directly. Instead of running '{name}()', try '{name}.remote()'."
        )

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Submit the task; return its ref (a list for num_returns > 1, None for 0, a generator for streams).

        Raises:
            TypeError: the arguments do not fit the function's signature, or cannot be pickled.
        """
        client = current._client
        if client is None:
            client = current.client()
        signature = self._signature
        if kwargs or not signature.low <= len(args) <= signature.high:
            signature.check(args, kwargs)
        plan = self._plan
        if plan is None or self._plan_client is not client:
            plan = self._make_plan(client)
        return client.submit(plan, args, kwargs)

    def options(self, **options: Any) -> RemoteFunction:
        """Return this function with other options for the calls made through it; see `warren.remote`.

        Raises:
            ValueError: an unknown option, a bad value, or `max_calls` (which belongs to the decorator).
            TypeError: a value of the wrong type.
        """
        return RemoteFunction(self._function, self._options.merged(**options))

    def _remote(self, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None, **options: Any) -> Any:
        """Submit with options for this call; libraries written for Ray use it."""
        function = self.options(**options) if options else self
        return function.remote(*(args or ()), **(kwargs or {}))

    @property
    def _default_options(self) -> dict[str, Any]:
        return self._options.given()

    def _make_plan(self, client: Client) -> Plan:
        # Set before the export: a recursive function pickles a wrapper of itself on the way.
        options = self._options
        digest, pickled = export(self._function)
        client.export(digest, pickled)
        plan = plan_for(client, digest, self._function, options)
        client.plans.setdefault(digest, []).append(plan)
        self._plan, self._plan_client = plan, client
        return plan

    def __reduce__(self) -> tuple[Any, ...]:
        # As state, and with what was computed from the function: one that names itself has neither its defaults nor
        # its name yet when the wrapper inside of it is made again.
        state = {name: getattr(self, name) for name in _TRAVELS}
        return RemoteFunction.__new__, (RemoteFunction,), state

    def __setstate__(self, state: dict[str, Any]) -> None:
        functools.update_wrapper(self, state["_function"])
        self.__dict__.update(state, _plan=None, _plan_client=None)

    def __repr__(self) -> str:
        return f"RemoteFunction({self._function.__module__}.{self._function.__qualname__})"
