"""`python -m benchmarks`: run the workloads on Ray and on warren, alternating, and print one table.

Each round of each system is a fresh process. Ratios are of the medians; the range beside them is of the rounds' ratios.
Ray lives in a venv of its own under `.bench/` (made on first use), or is named by --ray-python.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.workloads import CPUS, WORKLOADS

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / ".bench"
RAY = "ray[default]==2.60.0"
LOWER_IS_BETTER = {"import", "init", "idle_memory", "driver_memory"}
UNITS = {"import": "s", "init": "s", "idle_memory": "bytes", **{name: unit for name, (_, unit) in WORKLOADS.items()}}

# Bars of the project, as ratios to Ray: (embedded, RabbitMQ + Redis)
BARS: dict[str, tuple[float | None, float | None]] = {
    "sync": (1.5, 1.0),
    "async_10000": (12, 8),
    "chain_100": (3, 1.5),
    "wait_1000": (5, 5),
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
    "put_64mib": (1, None),
    "task_64mib_argument": (1, None),
    "task_8mib_result": (1.5, None),
    "task_2000_refs": (2, None),
    "get_2000_refs": (2, None),
    "put_small": (10, None),
}


def ray_python(given: str | None) -> str:
    """Return the interpreter that has Ray, made if need be."""
    if given:
        return given
    python = BENCH / "ray" / "bin" / "python"
    if not python.exists():
        print(f"installing {RAY} into {python.parent.parent}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(python.parent.parent)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", RAY, "numpy"], check=True)
    return str(python)


def run(python: str, system: str, names: list[str], address: str | None, environment: dict[str, str]) -> dict[str, Any]:
    """Run workloads once in a fresh process of one system."""
    variables = {**os.environ, **environment, "WARREN_BENCHMARK": secrets.token_hex(8)}
    variables["RAY_DEDUP_LOGS"] = "0"
    if system != "ray":
        variables["PYTHONPATH"] = os.pathsep.join(str(ROOT / each) for each in ("broker", "api", "workers"))
    command = [
        python,
        str(ROOT / "benchmarks" / "workloads.py"),
        system,
        ",".join(names),
        *([address] if address else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=900)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            for complaint in done.stderr.splitlines():
                if complaint.startswith(f"{system} "):
                    print(complaint, file=sys.stderr)
            result: dict[str, Any] = json.loads(line[7:])
            return result
    raise SystemExit(f"{system} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def start_cluster(stack: ExitStack, appendonly: bool) -> dict[str, str]:
    """Start RabbitMQ, Redis and one node for the cluster engine; return the environment that reaches them."""
    sys.path.insert(0, str(ROOT))
    from tests.servers import RabbitMQServer, RedisServer

    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="warren-bench-")))
    redis = RedisServer(directory / "redis", appendonly=appendonly)
    rabbitmq = RabbitMQServer(directory / "rabbitmq")
    for server in (redis, rabbitmq):
        server.start()
        stack.callback(server.stop)
    environment = {
        "WARREN_BROKER_URL": rabbitmq.url,
        "WARREN_STORE_URL": redis.url,
        "WARREN_SECRET": secrets.token_hex(16),
    }
    path = os.pathsep.join(str(ROOT / each) for each in ("broker", "api", "workers"))
    log = stack.enter_context((directory / "node.log").open("w"))
    node = subprocess.Popen(
        [sys.executable, "-m", "warren_workers", "start", "--num-cpus", str(CPUS)],
        env={**os.environ, **environment, "PYTHONPATH": path},
        stdout=log,
        stderr=log,
    )
    stack.callback(node.wait)
    stack.callback(node.terminate)
    time.sleep(3.0)
    if node.poll() is not None:
        raise SystemExit("the node did not start:\n" + (directory / "node.log").read_text())
    return environment


def ratio(name: str, ours: float, rays: float) -> float:
    """Return how many times better than Ray's a number is."""
    return rays / ours if name in LOWER_IS_BETTER else ours / rays


def table(results: dict[str, list[dict[str, Any]]], names: list[str]) -> str:
    """Return the table of medians and ratios."""
    engines = [engine for engine in ("embedded", "rabbitmq") if engine in results]
    head = f"{'workload':<22}{'unit':<11}{'Ray':>12}"
    head += "".join(f"{engine:>12}{'x Ray':>8}{'range':>14}{'bar':>6}  " for engine in engines)
    lines = [head, "-" * len(head)]

    def median(system: str, name: str) -> float | None:
        values = [each[name] for each in results.get(system, []) if each.get(name) is not None]
        return statistics.median(values) if values else None

    for name in ["import", "init", "idle_memory", *names]:
        rays = median("ray", name)
        line = f"{name:<22}{UNITS[name]:<11}{rays if rays is not None else float('nan'):>12,.4g}"
        for at, engine in enumerate(engines):
            ours = median(engine, name)
            if ours is None:
                line += f"{'-':>12}{'':>8}{'':>14}{'':>6}  "
                continue
            line += f"{ours:>12,.5g}"
            if rays is None:
                line += f"{'':>8}{'':>14}{'':>6}  "
                continue
            rounds = [
                ratio(name, mine[name], theirs[name])
                for mine, theirs in zip(results[engine], results["ray"], strict=False)
                if mine.get(name) and theirs.get(name)
            ]
            bar = BARS.get(name, (None, None))[at]
            mark = "" if bar is None else ("  ok" if ratio(name, ours, rays) >= bar else " LOW")
            spread = f"{min(rounds):.1f}-{max(rounds):.1f}" if rounds else ""
            line += f"{ratio(name, ours, rays):>8.1f}{spread:>14}{bar if bar is not None else '':>6}{mark:<4}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, run the rounds, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", help="names, comma separated: " + ", ".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each system (default 3)")
    parser.add_argument("--quick", action="store_true", help="one round without the long workloads")
    parser.add_argument("--ray-python", help="an interpreter that has Ray; default: made under .bench/")
    parser.add_argument("--without", default="", help="leave out: ray, embedded, rabbitmq (comma separated)")
    parser.add_argument("--appendonly", action="store_true", help="Redis of the cluster engine with AOF")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(WORKLOADS)
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        parser.error(f"no workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    if options.quick:
        names = [name for name in names if name not in ("async_100000", "driver_memory")]
    left_out = set(options.without.split(","))
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.2f}, {time.strftime('%Y-%m-%d %H:%M')}"
    )
    results: dict[str, list[dict[str, Any]]] = {}
    with ExitStack() as stack:
        python = ray_python(options.ray_python) if "ray" not in left_out else ""
        cluster = start_cluster(stack, options.appendonly) if "rabbitmq" not in left_out else {}
        for at in range(1 if options.quick else options.rounds):
            for system in ("ray", "embedded", "rabbitmq"):
                if system in left_out:
                    continue
                started = time.perf_counter()
                interpreter = python if system == "ray" else sys.executable
                address = "auto" if system == "rabbitmq" else None
                environment = cluster if system == "rabbitmq" else {}
                results.setdefault(system, []).append(run(interpreter, system, names, address, environment))
                print(f"round {at + 1}: {system} {time.perf_counter() - started:.0f} s", flush=True)
    print(table(results, names))
    BENCH.mkdir(exist_ok=True)
    path = BENCH / f"results-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(results, indent=1))
    print(f"saved to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
