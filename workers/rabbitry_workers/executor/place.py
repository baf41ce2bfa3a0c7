"""Where an executor finds what it hands on to programs that it starts, and puts files that its node keeps."""

from __future__ import annotations

from collections.abc import Sequence

_directory = ""
_modules: list[str] = []


def settle(directory: str, modules: Sequence[str]) -> None:
    """Say where; called once, when the executor begins.

    Args:
        directory: of the node, for files that stay when the executor has ended.
        modules: directories that its runtime environment puts at the head of `sys.path`.
    """
    global _directory
    _directory = directory
    _modules[:] = modules


def directory() -> str:
    """Return the node's directory for files that it removes when nobody needs them; it may not exist yet."""
    return _directory


def modules() -> list[str]:
    """Return where the modules of the runtime environment are."""
    return list(_modules)
