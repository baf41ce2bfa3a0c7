"""The runner: rounds of each system, alternating, each in a fresh process; then one table of medians and ratios.

make bench                                              # Ray goes into .bench/ray on first use
python -m benchmarks --only tasks --rounds 5            # a group, or names, comma separated
python -m benchmarks --quick --ray-python ~/ray/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any

from benchmarks.report import missed, table
from benchmarks.systems import BENCH, ROOT, BenchmarkError, Cluster, Embedded, Ray, Round, System
from benchmarks.workloads import WORKLOADS

BUSY = 0.1
"""Share of the machine that others may use while nothing of ours runs, before the results are called doubtful."""

BUSY_SECONDS = 1.0


def main() -> int:
    """Run what the command line says; return 1 if a system or a workload failed, or `--check` found a bar missed."""
    options = _parse()
    names = _names(options.only, options.quick)
    print(_machine(), flush=True)
    results: dict[str, dict[int, Round]] = {}
    busy: list[float] = []
    failed: list[str] = []
    with ExitStack() as stack:
        systems = _systems(options, stack)
        rounds = 1 if options.quick else options.rounds
        for number in range(rounds):
            # Each takes its turn at being first.
            turn = number % len(systems) if systems else 0
            for system in [*systems[turn:], *systems[:turn]]:
                busy.append(_busy())
                started = time.perf_counter()
                try:
                    one = system.run(names)
                except BenchmarkError as error:
                    failed.append(f"round {number + 1}: {error}")
                    print(failed[-1], flush=True)
                    continue
                results.setdefault(system.name, {})[number + 1] = one
                print(
                    f"round {number + 1} of {rounds}: {system.name} {one.version} on Python {one.python}, "
                    f"{time.perf_counter() - started:.0f} s; others used {busy[-1]:.0%} of the machine before it",
                    flush=True,
                )
    lines = missed(results, names)
    print(
        f"\n{table(results, names)}\n\nmedians of the rounds; + the bar is met, ! it is missed; MiB and KiB are of PSS"
    )
    if max(busy, default=0.0) > BUSY:
        print(f"DOUBTFUL: other programs used up to {max(busy):.0%} of the machine. Run again when it is quiet.")
    print(*lines, sep="\n")
    _save(options, results, busy, [*lines, *failed])
    any_error = failed or any(each.errors for of_system in results.values() for each in of_system.values())
    return 1 if any_error or (options.check and lines) else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", metavar="NAMES", help="workloads or groups of them (tasks, actors, objects)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each system (default 3)")
    parser.add_argument("--quick", action="store_true", help="one round, without the long workloads")
    parser.add_argument("--without", default="", metavar="SYSTEMS", help="leave out ray, embedded, rabbitmq")
    parser.add_argument("--ray-python", metavar="PATH", help="an interpreter that has Ray; default: made in .bench/ray")
    parser.add_argument("--appendonly", action="store_true", help="Redis of the cluster keeps an append-only file")
    parser.add_argument("--broker-url", help="a RabbitMQ that runs already (with --store-url)")
    parser.add_argument("--store-url", help="a Redis that runs already (with --broker-url)")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bar is missed")
    parser.add_argument("--list", action="store_true", help="list the workloads and exit")
    options = parser.parse_args()
    if options.list:
        for name, workload in WORKLOADS.items():
            print(f"{name:<22}{workload.group:<10}{workload.unit:<13}{workload.what}")
        raise SystemExit(0)
    if bool(options.broker_url) != bool(options.store_url):
        parser.error("--broker-url and --store-url go together")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    try:
        _names(options.only, options.quick)
    except KeyError as error:
        parser.error(f"no workload or group {error.args[0]!r}; --list shows them")
    for name in filter(None, options.without.split(",")):
        if name not in ("ray", "embedded", "rabbitmq"):
            parser.error(f"no system {name!r}: there are ray, embedded and rabbitmq")
    return options


def _names(only: str, quick: bool) -> list[str]:
    """Return the workloads to run. Named ones run even if `quick` would leave them out.

    Raises:
        KeyError: there is no such workload or group.
    """
    wanted = [each for each in only.split(",") if each]
    groups = {workload.group for workload in WORKLOADS.values()}
    for each in wanted:
        if each not in WORKLOADS and each not in groups:
            raise KeyError(each)
    return [
        name
        for name, workload in WORKLOADS.items()
        if name in wanted or ((not wanted or workload.group in wanted) and (workload.quick or not quick))
    ]


def _systems(options: argparse.Namespace, stack: ExitStack) -> list[System]:
    left_out = options.without.split(",")
    systems: list[System] = []
    if "ray" not in left_out:
        try:
            systems.append(Ray(options.ray_python))
        except BenchmarkError as error:
            raise SystemExit(str(error)) from None
    if "embedded" not in left_out:
        systems.append(Embedded())
    if "rabbitmq" not in left_out:
        try:
            systems.append(
                Cluster(
                    stack, appendonly=options.appendonly, broker_url=options.broker_url, store_url=options.store_url
                )
            )
        except BenchmarkError as error:
            print(f"RabbitMQ + Redis are left out: {error}", flush=True)
    return systems


def _machine() -> str:
    """Return what anybody must know who compares the numbers with others."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), model)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except OSError:
        memory = 0.0
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    versions = [_version("redis-server", "--version"), _version("rabbitmqctl", "version")]
    return (
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.platform()}\n"
        f"rabbitry at {commit.stdout.strip() or 'an unknown commit'}, {', '.join(filter(None, versions))}\n"
        f"{time.strftime('%Y-%m-%d %H:%M')}, load average {', '.join(f'{each:.2f}' for each in os.getloadavg())}"
    )


def _version(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    words = done.stdout.split()
    found = next((word[2:] if word.startswith("v=") else word for word in words if word.strip("v=")[:1].isdigit()), "?")
    return f"{command[0]} {found}"


def _busy() -> float:
    """Return the share of the machine that is in use now; called when nothing of ours runs but idle servers."""

    def times() -> list[int]:
        with open("/proc/stat") as file:
            return [int(each) for each in file.readline().split()[1:9]]

    try:
        before = times()
        time.sleep(BUSY_SECONDS)
        spent = [now - then for now, then in zip(times(), before, strict=True)]
    except FileNotFoundError:  # no Linux
        return min(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    return 1 - (spent[3] + spent[4]) / max(1, sum(spent))


def _save(
    options: argparse.Namespace, results: dict[str, dict[int, Round]], busy: list[float], notes: list[str]
) -> None:
    BENCH.mkdir(exist_ok=True)
    path = BENCH / f"results-{time.strftime('%Y%m%d-%H%M%S')}.json"
    kept: dict[str, Any] = {
        "machine": _machine(),
        "options": {key: value for key, value in vars(options).items() if not key.endswith("_url")},
        "busy_before_each": busy,
        "notes": notes,
        "rounds": {system: {at: one._asdict() for at, one in rounds.items()} for system, rounds in results.items()},
    }
    path.write_text(json.dumps(kept, indent=1))
    print(f"saved to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
