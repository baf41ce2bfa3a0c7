"""Check the arguments of a remote call against the function's signature, where the call is written.

HOT PATH (watched by `benchmarks/`, workload `submit`): a call is checked before each submission. Whether it fits
depends only on how many positional arguments it has and which keywords, so

- a call without keywords needs two comparisons, which callers may write out themselves:
  `if kwargs or not signature.low <= len(args) <= signature.high: signature.check(args, kwargs)`;
- a shape with keywords is bound once and remembered.

A Signature keeps names and kinds but no default values and no function, so that it can travel with an actor handle.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType
from typing import Any, Final

_NEVER: Final = sys.maxsize
# Enough for every way a program spells its calls; a function with **kwargs can have any number of shapes.
_MAX_SHAPES: Final = 256

_Kind = inspect._ParameterKind
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

# What `__init__` and `__new__` are in a class that defines neither in Python.
_NATIVE: Final = (BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType)

Parameters = tuple[tuple[str, int, bool], ...]
"""Name, kind (as in `inspect.Parameter.kind`) and whether there is a default, of each parameter."""

_ANYTHING: Final[Parameters] = (
    ("args", int(inspect.Parameter.VAR_POSITIONAL), False),
    ("kwargs", int(inspect.Parameter.VAR_KEYWORD), False),
)


class Signature:
    """What arguments a function takes: `Signature(function)`, `Signature.of_method`, `Signature.of_constructor`.

    A callable that tells no signature takes anything. Immutable but for its memory of shapes; any thread may use it.

    Attributes:
        name: what error messages call the function.
        parameters: name, kind and presence of a default of each parameter.
        low: fewest positional arguments that make a call without keywords valid.
        high: most positional arguments; `sys.maxsize` with `*args`. No call without keywords is valid if `low > high`.
    """

    __slots__ = ("_bound", "_shapes", "high", "low", "name", "parameters")

    def __init__(self, function: Callable[..., Any]) -> None:
        self._set(_name_of(function), _parameters_of(function))

    @classmethod
    def _of_parameters(cls, name: str, parameters: Parameters) -> Signature:
        signature = cls.__new__(cls)
        signature._set(name, parameters)
        return signature

    def _set(self, name: str, parameters: Parameters) -> None:
        self.name = name
        self.parameters = parameters
        required = high = 0
        keyword_required = False
        for _, kind, has_default in parameters:
            if kind in _POSITIONAL:
                high += 1
                required += not has_default
            elif kind == inspect.Parameter.VAR_POSITIONAL:
                high = _NEVER
            elif kind == inspect.Parameter.KEYWORD_ONLY and not has_default:
                keyword_required = True
        self.low = _NEVER if keyword_required else required
        self.high = -1 if keyword_required else high
        self._shapes: set[tuple[Any, ...]] = set()
        self._bound: inspect.Signature | None = None

    @classmethod
    def of_method(cls, owner: type, name: str) -> Signature:
        """Return the signature of a method as it is called on an instance: without `self` or `cls`.

        Raises:
            ValueError: the method takes no arguments at all, not even `self`.
        """
        raw = inspect.getattr_static(owner, name)
        function = getattr(owner, name)
        parameters = _parameters_of(function)
        # A class method is bound already when it is read from its class; a static method has no first argument.
        if not isinstance(raw, (staticmethod, classmethod)) and parameters != _ANYTHING:
            parameters = _without_first(parameters, f"{owner.__name__}.{name}")
        return cls._of_parameters(f"{owner.__name__}.{name}", parameters)

    @classmethod
    def of_constructor(cls, owner: type) -> Signature:
        """Return what `owner(...)` takes: the signature of its `__init__`, else of its `__new__`, without the first.

        A class that defines neither takes nothing.

        Raises:
            ValueError: the constructor takes no arguments at all, not even `self`.
        """
        for name in ("__init__", "__new__"):
            function = getattr(owner, name)
            if not isinstance(function, _NATIVE):
                parameters = _without_first(_parameters_of(function), f"{owner.__name__}.{name}")
                return cls._of_parameters(owner.__name__, parameters)
        return cls._of_parameters(owner.__name__, ())

    def check(self, args: tuple[Any, ...] | list[Any], kwargs: Mapping[str, Any]) -> None:
        """Check that the function can be called with these arguments.

        Raises:
            TypeError: it cannot; the message says which argument is at fault and shows the signature.
        """
        if not kwargs:
            if self.low <= len(args) <= self.high:
                return
        elif (len(args), *kwargs) in self._shapes:
            return
        signature = self._bound
        if signature is None:
            signature = self._bound = _signature(self.parameters)
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{error} (in a call of {self})") from None
        if kwargs and len(self._shapes) < _MAX_SHAPES:
            self._shapes.add((len(args), *kwargs))

    def inspected(self) -> inspect.Signature:
        """Return it as `inspect.signature` does; a default value is shown as `...`."""
        return _signature(self.parameters)

    def __reduce__(self) -> Any:
        return Signature._of_parameters, (self.name, self.parameters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and (self.name, self.parameters) == (other.name, other.parameters)

    def __hash__(self) -> int:
        return hash((self.name, self.parameters))

    def __str__(self) -> str:
        return f"{self.name}{_signature(self.parameters)}"

    def __repr__(self) -> str:
        return f"<Signature {self}>"


class _Default:
    """Stands for a default value, which is not kept."""

    def __repr__(self) -> str:
        return "..."


def _signature(parameters: Parameters) -> inspect.Signature:
    default = _Default()
    return inspect.Signature(
        [
            inspect.Parameter(name, _Kind(kind), default=default if has_default else inspect.Parameter.empty)
            for name, kind, has_default in parameters
        ]
    )


def _parameters_of(function: Callable[..., Any]) -> Parameters:
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        # Some functions written in C do not tell their signature; the function itself will object.
        return _ANYTHING
    return tuple(
        (name, int(each.kind), each.default is not inspect.Parameter.empty)
        for name, each in signature.parameters.items()
    )


def _without_first(parameters: Parameters, name: str) -> Parameters:
    if not parameters:
        raise ValueError(f"{name} takes no arguments: a method needs `self` as its first, or @staticmethod.")
    if parameters[0][1] == inspect.Parameter.VAR_POSITIONAL:
        return parameters
    return parameters[1:]


def _name_of(function: Callable[..., Any]) -> str:
    function = getattr(function, "func", function)
    return getattr(function, "__name__", None) or type(function).__name__
