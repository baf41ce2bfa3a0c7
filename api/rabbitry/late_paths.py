"""Directories that were added to `sys.path` after `init()`: the nodes took it over as it was then."""

from __future__ import annotations

import sys
from collections.abc import Iterable

_known: frozenset[str] | None = None  # the path that the nodes were told; None without a session


def told(path: Iterable[str]) -> None:
    """Remember the path that the nodes were told."""
    global _known
    _known = frozenset(path)


def hint(module: str | None) -> str:
    """Return what to do if a module that nodes miss lies in a directory that they do not know; "" if it does not."""
    late = [] if _known is None else [each for each in sys.path if each and each not in _known]
    if not late or not module:
        return ""
    from importlib.machinery import PathFinder

    package = module.partition(".")[0]
    for directory in late:
        try:
            found = PathFinder.find_spec(package, [directory])
        except (ImportError, OSError, ValueError):
            continue
        if found is not None:
            return (
                f"{package} is in {directory}, which was added to sys.path after init(), when the nodes had taken it "
                "over already: add it before"
            )
    return ""
