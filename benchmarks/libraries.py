"""Libraries that are written for Ray, on Ray and on rabbitry (`rabbitry.as_ray`), in one run.

    python -m benchmarks.libraries                                  # all, 3 rounds
    python -m benchmarks.libraries --only serve --rounds 1 --quick
    python -m benchmarks.libraries --without rabbitmq --ray-python ~/ray/bin/python
    python -m benchmarks.libraries --only data --cpus 2             # as by default on two processors

It is run by an interpreter that has rabbitry, Ray's wheel and the libraries; that one runs Ray too, unless another is
named:

    uv pip install -e . 'ray[default,tune,data,train,serve,rllib]==2.60.0' torch pandas pyarrow 'modin[ray]' pytest

| workload | steps |
|---|---|
| `tune` | `fit` of 8 trials under ASHA: `tune_first` in a cluster that is fresh, `tune` again |
| `serve` | requests over HTTP: in turn, and from 32 clients at once; calls of a handle: in turn, and at once |
| `data` | `range` of 10**6 and `map_batches` (`data_first` in a fresh cluster), `groupby`, `sort`; 200 MB of parquet |
| `train` | `fit` with two workers of torch DDP; `train_first` in a cluster that is fresh, `train` again |
| `rllib` | an iteration of PPO on CartPole with two env runners |
| `modin` | operations on a frame of 10**6 rows |

Systems are Ray, rabbitry embedded, and rabbitry on RabbitMQ + Redis with one node; all of four CPUs (`--cpus`), on
however many processors: Serve's and Train's actors want one each. A round of a workload is a fresh process with a
cluster of its own. The table has the medians of seconds on the clock and of processor time: that of all processes from
beginning to end of the step, servers included, which only Linux' cgroup v2 can tell and for which this user has to be
allowed to make a group. On a machine that does other things too it is the steadier number.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks.library_workloads import ADDRESS, CPUS, GROUP, WORKLOADS
from benchmarks.systems import PATH, ROOT, BenchmarkError, Cluster
from benchmarks.workloads import MARKER, SERVERS
from compat.control_group import control_group
from tests.servers import wait_until

SYSTEMS = ("ray", "embedded", "rabbitmq")
PROGRAM = ROOT / "benchmarks" / "library_workloads.py"
LIMIT_SECONDS = 900.0
NODE_SECONDS = 120.0

BARS = {
    "tune": 2.0,
    "serve_http": 1.5,
    "serve_http_32": 1.5,
    "serve_handle": 1.5,
    "data_map_batches": 1.3,
    "data_groupby": 1.3,
    "data_sort": 1.3,
    "data_parquet": 1.0,
    "train": 1.3,
    "rllib_iteration": 1.0,
    **{f"modin_{each}": 1.0 for each in ("map", "sum", "groupby", "counts", "sort", "merge", "filter", "apply")},
}
"""How many times faster than Ray each is to be."""

Times = dict[str, list[tuple[float, float | None]]]
"""Of each step: seconds on the clock, and of processor time."""


def run(system: str, workload: str, python: str, servers: Cluster | None, quick: bool) -> Times:
    """Return what one round of a workload measures.

    Args:
        system: of `SYSTEMS`.
        workload: of `WORKLOADS`.
        python: the interpreter.
        servers: RabbitMQ and Redis, for the system that has them.
        quick: less of everything.

    Raises:
        BenchmarkError: it failed. The message has its last words.
    """
    dropped = ("PYTHONPATH", "RAY_ADDRESS", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    roots = str(ROOT) if system == "ray" else os.pathsep.join((PATH, str(ROOT)))
    environment |= {"PYTHONPATH": roots, "RAY_USAGE_STATS_ENABLED": "0", MARKER: secrets.token_hex(8)}
    # Ray's own workers are started by the first Python there is; its sockets want a short path.
    environment["PATH"] = os.pathsep.join((str(Path(python).parent), environment.get("PATH", "")))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rb-", dir="/tmp", ignore_cleanup_errors=True))
        environment["RAY_TMPDIR"] = folder
        group = stack.enter_context(control_group("benchmark"))
        environment[GROUP] = str(group.folder or "")
        if system == "rabbitmq" and servers is not None:
            environment |= {**servers.environment, "PYTHONPATH": roots}
            environment |= {ADDRESS: "auto", SERVERS: " ".join(map(str, servers.server_pids))}
            _start_node(stack, group.command([python, *_node()]), environment, Path(folder, "node.log"))
        command = group.command([python, str(PROGRAM), system, workload, "quick" if quick else ""])
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"{workload} on {system} did not end within {LIMIT_SECONDS:g} s") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise BenchmarkError(f"{workload} on {system} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found: Times = json.loads(lines[-1].removeprefix("RESULT "))
    return found


def _node() -> list[str]:
    return ["-m", "rabbitry_workers", "start", "--num-cpus", os.environ[CPUS]]


def _start_node(stack: ExitStack, command: list[str], environment: Mapping[str, str], log: Path) -> None:
    """Start a node; the stack ends it."""
    output = stack.enter_context(log.open("wb"))
    node = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    stack.callback(node.wait)
    stack.callback(node.terminate)
    wait_until(lambda: "takes work" in log.read_text(), "the node takes work", timeout=NODE_SECONDS)


def table(found: Mapping[str, Times]) -> str:
    """Return the medians of each step, rabbitry's with the ratio to Ray's, and the bars."""
    lines = [
        f"{'':22}" + "".join(f"{f'{system}, s':>14}{'cpu, s':>8}{'x':>7}{'x cpu':>7}" for system in found) + "   bar"
    ]
    for step in dict.fromkeys(step for times in found.values() for step in times):
        line = f"{step:22}"
        wall, processor = (
            {system: _median(times.get(step, []), at) for system, times in found.items()} for at in (0, 1)
        )
        for system in found:
            line += f"{_number(wall[system]):>14}{_number(processor[system]):>8}"
            line += f"{_ratio(wall, system):>7}{_ratio(processor, system):>7}"
        lines.append(f"{line}{BARS[step]:6g}" if step in BARS else line)
    return "\n".join(lines)


def _median(times: list[tuple[float, float | None]], at: int) -> float | None:
    values = [value for each in times if (value := each[at]) is not None]
    return statistics.median(values) if values else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _ratio(values: Mapping[str, float | None], system: str) -> str:
    theirs, ours = values.get("ray"), values[system]
    return f"{theirs / ours:.2f}" if system != "ray" and theirs is not None and ours else ""


def main() -> int:
    """Run what the command line says, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.libraries",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default=",".join(WORKLOADS), metavar="WORKLOADS", help="default: all")
    parser.add_argument("--without", default="", metavar="SYSTEMS", help=f"leave out some of {', '.join(SYSTEMS)}")
    parser.add_argument("--cpus", type=int, default=4, metavar="N", help="of each cluster (default 4)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each system (default 3)")
    parser.add_argument("--ray-python", default=sys.executable, metavar="PATH", help="runs Ray; default: this one")
    parser.add_argument("--quick", action="store_true", help="less of everything: does it run?")
    parser.add_argument("--json", metavar="FILE", help="also write all figures there")
    options = parser.parse_args()
    os.environ[CPUS] = str(options.cpus)
    workloads = options.only.split(",")
    if unknown := set(workloads) - set(WORKLOADS):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    systems = [each for each in SYSTEMS if each not in options.without.split(",")]
    found: dict[str, Times] = {system: {} for system in systems}
    failed = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what it started ends with it
    with ExitStack() as stack:
        servers = None
        if "rabbitmq" in systems:
            servers = Cluster(stack, appendonly=False, broker_url=None, store_url=None)
        for workload in workloads:
            for number in range(options.rounds):
                for system in systems[number % len(systems) :] + systems[: number % len(systems)]:
                    python = options.ray_python if system == "ray" else sys.executable
                    try:
                        measured = run(system, workload, python, servers, options.quick)
                    except BenchmarkError as error:
                        print(error, file=sys.stderr, flush=True)
                        failed += 1
                        continue
                    for step, times in measured.items():
                        found[system].setdefault(step, []).extend(times)
            of_it = {
                system: {step: each for step, each in times.items() if step.partition("_")[0] == workload}
                for system, times in found.items()
            }
            print(table(of_it), flush=True)
    print(f"{options.rounds} rounds on {os.cpu_count()} processors; load {os.getloadavg()[0]:.1f}")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
