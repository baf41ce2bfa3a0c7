"""Room for deep values: pickle takes two levels of recursion and more for each level of a value.

Up to Python 3.11 these count against `sys.getrecursionlimit()`; since 3.12 C code has a limit of its own, which is
higher. The limit is one for all threads of a process, so it is raised while any thread needs it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

FACTOR: Final = 3
"""A list within a list takes two levels, and the caller's own frames take one each. 3000 levels are 2 MB of stack."""

_lock = threading.Lock()
_deep = 0  # threads that need it now
_usual = 0  # the limit when the first of them came


@contextmanager
def deeper_recursion() -> Iterator[None]:
    """Raise the limit of recursion for a while, so that values as deep as that limit can be pickled."""
    global _deep, _usual
    with _lock:
        if not _deep:
            _usual = sys.getrecursionlimit()
            sys.setrecursionlimit(FACTOR * _usual)
        _deep += 1
    try:
        yield
    finally:
        with _lock:
            _deep -= 1
            if not _deep:
                sys.setrecursionlimit(_usual)
