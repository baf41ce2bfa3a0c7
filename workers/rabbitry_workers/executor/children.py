"""Child processes of an executor: they end with it, however it ends.

| the executor | who ends its children |
|---|---|
| ends by itself | it does, last of all |
| is killed by its agent | the agent: those it had just before |
| crashes | the template: its process group, before its id is free for others |

What made itself a daemon (a session of its own, and its parent gone) stays, as in Ray. After a crash that is also true
of what has a session of its own: nobody knows any more whose it was.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Return the children of a process and theirs; where there is no /proc, none are known."""
    found: list[int] = []
    line = [pid]
    while line:
        children = _children(line.pop())
        found += children
        line += children
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                children += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_bytes().split())
    return children


def end(pids: list[int]) -> None:
    """Kill processes, whether they are still there or not."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def end_group(leader: int) -> None:
    """Kill what is left of the process group of an executor that has ended and is not collected yet."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
