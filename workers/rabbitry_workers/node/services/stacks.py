"""Where executors are in their code: py-spy looks at them from outside, and they notice nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from rabbitry_workers.node.model.lanes import Executor
from rabbitry_workers.node.peers.requests import Refusal

ONE_SECONDS: Final = 10.0
PROCESSES_MAX: Final = 200
TEXT_BYTES: Final = 200_000  # of each process

Stack = tuple[int, str, str, str]
"""Process, what it runs, its stacks, what went wrong."""


class Stacks:
    """Answers the question for stacks.

    Args:
        executors: of the node, by the process's number.
    """

    def __init__(self, executors: Mapping[int, Executor]) -> None:
        self._executors = executors

    def answer(self, asked: dict[str, Any]) -> Callable[[], list[Stack]]:
        """Look which executors are meant; what is returned asks py-spy. Loop thread."""
        program = shutil.which("py-spy", path=os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"])))
        if program is None:
            raise Refusal("py-spy is not installed on it: pip install 'rabbitry[cli]'")
        flags = [f"--{name}" for name in ("native", "locals") if asked[name]]
        wanted = []
        for pid, executor in self._executors.items():
            running = executor.running()
            if (asked["pid"] and pid != asked["pid"]) or not (
                asked["pid"] or asked["idle"] or executor.actor or running is not None
            ):
                continue
            what = "idle" if running is None else f"runs {running[0].header.name}"
            if executor.actor:
                what = f"actor {executor.creation[1]}"
            wanted.append((pid, what))
        if asked["pid"] and not wanted:
            raise Refusal(f"it has no executor with the process number {asked['pid']}")
        return lambda: [_look(program, flags, pid, what) for pid, what in wanted[:PROCESSES_MAX]]


def _look(program: str, flags: list[str], pid: int, what: str) -> Stack:
    try:
        done = subprocess.run(
            [program, "dump", *flags, "--pid", str(pid)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ONE_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return pid, what, "", f"py-spy did not end within {ONE_SECONDS:g} s"
    return pid, what, done.stdout[:TEXT_BYTES], done.stderr.strip()[:1000] if done.returncode else ""
