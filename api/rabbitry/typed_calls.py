"""Bases of what has a `remote`: at run time no more than `RemoteFunction[...]` in a type hint.

What type checkers know of them stands in `typed_calls.pyi`.
"""

from types import GenericAlias
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Calls:
    """Base of RemoteFunction and ActorMethod."""

    __slots__ = ()
    __class_getitem__ = classmethod(GenericAlias)


class Handles:
    """Base of ActorHandle."""

    __class_getitem__ = classmethod(GenericAlias)


class Creates:
    """Base of ActorClass."""

    __class_getitem__ = classmethod(GenericAlias)
