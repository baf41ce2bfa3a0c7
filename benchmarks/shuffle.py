"""Large values between five nodes, on Ray and on rabbitry, in one run.

    python -m benchmarks.shuffle                                      # Ray goes into .bench/ray on first use
    python -m benchmarks.shuffle --rounds 3 --ray-python ~/ray/bin/python
    python -m benchmarks.shuffle --without ray,rabbitmq,embedded
    python -m benchmarks.shuffle --workload broadcast --without rabbitmq,embedded

| workload | |
|---|---|
| `shuffle` | 16 tasks make 16 values of 4 MiB each, 16 tasks read one of each |
| `broadcast` | a task on one node makes 1 GiB, a task on each of the four others reads it |

| system | five nodes that |
|---|---|
| `ray` | have an object store each, as Ray's `Cluster` makes them |
| `hosts` | rabbitry on RabbitMQ + Redis: share no memory, as on five hosts: what one made, others take from it |
| `rabbitmq` | the same servers: share their host's memory |
| `embedded` | share their host's memory |

As a program of the interpreter under test, `python shuffle.py SYSTEM WORKLOAD` prints a line: `RESULT` and the seconds
of each turn after the first.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

NODES = 5
PARTS = 16
PART_BYTES = 4 << 20
VALUE_BYTES = 1 << 30
STORE_BYTES = {"shuffle": 600 << 20, "broadcast": 1536 << 20}
"""Of each of Ray's nodes: its part of what is alive at a time, and room for the copies."""

TITLES = {
    "shuffle": f"{PARTS} x {PARTS} values of {PART_BYTES >> 20} MiB on {NODES} nodes, seconds a shuffle",
    "broadcast": f"{VALUE_BYTES >> 20} MiB from one node to {NODES - 1} others, seconds",
}
TURNS = {"shuffle": 4, "broadcast": 3}
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

        room = STORE_BYTES[workload]
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


def measure(system: str, workload: str) -> list[float]:
    """Return the seconds of some turns of a workload on a system, in this process."""
    ray, cluster = _start(system, workload)
    turn = {"shuffle": _shuffle, "broadcast": _broadcast}[workload](ray)
    found = []
    for _ in range(TURNS[workload]):
        found.append(turn())
        time.sleep(PAUSE_SECONDS)
    ray.shutdown()
    cluster.shutdown()
    return found[1:]


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
    from importlib import import_module

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


def main() -> int:
    """Run what the command line says, and print a table."""
    import argparse
    import statistics
    import subprocess
    from contextlib import ExitStack

    from benchmarks.systems import PATH, Cluster, install_ray

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each system (default 3)")
    parser.add_argument("--without", default="", metavar="SYSTEMS", help=f"leave out some of {', '.join(SYSTEMS)}")
    parser.add_argument("--ray-python", metavar="PATH", help="an interpreter that has Ray; default: made in .bench/ray")
    parser.add_argument(
        "--workload", choices=sorted(TURNS), default="shuffle", help="what is measured (default shuffle)"
    )
    options = parser.parse_args()
    systems = [each for each in SYSTEMS if each not in options.without.split(",")]
    seconds: dict[str, list[float]] = {system: [] for system in systems}
    with ExitStack() as stack:
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
        ours = {**environment, "PYTHONPATH": PATH}
        if {"hosts", "rabbitmq"} & seconds.keys():
            servers = Cluster(stack, appendonly=False, broker_url=None, store_url=None)
            ours |= {BROKER: servers.broker_url, STORE: servers.store_url}
        python = options.ray_python or install_ray() if "ray" in systems else ""
        for number in range(options.rounds):
            for system in systems[number % len(systems) :] + systems[: number % len(systems)]:
                command = [python if system == "ray" else sys.executable, __file__, system, options.workload]
                done = subprocess.run(
                    command,
                    env=environment if system == "ray" else ours,
                    capture_output=True,
                    text=True,
                    timeout=2 * LIMIT_SECONDS,
                    check=False,
                )
                lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
                if not lines:
                    print(f"{system} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
                    return 1
                seconds[system] += json.loads(lines[-1].removeprefix("RESULT "))
    ray = statistics.median(seconds["ray"]) if "ray" in seconds else None
    print(TITLES[options.workload])
    for system, found in seconds.items():
        median = statistics.median(found)
        ratio = f"  {ray / median:5.2f} x Ray" if ray else ""
        print(f"{system:<10} {median:7.2f}  ({min(found):.2f} to {max(found):.2f}){ratio}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in SYSTEMS:
        print("RESULT " + json.dumps(measure(*sys.argv[1:])))
    else:
        sys.exit(main())
