"""The table of results: medians, ratios to Ray with their range, and the bars that rabbitry has set itself."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.systems import Round
from benchmarks.workloads import MEASURED_BY_THE_WAY, WORKLOADS

ALL = {**MEASURED_BY_THE_WAY, **WORKLOADS}

LOWER_IS_BETTER = {"s", "bytes", "bytes/task", "bytes/actor"}
"""Units."""

NAMES = {"ray": "Ray", "embedded": "embedded", "rabbitmq": "RabbitMQ"}

# How many times better than Ray: (embedded, RabbitMQ + Redis). None: no bar.
BARS: dict[str, tuple[float | None, float | None]] = {
    "sync": (1.5, 1),
    "async_10000": (12, 8),
    "chain_100": (3, 1.5),
    "wait_1000": (5, 5),
    "wait_10000": (20, 20),
    "cancel_3000": (2, 2),
    "spawn": (3, 2),
    "fib_10": (3, 2),
    "get_small": (10, 10),
    "init": (8, None),
    "idle_memory": (4, None),
    "actor_async": (4, 3),
    "actor_sync": (1.2, 0.8),
    "actor_1_4": (4, 3),
    "actor_2_4": (4, 3),
    "actor_asyncio": (5, 4),
    "actor_create": (20, 15),
    "put_64mib": (1, 1),
    "task_64mib_argument": (1, None),
    "task_64mib_read": (0.9, 0.9),
    "get_64mib_read": (0.9, 0.9),
    "results_8mib": (1, 1),
    "task_8mib_result": (1.5, None),
    "task_2000_refs": (2, None),
    "get_2000_refs": (2, None),
    "put_small": (10, None),
}

# What rabbitry promises whatever Ray does: (engine, or "" for each; workload; at most).
LIMITS: list[tuple[str, str, float]] = [
    ("", "import", 0.3),
    ("embedded", "init", 1.0),
    ("", "driver_memory", 2048),
    ("", "driver_memory_after", 50 << 20),
]

# The rate of the first must be so much of the second's (engine, or "" for each; first; second; share).
SHARES: list[tuple[str, str, str, float]] = [
    ("", "async_100000", "async_10000", 0.8),  # what a task costs does not grow with their number
    ("rabbitmq", "put_64mib", "set_64mib", 1.5),  # it goes to shared memory first
]


Rounds = Mapping[int, Round]
"""The rounds of a system by number; those that failed are missing."""


def median(rounds: Rounds, name: str) -> float | None:
    """Return the median of a workload, None if no round has it."""
    values = [each.results[name] for each in rounds.values() if name in each.results]
    return statistics.median(values) if values else None


def better(name: str, ours: float, rays: float) -> float:
    """Return how many times better than Ray's a number is."""
    if ALL[name].unit in LOWER_IS_BETTER:
        return rays / ours if ours else float("inf")
    return ours / rays if rays else float("inf")


def ratios(name: str, ours: Rounds, rays: Rounds) -> list[float]:
    """Return the ratio of each pair of rounds that have the workload."""
    return [
        better(name, ours[number].results[name], rays[number].results[name])
        for number in sorted(ours.keys() & rays.keys())
        if name in ours[number].results and name in rays[number].results
    ]


def table(results: Mapping[str, Rounds], names: Sequence[str]) -> str:
    """Return all medians; beside rabbitry's the ratio to Ray's, its range over the rounds, the bar and the verdict."""
    engines = [engine for engine in ("embedded", "rabbitmq") if engine in results]
    rays = results.get("ray", {})
    head = f"{'workload':<20}{'unit':<12}" + (f"{NAMES['ray']:>11}" if rays else "")
    head += "".join(
        f" | {NAMES[engine]:>11}" + (f"{'x Ray':>8}{'range':>14}{'bar':>6}" if rays else "") for engine in engines
    )
    lines = [head, "-" * len(head)]
    group = ""
    for name in [*MEASURED_BY_THE_WAY, *names]:
        if group and ALL[name].group != group:
            lines.append("")
        group = ALL[name].group
        unit = ALL[name].unit.replace("bytes", "KiB" if "/" in ALL[name].unit else "MiB")
        theirs = median(rays, name)
        line = f"{name:<20}{unit:<12}" + (f"{_number(theirs, name):>11}" if rays else "")
        for at, engine in enumerate(("embedded", "rabbitmq")):
            if engine in engines:
                line += " | " + _cell(name, results[engine], rays, BARS.get(name, (None, None))[at])
        lines.append(line.rstrip())
    return "\n".join(lines)


def _cell(name: str, ours: Rounds, rays: Rounds, bar: float | None) -> str:
    mine, theirs = median(ours, name), median(rays, name)
    cell = f"{_number(mine, name):>11}"
    if mine is None or not theirs:
        return cell + (" " * 28 if rays else "")
    ratio = better(name, mine, theirs)
    pairs = ratios(name, ours, rays)
    spread = f"{_short(min(pairs))}..{_short(max(pairs))}" if len(pairs) > 1 else ""
    verdict = "" if bar is None else f"{bar:g}" + ("+" if ratio >= bar else "!")
    return f"{cell}{_short(ratio):>8}{spread:>14}{verdict:>6}"


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}" if ratio < 100 else f"{ratio:.0f}"


def _number(value: float | None, name: str) -> str:
    if value is None:
        return "-"
    unit = ALL[name].unit
    if unit == "bytes":
        return f"{value / 2**20:.1f}"
    if unit.startswith("bytes/"):
        return f"{value / 2**10:.2f}"
    return f"{value:,.3f}" if value < 10 else f"{value:,.0f}"


def missed(results: Mapping[str, Rounds], names: Sequence[str]) -> list[str]:
    """Return a line for each bar and limit that was missed, and each workload that failed."""
    found = []
    for at, engine in enumerate(("embedded", "rabbitmq")):
        rounds = results.get(engine, {})
        if not rounds:
            continue
        for name in [*MEASURED_BY_THE_WAY, *names]:
            mine, theirs, bar = (
                median(rounds, name),
                median(results.get("ray", {}), name),
                BARS.get(name, (None, None))[at],
            )
            if bar is not None and mine is not None and theirs is not None and better(name, mine, theirs) < bar:
                found.append(f"{engine}: {name} is {_short(better(name, mine, theirs))} x Ray, the bar is {bar:g}")
        for where, name, most in LIMITS:
            value = median(rounds, name)
            if where in ("", engine) and value is not None and value > most:
                found.append(f"{engine}: {name} is {value:,.4g} {ALL[name].unit}, the limit is {most:,g}")
        for where, name, base, share in SHARES:
            rate, full = median(rounds, name), median(rounds, base)
            if where in ("", engine) and rate is not None and full and rate < share * full:
                found.append(
                    f"{engine}: {name} runs at {rate / full:.0%} of the rate of {base}, {share:.0%} is the limit"
                )
    for system, rounds in results.items():
        errors = {name: text for each in rounds.values() for name, text in each.errors.items()}
        found += [f"{system}: {name} failed: {text}" for name, text in errors.items()]
    return found
