"""The processes of a pool: actors that run chunks of calls."""

from __future__ import annotations

import functools
import os
import pickle
import types
from collections.abc import Callable, Sequence
from typing import Any, Final

from rabbitry.calls import get, put
from rabbitry.exceptions import capture_task_error
from rabbitry.object_ref import ObjectRef
from rabbitry.runtime_context import task_context
from rabbitry_broker.functions import export

INLINE_BYTES: Final = 64 * 1024
"""Functions up to this size travel with each chunk; larger ones are put once."""

_REMEMBERED: Final = 16  # functions that a process keeps

Reply = tuple[list[Any], dict[int, bytes]]
"""What a chunk returns: the results in order (None where a call failed), and the failures by position."""


class SentFunction:
    """A function pickled once for all chunks of a call of the pool.

    Raises:
        TypeError: it cannot be pickled.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.digest, pickled = export(function)
        # In a list a ref is not replaced by its value: who has the function already need not load it.
        self.payload: bytes | list[ObjectRef[Any]] = pickled if len(pickled) <= INLINE_BYTES else [put(pickled)]


class Worker:
    """One process of a pool.

    Args:
        initializer: called first of all; None for nothing.
        initargs: its arguments.
    """

    def __init__(self, initializer: Callable[..., Any] | None, initargs: Sequence[Any]) -> None:
        self._functions: dict[bytes, Callable[..., Any]] = {}
        self._set: dict[str, dict[str, Any]] = {}  # by module: globals that the initializer set
        if initializer is not None:
            plain = _plain_function(initializer)
            before = dict(plain.__globals__) if plain else {}
            initializer(*initargs)
            if plain is not None:
                self._set[plain.__module__] = {
                    name: value
                    for name, value in plain.__globals__.items()
                    if name not in before or before[name] is not value
                }

    def run(self, digest: bytes, payload: bytes | list[ObjectRef[Any]], how: str, calls: Sequence[Any]) -> Reply:
        """Call a function for each element of `calls`; a failure does not keep the rest from running.

        Args:
            digest: identifies the function.
            payload: its pickle, or a list with a ref to that.
            how: "map" for one argument each, "starmap" for several, "apply" for (args, kwargs).
            calls: what to call it with.
        """
        function = self._functions.get(digest) or self._load(digest, payload)
        results: list[Any] = []
        failures: dict[int, bytes] = {}
        for each in calls:
            try:
                if how == "map":
                    results.append(function(each))
                elif how == "starmap":
                    results.append(function(*each))
                else:
                    results.append(function(*each[0], **each[1]))
            except Exception as error:  # noqa: BLE001  whatever the function raises is a result
                failures[len(results)] = _captured(function, error)
                results.append(None)
        return results, failures

    def _load(self, digest: bytes, payload: bytes | list[ObjectRef[Any]]) -> Callable[..., Any]:
        function: Callable[..., Any] = pickle.loads(payload if isinstance(payload, bytes) else get(payload[0]))
        plain = _plain_function(function)
        if plain is not None and plain.__module__ in self._set:
            # What travels by value brings its own globals: what the initializer set would not be among them.
            plain.__globals__.update(self._set[plain.__module__])
        if len(self._functions) >= _REMEMBERED:
            self._functions.pop(next(iter(self._functions)))
        self._functions[digest] = function
        return function


def _plain_function(function: Any) -> types.FunctionType | None:
    """Return the Python function behind a partial or a bound method, None if there is none."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    return function if isinstance(function, types.FunctionType) else None


def _captured(function: Any, error: BaseException) -> bytes:
    context = task_context()
    node = context.node_id.hex() if context is not None else ""
    return capture_task_error(error, getattr(function, "__qualname__", repr(function)), os.getpid(), node)
