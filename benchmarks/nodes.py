"""Large values between five nodes, and placement groups on them, on Ray and on rabbitry, in one run.

    python -m benchmarks.nodes                                      # Ray goes into .bench/ray on first use
    python -m benchmarks.nodes --rounds 3 --ray-python ~/ray/bin/python
    python -m benchmarks.nodes --without ray,rabbitmq,embedded
    python -m benchmarks.nodes --workload broadcast --without rabbitmq,embedded
    python -m benchmarks.nodes --workload groups --without hosts

| workload | |
|---|---|
| `shuffle` | 16 tasks make 16 values of 4 MiB each, 16 tasks read one of each |
| `broadcast` | a task on one node makes 1 GiB, a task on each of the four others reads it |
| `group` | 20 groups of one bundle, one after the other: made, ready, removed |
| `groups` | 100 groups of 4 bundles: made, all ready |
| `spread_groups` | the same, each on four different nodes |
| `inside` | 1,000 empty tasks in a group with a bundle on each node |
| `outside` | the same tasks in no group |

| system | five nodes that |
|---|---|
| `ray` | have an object store each, as Ray's `Cluster` makes them |
| `hosts` | rabbitry on RabbitMQ + Redis: share no memory, as on five hosts: what one made, others take from it |
| `rabbitmq` | the same servers: share their host's memory |
| `embedded` | share their host's memory |

As a program of the interpreter under test, `python nodes.py SYSTEM WORKLOAD` prints a line: `RESULT`, then the seconds
of each turn after the first, each with the seconds of processor time that all processes took for it, servers included.
That is the steadier number on a machine that does other things too.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks.workloads import MARKER, SERVERS, cluster_processes

NODES = 5
PARTS = 16
PART_BYTES = 4 << 20
VALUE_BYTES = 1 << 30
STORE_BYTES = {"shuffle": 600 << 20, "broadcast": 1536 << 20}
"""Of each of Ray's nodes: its part of what is alive at a time, and room for the copies."""

LITTLE_BYTES = 100 << 20
"""The same where nothing large is made."""

GROUPS = 100
BUNDLES = 4
BUNDLE_CPUS = 0.001
IN_TURN = 20
TASKS = 1000

TITLES = {
    "shuffle": f"{PARTS} x {PARTS} values of {PART_BYTES >> 20} MiB on {NODES} nodes, seconds a shuffle",
    "broadcast": f"{VALUE_BYTES >> 20} MiB from one node to {NODES - 1} others, seconds",
    "group": f"{IN_TURN} groups of one bundle in turn on {NODES} nodes, made, ready, removed, seconds",
    "groups": f"{GROUPS} groups of {BUNDLES} bundles on {NODES} nodes, all ready, seconds",
    "spread_groups": f"{GROUPS} groups of {BUNDLES} bundles on as many of {NODES} nodes, all ready, seconds",
    "inside": f"{TASKS} empty tasks in a group on {NODES} nodes, seconds",
    "outside": f"{TASKS} empty tasks on {NODES} nodes, seconds",
}
TURNS = {"shuffle": 4, "broadcast": 3}
TURNS_OF_LITTLE = 6
PAUSE_SECONDS = 0.5  # what was deleted goes in the background
SYSTEMS = ("ray", "hosts", "rabbitmq", "embedded")
BROKER, STORE = "RABBITRY_BROKER_URL", "RABBITRY_STORE_URL"
LIMIT_SECONDS = 300


def _start(system: str, workload: str) -> tuple[Any, Any]:
    """Return the module and its cluster, connected."""
    ray: Any
    if system == "ray":
        import ray  # type: ignore[import-not-found, no-redef]
        from ray.cluster_utils import Cluster  # type: ignore[import-not-found]

        room = STORE_BYTES.get(workload, LITTLE_BYTES)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": room})
        for _ in range(NODES - 1):
            cluster.add_node(num_cpus=1, object_store_memory=room)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        return ray, cluster
    import rabbitry
    from rabbitry.cluster_utils import Cluster as Nodes

    ours = Nodes(engine="embedded" if system == "embedded" else "rabbitmq")
    for _ in range(NODES):
        ours.add_node(num_cpus=1, own_host=system == "hosts")
    ours.wait_for_nodes()
    ours.connect(log_to_driver=False)
    return rabbitry, ours


