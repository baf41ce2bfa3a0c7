"""What an executor runs, in the title of its process: `ps`, `top` and `py-spy` show `rabbitry::f`, `rabbitry::A.m`.

HOT PATH: set once a chunk of tasks, and when there is nothing to do (1 us each). For programs that say `ray`, titles
begin as Ray's do. Needs the package setproctitle, which the node's template loads; without it, titles stay.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

IDLE: Final = "IDLE"
LONGEST: Final = 200  # characters of a name that are shown
# What tools read of the environment of a process stays there: titles get the room of the command line alone.
_NO_ENVIRONMENT: Final = "SPT_NOENV"

_set: Callable[[str], None] | None = None
_prefix = "rabbitry::"
_shown = ""


def preload() -> None:
    """Load the package, if it is there: before executors are forked, for it looks at the memory of the process."""
    global _set
    before = os.environ.get(_NO_ENVIRONMENT)
    os.environ[_NO_ENVIRONMENT] = "1"
    try:
        from setproctitle import getproctitle, setproctitle

        getproctitle()  # it reads the variable now, and not again
    except ImportError:
        return
    finally:
        if before is None:
            del os.environ[_NO_ENVIRONMENT]
    _set = setproctitle


def begin(*, as_ray: bool) -> None:
    """This process is an executor: of a program that says `ray`, or not."""
    global _prefix
    _prefix = "ray::" if as_ray else "rabbitry::"
    show(IDLE)


def show(what: str) -> None:
    """Say what runs now."""
    global _shown
    if _set is not None and what != _shown:
        _shown = what
        name = what.rpartition("<locals>.")[2][:LONGEST]
        try:
            _set(_prefix + name)
        except ValueError:  # with a NUL, or what cannot be encoded
            _set(_prefix + ascii(name)[1:-1])
