"""`@remote`: makes remote functions and actor classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from warren.options import TaskOptions
from warren.remote_function import RemoteFunction


def remote(*args: Any, **options: Any) -> Any:
    """Make a function a remote function, or a class an actor class.

    Used bare (`@remote`) or with options (`@remote(num_cpus=2)`); see `warren.options.TaskOptions` for what a task
    takes and `warren.options.ActorOptions` for actors.

    Raises:
        TypeError: not a function or class.
        ValueError: an unknown option or a bad value.
        AssertionError: `@remote()` with empty parentheses, or positional arguments.

    Example:
        >>> @remote(num_cpus=0.5)
        ... def double(x):
        ...     return 2 * x
    """
    if len(args) == 1 and not options and (callable(args[0]) or not isinstance(args[0], (str, int, float, dict))):
        return _make(args[0], {})
    assert bool(options) and not args, (  # noqa: PT018  one rule, one message
        "The @remote decorator must be applied either with no arguments and no parentheses, or with keyword "
        "arguments, for example '@remote(num_returns=2)'."
    )

    def decorate(target: Any) -> Any:
        return _make(target, options)

    return decorate


def _make(target: Callable[..., Any] | type, options: dict[str, Any]) -> Any:
    if inspect.isclass(target):
        from warren.actor import ActorClass

        return ActorClass.make(target, options)
    if inspect.isfunction(target):
        return RemoteFunction(target, TaskOptions.from_kwargs(**options))
    raise TypeError(f"The @remote decorator must be applied to a function or a class, got {target!r}.")
