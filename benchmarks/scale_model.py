"""What a cluster of any size costs, from what its parts were seen to cost: where each server is full, and at what rate.

The model is a sum. Each second, a part (Redis, RabbitMQ, a node, ...) spends

    base  +  nodes x idle node  +  actors x idle actor  +  tasks a second x task  +  calls a second x call

of processor time. What Redis has is one core, since one thread runs all commands; RabbitMQ has those of its machine;
each node and driver its own. A part is full when it spends `FULL` of what it has: beyond that, what waits for it grows.

What makes the sum hold is that none of its terms depends on the number of nodes. Whether that is so shows where a
prediction is compared with what was measured with a number of nodes that it was not made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

FULL: Final = 0.8
"""Of a core: beyond that, waiting times grow faster than the work."""

SERVERS: Final = ("redis", "rabbitmq")


@dataclass(frozen=True)
class Costs:
    """Processor time in microseconds, by part.

    Attributes:
        base: of the servers and the driver alone, for one second.
        idle: of one node that has nothing to do, for one second.
        task: of a task that runs so long that it is sent alone.
        short: of a task that is sent with others, since it does next to nothing.
        call: of a call of an actor, many at a time.
        actor: of one actor that has nothing to do, for one second.
    """

    base: Mapping[str, float]
    idle: Mapping[str, float]
    task: Mapping[str, float]
    short: Mapping[str, float]
    call: Mapping[str, float]
    actor: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Load:
    """What a cluster is to do.

    Attributes:
        nodes: how many there are.
        tasks: that are sent alone, each second, in all.
        short: that are sent with others.
        calls: of actors.
        actors: that are there.
    """

    nodes: int
    tasks: float = 0.0
    short: float = 0.0
    calls: float = 0.0
    actors: int = 0


def spends(costs: Costs, load: Load, part: str) -> float:
    """Return the cores that a part is busy with: all nodes together, if it is "node" or "executor".

    Example:
        >>> costs = Costs(base={}, idle={"redis": 100}, task={"redis": 50}, short={}, call={})
        >>> spends(costs, Load(nodes=1000, tasks=10_000), "redis")
        0.6
    """
    terms = (
        (1, costs.base),
        (load.nodes, costs.idle),
        (load.tasks, costs.task),
        (load.short, costs.short),
        (load.calls, costs.call),
        (load.actors, costs.actor),
    )
    return sum(count * cost.get(part, 0.0) for count, cost in terms) / 1e6


def ceiling(costs: Costs, nodes: int, cores: Mapping[str, float], kind: str = "task") -> tuple[float, str]:
    """Return how many tasks (or "short", "call") a second so many nodes can be given, and which server is full then.

    Args:
        costs: of each.
        nodes: how many there are.
        cores: that each server has.
        kind: of work.

    Returns:
        (rate, server): 0 if idle nodes alone fill it.

    Example:
        >>> costs = Costs(base={}, idle={"redis": 100}, task={"redis": 50, "rabbitmq": 100}, short={}, call={})
        >>> ceiling(costs, 1000, {"redis": 1, "rabbitmq": 4})
        (14000.0, 'redis')
    """
    each: Mapping[str, float] = getattr(costs, kind)
    found = []
    for server in SERVERS:
        left = max(0.0, FULL * cores[server] - spends(costs, Load(nodes), server))
        cost = each.get(server, 0.0)
        if cost > 0:
            found.append((round(left / cost * 1e6, 3), server))
    return min(found)


def most_nodes(costs: Costs, cores: Mapping[str, float], *, task_seconds: float, slots: float = 1.0) -> tuple[int, str]:
    """Return how many nodes can be kept busy with tasks of one length, and which server is full then.

    Args:
        costs: of each.
        cores: that each server has.
        task_seconds: how long a task runs.
        slots: tasks that a node runs at a time.

    Example:
        >>> costs = Costs(base={}, idle={"redis": 100}, task={"redis": 50, "rabbitmq": 100}, short={}, call={})
        >>> most_nodes(costs, {"redis": 1, "rabbitmq": 4}, task_seconds=1.0, slots=10)
        (1333, 'redis')
    """
    found = []
    for server in SERVERS:
        node = costs.idle.get(server, 0.0) + slots / task_seconds * costs.task.get(server, 0.0)
        if node > 0:
            left = max(0.0, FULL * cores[server] * 1e6 - costs.base.get(server, 0.0))
            found.append((int(left / node), server))
    return min(found)


def line(points: Mapping[int, Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Return what parts spend with no node at all, and what each node adds: from the smallest and the largest number.

    Args:
        points: what parts spend, by number of nodes.

    Example:
        >>> line({1: {"redis": 30.0}, 11: {"redis": 130.0}})
        ({'redis': 20.0}, {'redis': 10.0})
        >>> line({1: {"redis": 30.0}})
        ({'redis': 0.0}, {'redis': 30.0})
    """
    few, many = min(points), max(points)
    base, each = {}, {}
    for part, spent in points[many].items():
        steepness = (spent - points[few][part]) / (many - few) if many > few else spent / many
        each[part] = max(0.0, steepness)
        base[part] = max(0.0, points[few][part] - few * each[part])
    return base, each


def relative_error(predicted: float, measured: float) -> float:
    """Return by what part of the measured value a prediction is off; positive if it is too high.

    Example:
        >>> relative_error(110.0, 100.0)
        0.1
    """
    return round(predicted / measured - 1.0, 6) if measured else 0.0
