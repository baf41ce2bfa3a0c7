"""What processes find imported that run pieces of libraries: Data, Train, Tune, Serve, RLlib, Modin.

Each process that runs a function or an actor of a library imports that library, which takes half a second to several.
So does one that runs a class of the program that inherits from a library's, as Tune does with Trainables. So the
environment of such a task names what this process has imported of libraries, and the nodes fork its executors from a
process that has imported the same once (`rabbitry_workers.node.dispatch.templates`). Other tasks of the same job, those
of the program itself among them, are none of it: they do not wait until that is imported.

What is named are modules that bear it: what they start when they are imported, if anything, knows of forks.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

_PACKAGES: Final = ("ray", "modin", "xgboost_ray", "lightgbm_ray")
"""Whose functions and classes: top packages. Ray's own core has other names here."""

_HEADS: Final = re.compile(
    r"ray\.(air|data|rllib|serve|train|tune)(\.[a-z]\w*)?|modin\.pandas|xgboost_ray|lightgbm_ray"
)
"""Modules of them that bring the rest."""

_BESIDE: Final = ("numpy", "pandas", "pyarrow", "scipy", "sklearn", "torch", "gymnasium", "xgboost", "lightgbm")
"""What they, and the functions of users that they run, mostly import besides."""


class LibraryModules:
    """Says what executors of a function shall have imported. Any thread may call it.

    Args:
        on: False if that is never anything.
    """

    def __init__(self, *, on: bool = True) -> None:
        self._on = on
        self._named: tuple[str, ...] = ()
        self._asked: set[str] = set()  # libraries that were asked for

    def inherit(self, named: Iterable[str]) -> None:
        """This process is in an environment that names these."""
        self._named = tuple(named)

    def of(self, function: Callable[..., Any] | None) -> tuple[str, ...]:
        """Return what a function's, or class', executors shall have imported; () if nothing of it is of a library.

        The answer is the same again as long as it will do: each other one is another process on each node.
        """
        module = _module(function) if self._on else None
        if module is None:
            return ()
        head = _head(module)
        if head not in self._named and head not in self._asked:
            self._asked.add(head)
            self._named = tuple(sorted({*self._named, *_imported(sys.modules)}))
        return self._named


def _module(function: Callable[..., Any] | None) -> str | None:
    """Return the module of a library that a function is of, or a class or the nearest class that it inherits from."""
    for each in function.__mro__ if isinstance(function, type) else (function,):
        module = getattr(each, "__module__", None)
        if isinstance(module, str) and module.partition(".")[0] in _PACKAGES:
            return module
    return None


def _head(module: str) -> str:
    """Return the module that brings a library's module."""
    first, _, rest = module.partition(".")
    return {"ray": f"ray.{rest.partition('.')[0]}", "modin": "modin.pandas"}.get(first, first)


def _imported(modules: Mapping[str, Any]) -> list[str]:
    return [each for each in list(modules) if each in _BESIDE or _HEADS.fullmatch(each)]
