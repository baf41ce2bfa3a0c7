"""What a ref says when it is used as if it were its value: the error that Python would raise, and what to do.

A ref has no operators, items or length, and Python's own messages do not tell why. The methods here raise the same
classes of exceptions. None of them makes a ref an Iterable, a Number or callable: what asks before it acts gets the
answer that it got without them (`isinstance(ref, Iterable)` is False, a ref is true).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn

from rabbitry.suggestions import closest

_BINARY: Final = {
    "add": "+", "sub": "-", "mul": "*", "matmul": "@", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**",
    "lshift": "<<", "rshift": ">>", "and": "&", "or": "|", "xor": "^", "divmod": "divmod()",
}  # fmt: skip
_COMPARISONS: Final = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_UNARY: Final = {"neg": "-", "pos": "+", "invert": "~"}
_CONVERSIONS: Final = {"int": "int()", "float": "float()", "complex": "complex()", "abs": "abs()", "round": "round()"}

_WHY: Final = " It stands for a value that is made elsewhere: did you forget get(), as in `rabbitry.get(ref)`?"

_OWN_NAMES: Final = ("as_future", "binary", "future", "hex", "is_nil", "job_id", "task_id")


def _knows_refs(other: Any, name: str) -> bool:
    """Return whether the other operand may have an answer: a class of the user's that overloads the operator."""
    kind = type(other)
    return kind.__module__ not in ("builtins", "numpy", "rabbitry.object_ref") and hasattr(kind, name)


def _binary(symbol: str, reflected: str, *, swapped: bool) -> Callable[..., Any]:
    def refuse(self: Any, other: Any, *_: Any) -> Any:
        if not swapped and _knows_refs(other, reflected):
            return NotImplemented
        ours, theirs = type(self).__name__, type(other).__name__
        left, right = (theirs, ours) if swapped else (ours, theirs)
        raise TypeError(f"unsupported operand type(s) for {symbol}: {left!r} and {right!r}.{_WHY}")

    return refuse


def _comparison(symbol: str, reflected: str) -> Callable[..., Any]:
    def refuse(self: Any, other: Any) -> Any:
        if _knows_refs(other, reflected) and getattr(type(other), reflected) is not getattr(object, reflected):
            return NotImplemented
        names = f"{type(self).__name__!r} and {type(other).__name__!r}"
        raise TypeError(f"{symbol!r} not supported between instances of {names}.{_WHY}")

    return refuse


def _unary(symbol: str) -> Callable[..., Any]:
    def refuse(self: Any) -> NoReturn:
        raise TypeError(f"bad operand type for unary {symbol}: {type(self).__name__!r}.{_WHY}")

    return refuse


def _conversion(name: str) -> Callable[..., Any]:
    def refuse(self: Any, *_: Any) -> NoReturn:
        raise TypeError(f"{name} argument must not be {type(self).__name__!r}.{_WHY}")

    return refuse


def _item(self: Any, _: Any) -> NoReturn:
    # Also what `for x in ref`, `list(ref)`, `a, b = ref` and `x in ref` come to: an `__iter__` would make it Iterable.
    raise TypeError(f"{type(self).__name__!r} object is not iterable and not subscriptable.{_WHY}")


def _length(self: Any) -> NoReturn:
    raise TypeError(f"object of type {type(self).__name__!r} has no len().{_WHY}")


def _true(_: Any) -> bool:
    return True  # `__len__` would be asked


def _format(self: Any, specification: str) -> str:
    if specification:
        raise TypeError(f"unsupported format string passed to {type(self).__name__}.__format__.{_WHY}")
    return str(self)


def _attribute(self: Any, name: str) -> NoReturn:
    message = f"{type(self).__name__!r} object has no attribute {name!r}"
    if name.startswith("_"):  # what libraries ask anything for
        raise AttributeError(message, name=name, obj=self)
    raise AttributeError(f"{message}.{closest(name, _OWN_NAMES) or _WHY}")


def refuse_use_as_value(cls: type) -> None:
    """Give the class of refs the methods that refuse what a value would allow."""
    for name, symbol in _BINARY.items():
        setattr(cls, f"__{name}__", _binary(symbol, f"__r{name}__", swapped=False))
        setattr(cls, f"__r{name}__", _binary(symbol, f"__{name}__", swapped=True))
    swapped = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}
    for name, symbol in _COMPARISONS.items():
        setattr(cls, f"__{name}__", _comparison(symbol, f"__{swapped[name]}__"))
    for name, symbol in _UNARY.items():
        setattr(cls, f"__{name}__", _unary(symbol))
    for name, symbol in _CONVERSIONS.items():
        setattr(cls, f"__{name}__", _conversion(symbol))
    for name, method in (
        ("getitem", _item),
        ("len", _length),
        ("bool", _true),
        ("format", _format),
        ("getattr", _attribute),
    ):
        setattr(cls, f"__{name}__", method)
