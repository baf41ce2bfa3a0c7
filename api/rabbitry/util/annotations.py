"""Marks of how stable an API is, for libraries that were written for Ray; they change nothing but the docstring."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")


class AnnotationType(Enum):
    """Kinds of marks."""

    PUBLIC_API = "PublicAPI"
    DEVELOPER_API = "DeveloperAPI"
    DEPRECATED = "Deprecated"
    UNKNOWN = "Unknown"


class RayDeprecationWarning(DeprecationWarning):
    """Something will go, and another thing is there for it."""


def PublicAPI(  # noqa: N802  Ray's name
    *args: Any, stability: str = "stable", api_group: str = "Others", **_: Any
) -> Any:
    """Mark a public function or class; bare, or with `stability` "alpha", "beta" or "stable".

    As Ray does, it takes other keywords too and looks at none: one is misspelt in Ray 2.48.

    Raises:
        ValueError: another stability.
    """
    if stability not in ("alpha", "beta", "stable"):
        raise ValueError(f"stability must be 'alpha', 'beta' or 'stable', but is {stability!r}.")
    return _marking(args, "PublicAPI", api_group)


def DeveloperAPI(*args: Any, **_: Any) -> Any:  # noqa: N802  Ray's name
    """Mark a function or class that is for developers of libraries."""
    return _marking(args, "DeveloperAPI", "Others")


def Deprecated(  # noqa: N802  Ray's name
    *args: Any, message: str = "It may be removed.", warning: bool = False, **_: Any
) -> Any:
    """Mark a function or class that will go.

    Args:
        args: what is marked, if used bare.
        message: what to use instead.
        warning: warn whenever it is called.
    """

    def mark(target: Any) -> Any:
        if not warning:
            return _marked(target, "Deprecated", "Others")
        what = target.__init__ if inspect.isclass(target) else target

        @functools.wraps(what)
        def warned(*values: Any, **options: Any) -> Any:
            warnings.warn(f"{target.__name__} is deprecated. {message}", RayDeprecationWarning, stacklevel=2)
            return what(*values, **options)

        if inspect.isclass(target):
            target.__init__ = warned  # type: ignore[method-assign]
            return _marked(target, "Deprecated", "Others")
        return _marked(warned, "Deprecated", "Others")

    return mark(args[0]) if _is_bare(args) else mark


def _marking(args: tuple[Any, ...], kind: str, group: str) -> Any:
    if _is_bare(args):
        return _marked(args[0], kind, group)
    mark: Callable[[T], T] = lambda target: _marked(target, kind, group)  # noqa: E731
    return mark


def _is_bare(args: tuple[Any, ...]) -> bool:
    return len(args) == 1 and callable(args[0])


def _marked(target: T, kind: str, group: str) -> T:
    name = getattr(target, "__name__", None)
    for attribute, value in (("_annotated", name), ("_annotated_type", kind), ("_annotated_api_group", group)):
        setattr(target, attribute, value)
    return target


def _mark_annotated(
    obj: Any,
    type: AnnotationType = AnnotationType.UNKNOWN,
    api_group: str = "Others",
) -> None:
    """Mark what has a name; for Ray's libraries."""
    if hasattr(obj, "__name__"):
        _marked(obj, type.value, api_group)
