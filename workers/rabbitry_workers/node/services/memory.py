"""The memory limit of executors: one that takes more is killed, and its task's error names the task.

Counted is what a process has taken for itself: large objects that it maps from shared memory are the store's, and the
pages it shares with the template since its fork, which may have imported a lot, count only once written to. Without the
limit, the kernel would choose a victim by itself when the machine runs out: perhaps the agent, or a server.

A look costs 30 microseconds an executor (`RssAnon`). That counts what is shared with the template, too; over the limit,
it takes some milliseconds to see how much is not. What is taken and given back between two looks goes unseen.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Final

from rabbitry_workers.node.model.lanes import Executor
from rabbitry_workers.node.model.node import Node

VARIABLE: Final = "RABBITRY_EXECUTOR_MEMORY_LIMIT"
INTERVAL_SECONDS: Final = 0.1
CLOSER_SECONDS: Final = 1.0
SMALLEST_LIMIT: Final = 64 << 20
_MIB: Final = 1 << 20

log = logging.getLogger("rabbitry.node")


def limit_from_environment(environment: Mapping[str, str] | None = None) -> int | None:
    """Return the limit in bytes that RABBITRY_EXECUTOR_MEMORY_LIMIT sets; None for none (not set, or 0).

    Raises:
        ValueError: it is no number, or so small that no executor could start.

    Example:
        >>> limit_from_environment({"RABBITRY_EXECUTOR_MEMORY_LIMIT": "1073741824"})
        1073741824
    """
    text = (os.environ if environment is None else environment).get(VARIABLE) or "0"
    try:
        limit = int(text)
    except ValueError:
        limit = -1
    if limit and limit < SMALLEST_LIMIT:
        raise ValueError(
            f"{VARIABLE}={text!r} must be a number of bytes, {SMALLEST_LIMIT} ({SMALLEST_LIMIT // _MIB} MiB) or more; "
            "0 for no limit"
        )
    return limit or None


def memory_of(pid: int) -> int:
    """Return the bytes that a process has, its template's included; 0 if it is gone, or where there is no /proc."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"RssAnon:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def own_memory_of(pid: int) -> int | None:
    """Return the bytes that a process has taken for itself; None if it is gone, or where that cannot be told."""
    own, counts = 0, False
    try:
        with open(f"/proc/{pid}/smaps", "rb") as file:
            for line in file:
                first, _, rest = line.partition(b" ")
                if not first.endswith(b":"):  # a mapping begins: its range, then what may be done with it
                    counts = rest[3:4] == b"p"
                elif counts and first in (b"Private_Dirty:", b"Swap:"):
                    own += int(rest.split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return own * 1024


class MemoryWatch:
    """Service on the agent's loop: `start`, `run_once`. Nothing happens without a limit.

    Args:
        node: whose loop it is.
        executors: all that are alive, by the process's number.
        limit: bytes that each may take; None for no limit.
    """

    def __init__(self, node: Node, executors: Mapping[int, Executor], limit: int | None) -> None:
        self._node = node
        self._executors = executors
        self._limit = limit
        self._closer: dict[int, tuple[float, int, int]] = {}  # by process: when, what it had, what of that was its own

    def start(self) -> None:
        """Watch from now on."""
        if self._limit is not None:
            self._node.periodic.every(INTERVAL_SECONDS, self.run_once, stretch=False)

    def run_once(self) -> None:
        """Kill the executors that have taken more than they may."""
        if self._limit is None:
            return
        for executor in list(self._executors.values()):
            taken = memory_of(executor.pid)
            if taken > self._limit and not executor.over_memory:
                own = self._own(executor.pid, taken)
                if own > self._limit:
                    self._end(executor, own)
        for pid in [pid for pid in self._closer if pid not in self._executors]:
            del self._closer[pid]

    def _own(self, pid: int, taken: int) -> int:
        """Return how much of what a process has is its own; what was found lately will do, far from the limit."""
        assert self._limit is not None
        now = time.monotonic()
        when, then, own = self._closer.get(pid, (-CLOSER_SECONDS, 0, 0))
        if now - when < CLOSER_SECONDS and own + taken - then <= self._limit:
            return own
        found = own_memory_of(pid)
        if found is None:
            return taken
        self._closer[pid] = (now, taken, found)
        return found

    def _end(self, executor: Executor, taken: int) -> None:
        assert self._limit is not None
        running = executor.running()
        what = running[0].header.name if running is not None else "nothing any more"
        executor.over_memory = f"it took {taken // _MIB} MiB, and the limit is {self._limit // _MIB} MiB ({VARIABLE})"
        executor.leaving = executor.leaving or f"out of memory: {executor.over_memory}"
        log.warning("the worker process %d, which ran %s, is killed: %s", executor.pid, what, executor.over_memory)
        executor.kill()
