"""`@remote`: makes remote functions and actor classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from rabbitry.arguments import shown
from rabbitry.options import TaskOptions
from rabbitry.remote_function import RemoteFunction

if TYPE_CHECKING:
    from typing import Literal, Protocol

    from typing_extensions import Unpack

    from rabbitry.actor import ActorClass, ActorClassByType
    from rabbitry.typed_calls import ClassOf, Items, Several
    from rabbitry.typed_options import ActorOptions as ActorOptionDict
    from rabbitry.typed_options import PlacedOptions
    from rabbitry.typed_options import TaskOptions as TaskOptionDict

    class _ForClasses(Protocol):
        @overload
        def __call__(self, target: ClassOf[P, T], /) -> ActorClass[T, P]: ...
        @overload
        def __call__(self, target: type[T], /) -> ActorClassByType[T]: ...

    class _ForFunctions(Protocol):
        def __call__(self, target: Callable[P, R], /) -> RemoteFunction[P, R]: ...

    class _ForGenerators(Protocol):
        def __call__(self, target: Callable[P, Items[R]], /) -> RemoteFunction[P, Items[R]]: ...

    class _ForSeveral(Protocol):
        def __call__(self, target: Callable[P, Any], /) -> RemoteFunction[P, Several]: ...

    class _ForBoth(Protocol):
        @overload
        def __call__(self, target: ClassOf[P, T], /) -> ActorClass[T, P]: ...  # type: ignore[overload-overlap]
        @overload
        def __call__(self, target: type[T], /) -> ActorClassByType[T]: ...  # type: ignore[overload-overlap]
        @overload
        def __call__(self, target: Callable[P, R], /) -> RemoteFunction[P, R]: ...


P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@overload
def remote(target: ClassOf[P, T], /) -> ActorClass[T, P]: ...  # type: ignore[overload-overlap]
@overload
def remote(target: type[T], /) -> ActorClassByType[T]: ...  # type: ignore[overload-overlap]
@overload
def remote(target: Callable[P, R], /) -> RemoteFunction[P, R]: ...
@overload
def remote(**options: Unpack[PlacedOptions]) -> _ForBoth: ...
@overload
def remote(*, num_returns: Literal["streaming"], **options: Unpack[TaskOptionDict]) -> _ForGenerators: ...
@overload
def remote(*, num_returns: Literal[1, "dynamic"] | None = ..., **options: Unpack[TaskOptionDict]) -> _ForFunctions: ...
@overload
def remote(*, num_returns: int, **options: Unpack[TaskOptionDict]) -> _ForSeveral: ...
@overload
def remote(**options: Unpack[ActorOptionDict]) -> _ForClasses: ...
def remote(*args: Any, **options: Any) -> Any:
    """Make a function a remote function, or a class an actor class.

    Used bare (`@remote`) or with options (`@remote(num_cpus=2)`); see `rabbitry.options.TaskOptions` for what a task
    takes and `rabbitry.options.ActorOptions` for actors.

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
        from rabbitry.actor import make_actor_class

        return make_actor_class(target, options)
    if inspect.isfunction(target):
        return RemoteFunction(target, TaskOptions.from_kwargs(**options))
    raise TypeError(f"The @remote decorator must be applied to a function or a class, got {shown(target)}.")
