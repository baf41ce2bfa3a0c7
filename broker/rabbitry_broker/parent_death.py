"""Processes that must not outlive their parent."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1


def die_with_parent(number: int = signal.SIGKILL, *, parent: int = 0) -> None:
    """Have the kernel send this process `number` when its parent ends (Linux; elsewhere a no-op).

    "Parent" means the thread that forked us, so only single-threaded supervisors may fork such children.

    Args:
        number: of the signal.
        parent: its process id, as it knows it: it may have ended before this is called. 0 for whoever it is now.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = parent or os.getppid()
    prctl()(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


@functools.cache
def prctl() -> Any:
    """Return `prctl`, looked up once: whoever forks many children calls this before (0.3 ms of each)."""
    return ctypes.CDLL(None, use_errno=True).prctl
