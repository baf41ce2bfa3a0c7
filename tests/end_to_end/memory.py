"""The memory of a cluster's processes as time goes by: what a soak looks at again and again.

Only the processes that live all the time are compared: the driver, its servers, nodes, templates, and executors that
nothing killed. What a process has for itself is counted (`Pss_Anon`): large values lie in memory that all share.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.scale_processes import below, children

MAY_GROW = 0.15
"""Of its size. Allocators of Python and Erlang keep what they once needed."""

MAY_GROW_BY = 8 << 20
"""Bytes that any process may grow by: less than a hundred bytes for each step of an hour."""

LEAST_SECONDS = 300.0
"""A shorter look says nothing: allocators are still finding their sizes."""


class Memory:
    """What the processes below this one have, each time that it is looked at."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._sizes: dict[int, list[int]] = defaultdict(list)
        self._names: dict[int, str] = {}

    def look(self) -> None:
        """Take down what each process has now; those that have ended are forgotten."""
        self._times.append(time.monotonic())
        living = (os.getpid(), *below(os.getpid(), children()))
        sizes = {pid: size for pid in living if (size := _own_memory(pid))}
        for pid in self._sizes.keys() - sizes.keys():
            del self._sizes[pid]
        for pid, size in sizes.items():
            self._sizes[pid].append(size)
            self._names.setdefault(pid, _name(pid))

    def grown(self, *, redis: int = 0) -> dict[str, tuple[int, int]]:
        """Return the processes that have grown: the least that each had in the first third and in the last, in bytes.

        Nothing has, as long as what was looked at is shorter than `LEAST_SECONDS`.

        Args:
            redis: bytes that Redis may have grown by besides: of keys that end by themselves, some of them after hours.
        """
        if not self._times or self._times[-1] - self._times[0] < LEAST_SECONDS:
            return {}
        return {
            name: (early, late)
            for name, early, late in self.lasting()
            if late > early + max(MAY_GROW_BY, int(MAY_GROW * early)) + (redis if name.startswith("redis") else 0)
        }

    def lasting(self) -> list[tuple[str, int, int]]:
        """Return name and least size in the first and the last third of all looks, of each seen in all."""
        third = max(1, len(self._times) // 3)
        return [
            (f"{self._names[pid]} ({pid})", min(sizes[:third]), min(sizes[-third:]))
            for pid, sizes in sorted(self._sizes.items())
            if len(sizes) == len(self._times)
        ]


def _own_memory(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                return int(line.split()[1]) * 1024
    except OSError:  # it has ended
        pass
    return 0


def _name(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
    except OSError:
        return "?"
    program = command[0].rpartition("/")[2] if command else "?"
    return " ".join([program, *command[1:4]]) if program.startswith("python") else program
