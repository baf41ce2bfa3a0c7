# mypy: disable-error-code="overload-overlap"
"""What type checkers know of `remote(...)`: this file is for them alone, `typed_calls.py` is what runs.

A call takes what the function takes, by position or by keyword, and instead of each of the first ten positional
arguments a ref of it (as Ray's types do; a keyword takes the plain value only). What it returns depends on what the
function returns: a generator is read item by item, a coroutine is awaited by its actor.

Each class describes its function by the property `_rabbitry_calls`, which no program sees: an overload asks whether
this `Has` the form it is for. (A ParamSpec is invariant where it stands alone, a property of that type is not.) The
overloads are in the order of the kinds of results, within a kind by the number of arguments that may be refs.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, Protocol, TypeAlias, TypeVar, overload

from typing_extensions import ParamSpec as ParamSpecWithDefault
from typing_extensions import TypeVar as TypeVarWithDefault

from rabbitry.actor import ActorProxy
from rabbitry.actor_handle import ActorMethod
from rabbitry.generators import ObjectRefGenerator
from rabbitry.object_ref import ObjectRef

# Of the public classes: who leaves them out means anything.
P = ParamSpecWithDefault("P", default=...)
R = TypeVarWithDefault("R", default=Any, covariant=True)
T = TypeVarWithDefault("T", default=Any)
Result = TypeVarWithDefault("Result", default=Any)

P_in = ParamSpec("P_in")
Q = ParamSpec("Q")
S = TypeVar("S", contravariant=True)
T_co = TypeVar("T_co", covariant=True)
Y = TypeVar("Y")
Z = TypeVar("Z")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
H = TypeVar("H")
I = TypeVar("I")
J = TypeVar("J")

Arg: TypeAlias = Z | ObjectRef[Z]
Items: TypeAlias = Iterator[Y] | AsyncIterator[Y]

class Unknown:
    """Nothing returns this: what matches it returns Any."""

class Several:
    """Stands for what a function returns of whose results each has a ref (`num_returns=2`)."""

class Has(Protocol[T_co]):
    @property
    def _rabbitry_calls(self) -> T_co: ...

class ClassOf(Protocol[P_in, T_co]):
    """A class, with what its constructor takes; mypy knows this of one, pyright does not."""

    def __call__(self, *args: P_in.args, **kwargs: P_in.kwargs) -> T_co: ...
    @property
    def __mro__(self) -> tuple[type, ...]: ...

# fmt: off
class Calls(Generic[P, R]):
    """What remote functions and methods of actors have in common: `remote`."""

    @property
    def _rabbitry_calls(self) -> Callable[P, R]: ...

    @overload
    def remote(self: Has[Callable[Q, Unknown]], *args: Q.args, **kwargs: Q.kwargs) -> ObjectRef[Any]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, Q], Unknown]],
        a: Arg[A], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Any]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, Q], Unknown]],
        a: Arg[A], b: Arg[B], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Any]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, Q], Unknown]],
        a: Arg[A], b: Arg[B], c: Arg[C], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Any]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, Q], Unknown]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Any]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, Q], Unknown]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Any]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, Q], Unknown]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Any]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, Q], Unknown]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Any]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, H, Q], Unknown]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], h: Arg[H], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Any]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, H, I, Q], Unknown]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], h: Arg[H], i: Arg[I], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Any]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, H, I, J, Q], Unknown]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], h: Arg[H], i: Arg[I], j: Arg[J], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Any]: ...
    @overload
    def remote(self: Has[Callable[Q, Several]], *args: Q.args, **kwargs: Q.kwargs) -> list[ObjectRef[Any]]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, Q], Several]],
        a: Arg[A], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> list[ObjectRef[Any]]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, Q], Several]],
        a: Arg[A], b: Arg[B], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> list[ObjectRef[Any]]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, Q], Several]],
        a: Arg[A], b: Arg[B], c: Arg[C], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> list[ObjectRef[Any]]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, Q], Several]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> list[ObjectRef[Any]]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, Q], Several]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> list[ObjectRef[Any]]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, Q], Several]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> list[ObjectRef[Any]]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, Q], Several]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> list[ObjectRef[Any]]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, H, Q], Several]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], h: Arg[H], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> list[ObjectRef[Any]]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, H, I, Q], Several]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], h: Arg[H], i: Arg[I], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> list[ObjectRef[Any]]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, H, I, J, Q], Several]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], h: Arg[H], i: Arg[I], j: Arg[J], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> list[ObjectRef[Any]]: ...
    @overload
    def remote(self: Has[Callable[Q, Items[Y]]], *args: Q.args, **kwargs: Q.kwargs) -> ObjectRefGenerator[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, Q], Items[Y]]],
        a: Arg[A], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRefGenerator[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, Q], Items[Y]]],
        a: Arg[A], b: Arg[B], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRefGenerator[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, Q], Items[Y]]],
        a: Arg[A], b: Arg[B], c: Arg[C], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRefGenerator[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, Q], Items[Y]]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRefGenerator[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, Q], Items[Y]]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRefGenerator[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, Q], Items[Y]]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRefGenerator[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, Q], Items[Y]]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRefGenerator[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, H, Q], Items[Y]]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], h: Arg[H], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRefGenerator[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, H, I, Q], Items[Y]]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], h: Arg[H], i: Arg[I], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRefGenerator[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, H, I, J, Q], Items[Y]]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], h: Arg[H], i: Arg[I], j: Arg[J], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRefGenerator[Y]: ...
    @overload
    def remote(self: Has[Callable[Q, Coroutine[Any, Any, Y]]], *args: Q.args, **kwargs: Q.kwargs) -> ObjectRef[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, Q], Coroutine[Any, Any, Y]]],
        a: Arg[A], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, Q], Coroutine[Any, Any, Y]]],
        a: Arg[A], b: Arg[B], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, Q], Coroutine[Any, Any, Y]]],
        a: Arg[A], b: Arg[B], c: Arg[C], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, Q], Coroutine[Any, Any, Y]]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, Q], Coroutine[Any, Any, Y]]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, Q], Coroutine[Any, Any, Y]]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, Q], Coroutine[Any, Any, Y]]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, H, Q], Coroutine[Any, Any, Y]]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], h: Arg[H], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, H, I, Q], Coroutine[Any, Any, Y]]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], h: Arg[H], i: Arg[I], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Y]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, H, I, J, Q], Coroutine[Any, Any, Y]]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], h: Arg[H], i: Arg[I], j: Arg[J], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Y]: ...
    @overload
    def remote(self: Has[Callable[Q, Z]], *args: Q.args, **kwargs: Q.kwargs) -> ObjectRef[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, Q], Z]],
        a: Arg[A], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, Q], Z]],
        a: Arg[A], b: Arg[B], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, Q], Z]],
        a: Arg[A], b: Arg[B], c: Arg[C], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, Q], Z]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, Q], Z]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, Q], Z]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, Q], Z]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, H, Q], Z]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], h: Arg[H], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, H, I, Q], Z]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], h: Arg[H], i: Arg[I], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, H, I, J, Q], Z]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], h: Arg[H], i: Arg[I], j: Arg[J], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ObjectRef[Z]: ...

class Handles(Generic[T]):
    """Base of ActorHandle, whose type is that of a handle or of the class: what only the class has counts."""

    def __getattr__(self, name: str, /) -> NoReturn: ...

class MethodOf(Generic[S, P_in, T_co]):
    """What `@method` makes of a function: a method of the instances, a remote one of the class (and so of handles)."""

    @overload
    def __get__(self, instance: None, owner: type[Any], /) -> ActorMethod[P_in, T_co]: ...
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None, /) -> Callable[P_in, T_co]: ...
    def __call__(self, instance: S, /, *args: P_in.args, **kwargs: P_in.kwargs) -> T_co: ...

class Creates(Generic[T, P]):
    """What actor classes have: `remote`."""

    @property
    def _rabbitry_calls(self) -> Callable[P, T]: ...

    @overload
    def remote(self: Has[Callable[Q, Z]], *args: Q.args, **kwargs: Q.kwargs) -> ActorProxy[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, Q], Z]],
        a: Arg[A], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ActorProxy[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, Q], Z]],
        a: Arg[A], b: Arg[B], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ActorProxy[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, Q], Z]],
        a: Arg[A], b: Arg[B], c: Arg[C], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ActorProxy[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, Q], Z]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ActorProxy[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, Q], Z]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ActorProxy[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, Q], Z]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ActorProxy[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, Q], Z]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ActorProxy[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, H, Q], Z]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], h: Arg[H], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ActorProxy[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, H, I, Q], Z]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], h: Arg[H], i: Arg[I], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ActorProxy[Z]: ...
    @overload
    def remote(
        self: Has[Callable[Concatenate[A, B, C, D, E, F, G, H, I, J, Q], Z]],
        a: Arg[A], b: Arg[B], c: Arg[C], d: Arg[D], e: Arg[E], f: Arg[F], g: Arg[G], h: Arg[H], i: Arg[I], j: Arg[J], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> ActorProxy[Z]: ...

class CreatesByType(Creates[T, ...]):
    """The same, where the checker finds the constructor in the type of the class (pyright)."""

    @property
    def _rabbitry_calls(self) -> type[T]: ...
