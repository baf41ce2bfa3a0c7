"""Processes that must not outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

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
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