def measure(system: str, workload: str) -> list[tuple[float, float]]:
    """Return the seconds of some turns of a workload on a system, in this process; and of processor time."""
    ray, cluster = _start(system, workload)
    turn = WORKLOADS[workload](ray)
    found = []
    for _ in range(TURNS.get(workload, TURNS_OF_LITTLE)):
        before = _processor_seconds()
        seconds = turn()
        found.append((seconds, _processor_seconds() - before))
        time.sleep(PAUSE_SECONDS)
    ray.shutdown()
    cluster.shutdown()
    return found[1:]


def _processor_seconds() -> float:
    """Return the processor time of all that is alive of the system under test."""
    ticks = 0
    for pid in cluster_processes():
        try:
            with open(f"/proc/{pid}/stat") as file:
                ticks += sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
        except OSError:  # it has ended
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def _shuffle(ray: Any) -> Callable[[], float]:
    @ray.remote(num_returns=PARTS)
    def split(number: int) -> Any:
        import numpy

        return [numpy.full(PART_BYTES, number, numpy.uint8) for _ in range(PARTS)]

    @ray.remote
    def merge(*parts: Any) -> int:
        return sum(int(part[::4096].sum()) for part in parts)

    def turn() -> float:
        began = time.perf_counter()
        parts = [split.remote(number) for number in range(PARTS)]
        merged = ray.get([merge.remote(*each) for each in zip(*parts)], timeout=LIMIT_SECONDS)  # noqa: B905
        seconds = time.perf_counter() - began
        assert merged == [sum(range(PARTS)) * PART_BYTES // 4096] * PARTS
        return seconds

    return turn


def _broadcast(ray: Any) -> Callable[[], float]:
    strategies = import_module(f"{ray.__name__}.util.scheduling_strategies")

    @ray.remote
    def make() -> Any:
        import numpy

        return numpy.full(VALUE_BYTES, 7, numpy.uint8)

    @ray.remote
    def look(value: Any) -> int:
        return int(value[::4096].sum())

    def on(node: str, function: Any) -> Any:
        return function.options(scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(node, soft=False))

    first, *others = [each["NodeID"] for each in ray.nodes() if each["Alive"]]

    def turn() -> float:
        value = on(first, make).remote()
        ray.wait([value], timeout=LIMIT_SECONDS, fetch_local=False)
        began = time.perf_counter()
        seen = ray.get([on(node, look).remote(value) for node in others], timeout=LIMIT_SECONDS)
        seconds = time.perf_counter() - began
        assert seen == [7 * VALUE_BYTES // 4096] * (NODES - 1)
        return seconds

    return turn


def _group(ray: Any) -> Callable[[], float]:
    util = import_module(f"{ray.__name__}.util")

    def turn() -> float:
        began = time.perf_counter()
        for _ in range(IN_TURN):
            group = util.placement_group([{"CPU": 1}])
            ray.get(group.ready(), timeout=LIMIT_SECONDS)
            util.remove_placement_group(group)
        return time.perf_counter() - began

    return turn


def _groups(strategy: str) -> Callable[[Any], Callable[[], float]]:
    def workload(ray: Any) -> Callable[[], float]:
        util = import_module(f"{ray.__name__}.util")
        bundles = [{"CPU": BUNDLE_CPUS}] * BUNDLES

        def turn() -> float:
            began = time.perf_counter()
            made = [util.placement_group(bundles, strategy=strategy) for _ in range(GROUPS)]
            ray.get([group.ready() for group in made], timeout=LIMIT_SECONDS)
            seconds = time.perf_counter() - began
            for group in made:
                util.remove_placement_group(group)
            return seconds

        return turn

    return workload


def _tasks(*, inside: bool) -> Callable[[Any], Callable[[], float]]:
    def workload(ray: Any) -> Callable[[], float]:
        @ray.remote
        def empty() -> None:
            pass

        if inside:
            util = import_module(f"{ray.__name__}.util")
            strategies = import_module(f"{ray.__name__}.util.scheduling_strategies")
            group = util.placement_group([{"CPU": 1}] * NODES, strategy="STRICT_SPREAD")
            ray.get(group.ready(), timeout=LIMIT_SECONDS)
            empty = empty.options(scheduling_strategy=strategies.PlacementGroupSchedulingStrategy(group))

        def turn() -> float:
            began = time.perf_counter()
            ray.get([empty.remote() for _ in range(TASKS)], timeout=LIMIT_SECONDS)
            return time.perf_counter() - began

        return turn

    return workload


WORKLOADS: dict[str, Callable[[Any], Callable[[], float]]] = {
    "shuffle": _shuffle,
    "broadcast": _broadcast,
    "group": _group,
    "groups": _groups("PACK"),
    "spread_groups": _groups("STRICT_SPREAD"),
    "inside": _tasks(inside=True),
    "outside": _tasks(inside=False),
}


def main() -> int:
    """Run what the command line says, and print a table."""
    import argparse
    import statistics
    import subprocess
    from contextlib import ExitStack

    from benchmarks.systems import PATH, ROOT, Cluster, install_ray

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each system (default 3)")
    parser.add_argument("--without", default="", metavar="SYSTEMS", help=f"leave out some of {', '.join(SYSTEMS)}")
    parser.add_argument("--ray-python", metavar="PATH", help="an interpreter that has Ray; default: made in .bench/ray")
    parser.add_argument(
        "--workload", choices=sorted(WORKLOADS), default="shuffle", help="what is measured (default shuffle)"
    )
    options = parser.parse_args()
    systems = [each for each in SYSTEMS if each not in options.without.split(",")]
    found: dict[str, list[tuple[float, float]]] = {system: [] for system in systems}
    with ExitStack() as stack:
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
        ours = {**environment, "PYTHONPATH": os.pathsep.join((PATH, str(ROOT)))}
        if {"hosts", "rabbitmq"} & found.keys():
            servers = Cluster(stack, appendonly=False, broker_url=None, store_url=None)
            ours |= {BROKER: servers.broker_url, STORE: servers.store_url}
            ours |= {SERVERS: " ".join(map(str, servers.server_pids))}
        python = options.ray_python or install_ray() if "ray" in systems else ""
        for number in range(options.rounds):
            for system in systems[number % len(systems) :] + systems[: number % len(systems)]:
                command = [python if system == "ray" else sys.executable, __file__, system, options.workload]
                done = subprocess.run(
                    command,
                    env={**(environment if system == "ray" else ours), MARKER: secrets.token_hex(8)},
                    capture_output=True,
                    text=True,
                    timeout=2 * LIMIT_SECONDS,
                    check=False,
                )
                lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
                if not lines:
                    print(f"{system} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
                    return 1
                found[system] += json.loads(lines[-1].removeprefix("RESULT "))
    print(f"{TITLES[options.workload]}; load {os.getloadavg()[0]:.1f}")
    for at, what in enumerate(("", "of processor time")):
        numbers = {system: [turn[at] for turn in turns] for system, turns in found.items()}
        ray = statistics.median(numbers["ray"]) if "ray" in numbers else None
        print(*[what] * bool(what), sep="\n", end="\n" * bool(what))
        for system, each in numbers.items():
            median = statistics.median(each)
            ratio = f"  {ray / median:5.2f} x Ray" if ray and median else ""
            print(f"{system:<10} {median:7.2f}  ({min(each):.2f} to {max(each):.2f}){ratio}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in SYSTEMS:
        print("RESULT " + json.dumps(measure(*sys.argv[1:])))
    else:
        sys.exit(main())
