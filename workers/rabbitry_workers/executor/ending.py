"""The end of an executor's process that is no crash: what user code registered with `atexit` runs, then children end.

That is so when it retires, when its actor ends, when a task calls `sys.exit` and when SIGTERM arrives; not when it is
killed, and not when the whole cluster or its agent goes.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import traceback
from collections.abc import Callable

from rabbitry_workers.executor import children


def run_exit_handlers(first: Callable[[], None] | None) -> None:
    """Do what an interpreter does at its end, as far as user code can tell.

    Args:
        first: what the actor in this process wants to do before anything else.
    """
    if first is not None:
        try:
            first()
        except BaseException:
            traceback.print_exc()
    processes = sys.modules.get("multiprocessing")
    if processes is not None:
        # Its own handler waits for children that are no daemons: they would keep this process for as long as they like.
        for child in processes.active_children():
            if not child.daemon:
                child.kill()
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    children.end(children.descendants(os.getpid()))
