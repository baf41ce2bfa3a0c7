"""How much processor time the processes of a cluster take, and what Redis was asked for: read before and after.

Linux alone: the kernel says in `/proc/<pid>/task/*/schedstat` how long each thread ran, to the nanosecond. A process
that ended in between is not counted any more, so what is measured is long against what ends.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

PARTS: Final = ("redis", "rabbitmq", "node", "executor", "driver")
"""Whose time is told apart: the servers, agents with their templates, executors and actors, the driver."""


def processor_time(pid: int) -> float:
    """Return the seconds of processor time that the threads of a process have had; 0 if it is gone."""
    total = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat", "rb") as file:
                total += int(file.read().split()[0])
    except (OSError, IndexError):
        pass
    return total / 1e9


def private_memory(pid: int) -> int:
    """Return the bytes of a process by its share of each page (PSS); 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def children() -> dict[int, list[int]]:
    """Return the processes of this machine by their parent."""
    found: dict[int, list[int]] = defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    found[int(file.read().rpartition(b")")[2].split()[1])].append(int(name))
            except OSError:
                continue
    return found


def below(pid: int, tree: Mapping[int, Iterable[int]]) -> list[int]:
    """Return all descendants of a process.

    Example:
        >>> below(1, {1: [2, 3], 3: [4]})
        [2, 3, 4]
    """
    found: list[int] = []
    waiting = list(tree.get(pid, ()))
    while waiting:
        child = waiting.pop(0)
        found.append(child)
        waiting += tree.get(child, ())
    return found


@dataclass
class Look:
    """What was seen at one moment.

    Attributes:
        seconds: of processor time by process.
        part: one of `PARTS` by process.
        calls: commands that Redis was asked for, by name, those within scripts included.
        commands: those that clients sent, scripts counting as one.
    """

    seconds: dict[int, float] = field(default_factory=dict)
    part: dict[int, str] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    commands: int = 0


class Watched:
    """The processes of one cluster, and its Redis.

    Args:
        redis: a redis-py client, and the server's process.
        rabbitmq: the broker's process.
        nodes: processes of agents.
    """

    def __init__(self, redis: Any, redis_pid: int, rabbitmq: int, nodes: Iterable[int]) -> None:
        self._redis = redis
        self._redis_pid = redis_pid
        self._rabbitmq = rabbitmq
        self._nodes = list(nodes)

    def processes(self) -> dict[int, str]:
        """Return what each process belongs to. An agent's first child is its template."""
        tree = children()
        found = dict.fromkeys((self._rabbitmq, *below(self._rabbitmq, tree)), "rabbitmq")
        found |= {self._redis_pid: "redis", os.getpid(): "driver"}
        for node in self._nodes:
            for pid in (node, *below(node, tree)):
                found[pid] = "executor"
            found[node] = "node"
            for template in tree.get(node, ()):
                found[template] = "node"
        return found

    def look(self) -> Look:
        """Return what there is now."""
        part = self.processes()
        stats = self._redis.info("commandstats")
        own = {"info", "config|resetstat"}
        calls = {name.removeprefix("cmdstat_"): facts["calls"] for name, facts in stats.items()}
        return Look(
            seconds={pid: processor_time(pid) for pid in part},
            part=part,
            calls={name: count for name, count in calls.items() if name not in own},
            commands=int(self._redis.info("stats")["total_commands_processed"]),
        )

    def memory(self, part: str) -> int:
        """Return the bytes of all processes of a part."""
        return sum(private_memory(pid) for pid, of in self.processes().items() if of == part)


@dataclass(frozen=True)
class Spent:
    """What was spent between two looks.

    Attributes:
        seconds: of processor time, by part.
        calls: of Redis, by name.
        each: seconds of each process, by part.
    """

    seconds: dict[str, float]
    calls: dict[str, int]
    each: dict[str, list[float]]


def spent(before: Look, after: Look) -> Spent:
    """Return what was spent between two looks.

    Example:
        >>> one = Look({1: 1.0}, {1: "node"}, {"get": 2})
        >>> spent(one, Look({1: 1.5, 2: 0.25}, {1: "node", 2: "executor"}, {"get": 5})).seconds["node"]
        0.5
    """
    seconds = dict.fromkeys(PARTS, 0.0)
    each: dict[str, list[float]] = {part: [] for part in PARTS}
    for pid, now in after.seconds.items():
        took = max(0.0, now - before.seconds.get(pid, 0.0))
        seconds[after.part[pid]] += took
        each[after.part[pid]].append(took)
    calls = {name: count - before.calls.get(name, 0) for name, count in after.calls.items()}
    return Spent(seconds, {name: count for name, count in calls.items() if count}, each)
