"""Code objects on their way by value, with the file and the lines that they came from.

Newer releases of cloudpickle name `<dynamic-code>` as the file of all code that travels by value. Then remote
tracebacks lack file and source line, warnings and `inspect.getsource` in a task know no place, and debuggers find
nothing. Here code keeps its file, as in older releases.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import Any, Final

import cloudpickle

_reduce: Final[Callable[[CodeType], tuple[Any, ...]]] = cloudpickle.Pickler.dispatch_table[CodeType]


def _example() -> None:
    """Lend its code to `_file_positions`."""


def _file_positions() -> tuple[int, ...]:
    """Return where a reduced code object names its file: found by one whose file is known, not by counting."""
    marked = _example.__code__.replace(co_filename="<the file>")
    arguments = _reduce(marked)[1]
    return tuple(at for at, each in enumerate(arguments) if each in ("<the file>", "<dynamic-code>"))


_FILE: Final = _file_positions()


def reduce_code(code: CodeType) -> tuple[Any, ...]:
    """Return the reduced form of a code object, as pickle wants it.

    The name of the file is a string of its own each time: whether two code objects share one must not show in the
    pickle, whose hash is the name of a function.
    """
    reduced = _reduce(code)
    arguments = list(reduced[1])
    for at in _FILE:
        arguments[at] = "".join(code.co_filename)
    return (reduced[0], tuple(arguments), *reduced[2:])
