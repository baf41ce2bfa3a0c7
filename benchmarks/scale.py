"""What a task, a call, an actor and an idle node cost, with 1 to 100 nodes on one machine: processor time of each part.

    python -m benchmarks.scale                                # 1, 10 and 40 nodes, and what follows from that
    python -m benchmarks.scale --nodes 1,20,100 --only idle,sleep
    python -m benchmarks.scale --quick                        # 1 and 3 nodes, little of everything: a minute

Servers, agents and executors are real; each number of nodes has servers of its own. What many nodes have not on one
machine is many machines' cores, so the work of most is to sleep: an executor that sleeps for 10 ms stands for one that
computes for 10 ms elsewhere. What is measured is processor time, which a busy machine changes less than elapsed time
(by caches that are colder, up to two times); but for `efficiency`, the share of their time that nodes spent on tasks.

From the smallest and the largest number of nodes follows a model (`scale_model`), which is checked against all.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.scale_model import SERVERS, Costs, Load, ceiling, line, most_nodes, relative_error, spends

NODES: Final = (1, 10, 40)
QUICK_NODES: Final = (1, 3)
SERVER_SECONDS: Final = 120.0  # until RabbitMQ answers, on a machine that has other work
SLEEP: Final = 0.01
LIMIT_SECONDS: Final = 1800
RESULT: Final = "RESULT "
SIZES: Final = (10, 100, 1000, 10_000)
CORES: Final = {"redis": 1.0, "rabbitmq": 8.0}
"""Of the servers that the model assumes: one thread of Redis runs commands, RabbitMQ takes what its machine has."""


class Amounts:
    """How much of everything is measured.

    Args:
        quick: a little: enough to see that it works, not for figures.
    """

    def __init__(self, *, quick: bool) -> None:
        self.settle = 1.0 if quick else 4.0  # seconds
        self.idle = 2.0 if quick else 10.0  # seconds
        self.sleeps = 20 if quick else 300  # tasks of each node
        self.alone = 50 if quick else 2000
        self.empty = 500 if quick else 20_000
        self.calls = 500 if quick else 10_000
        self.actors = 4 if quick else 200


class Servers(NamedTuple):
    """The servers of a cluster, on this machine.

    Attributes:
        broker_url: RabbitMQ.
        broker_pid: its process.
        store_url: Redis.
        store_pid: its process.
    """

    broker_url: str
    broker_pid: int
    store_url: str
    store_pid: int


def start_servers(stack: ExitStack) -> Servers:
    """Start servers that end with the stack."""
    from tests import servers

    servers.READY_TIMEOUT = SERVER_SECONDS
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scale-", dir="/tmp")))
    store = servers.RedisServer(directory / "redis", appendonly=False)
    broker = servers.RabbitMQServer(directory / "rabbitmq")
    for server in (store, broker):
        server.start()
        stack.callback(server.stop)
    return Servers(broker.url, broker.pid, store.url, store.pid)


class Scene:
    """A cluster with its driver, in this process.

    Args:
        stack: ends it.
        servers: of the cluster.
        nodes: of one CPU each.
        amounts: how much of everything is measured.
    """

    def __init__(self, stack: ExitStack, servers: Servers, nodes: int, amounts: Amounts) -> None:
        import redis

        import rabbitry
        from benchmarks.scale_processes import Watched
        from rabbitry.cluster_utils import Cluster

        self.cluster = Cluster(engine="rabbitmq", broker_url=servers.broker_url, store_url=servers.store_url)
        stack.callback(self.cluster.shutdown)
        for _ in range(nodes):
            self.cluster.add_node(num_cpus=1)
        self.cluster.wait_for_nodes()
        self.cluster.connect(log_to_driver=False)
        self.ray = rabbitry
        self.nodes = nodes
        self.amounts = amounts
        client = stack.enter_context(redis.Redis.from_url(servers.store_url))
        agents = [node.pid for node in self.cluster.list_all_nodes()]
        self.watched = Watched(client, servers.store_pid, servers.broker_pid, agents)

    def measure(self, count: float, action: Callable[[], Any]) -> dict[str, Any]:
        """Return what an action costs for each of `count`: microseconds of processor time, commands at Redis."""
        from benchmarks.scale_processes import spent

        before, began = self.watched.look(), time.perf_counter()
        action()
        took = time.perf_counter() - began
        between = spent(before, self.watched.look())
        return {
            "seconds": took,
            "rate": count / took,
            "us": {part: seconds / count * 1e6 for part, seconds in between.seconds.items()},
            "commands": sum(between.calls.values()) / count,
            "calls": {
                name: number / count for name, number in sorted(between.calls.items(), key=lambda each: -each[1])
            },
        }


def idle(scene: Scene) -> dict[str, Any]:
    """Measure a second of a node that has nothing to do."""
    time.sleep(scene.amounts.settle)
    seconds = scene.amounts.idle
    return scene.measure(scene.nodes * seconds, lambda: time.sleep(seconds))


def sleep(scene: Scene) -> dict[str, Any]:
    """Measure a task that sleeps for 10 ms, as many at a time as there are nodes."""
    ray = scene.ray

    @ray.remote
    def pause() -> int:
        time.sleep(SLEEP)
        return os.getppid()  # the node's template

    count = scene.amounts.sleeps * scene.nodes
    ray.get([pause.remote() for _ in range(4 * scene.nodes)])
    time.sleep(1.0)
    ran: list[int] = []
    found = scene.measure(count, lambda: ran.extend(ray.get([pause.remote() for _ in range(count)])))
    found["efficiency"] = count * SLEEP / scene.nodes / found["seconds"]
    shares = sorted(Counter(ran).values())
    found["shares"] = [0] * (scene.nodes - len(shares)) + shares
    return found


def lone(scene: Scene) -> dict[str, Any]:
    """Measure a task that does nothing and is waited for before the next one is sent."""
    ray = scene.ray

    @ray.remote
    def nothing() -> None:
        pass

    count = scene.amounts.alone
    for _ in range(count // 10):
        ray.get(nothing.remote())
    return scene.measure(count, lambda: [ray.get(nothing.remote()) for _ in range(count)])


def empty(scene: Scene) -> dict[str, Any]:
    """Measure a task that does nothing."""
    ray = scene.ray

    @ray.remote
    def nothing() -> None:
        pass

    count = scene.amounts.empty
    ray.get([nothing.remote() for _ in range(count // 10)])
    return scene.measure(count, lambda: ray.get([nothing.remote() for _ in range(count)]))


def calls(scene: Scene) -> dict[str, Any]:
    """Measure a call of an actor, many at a time."""
    ray = scene.ray

    @ray.remote(num_cpus=0)
    class Counter:
        def add(self) -> None:
            pass

    count = scene.amounts.calls
    counter = Counter.remote()
    ray.get([counter.add.remote() for _ in range(count // 10)])
    found = scene.measure(count, lambda: ray.get([counter.add.remote() for _ in range(count)]))
    ray.kill(counter)
    return found


def actors(scene: Scene) -> dict[str, Any]:
    """Measure a second of an actor that has nothing to do; `made` is what making it costs, `kib` its memory."""
    ray, count, seconds = scene.ray, scene.amounts.actors, scene.amounts.idle

    @ray.remote(num_cpus=0)
    class Idle:
        def ping(self) -> None:
            pass

    before = {part: scene.watched.memory(part) for part in ("executor", "rabbitmq")}
    made: list[Any] = []

    def make() -> None:
        made.extend(Idle.remote() for _ in range(count))
        ray.get([each.ping.remote() for each in made])

    making = scene.measure(count, make)
    time.sleep(scene.amounts.settle)
    found = scene.measure(count * seconds, lambda: time.sleep(seconds))
    found["made"] = making
    found["kib"] = {part: (scene.watched.memory(part) - size) / count / 1024 for part, size in before.items()}
    return found


WORK: Final[Mapping[str, Callable[[Scene], dict[str, Any]]]] = {
    each.__name__: each for each in (idle, sleep, lone, empty, calls, actors)
}


def measure(nodes: int, names: Sequence[str], *, quick: bool) -> dict[str, Any]:
    """Return what each kind of work costs on a cluster with so many nodes, in this process."""
    with ExitStack() as stack:
        scene = Scene(stack, start_servers(stack), nodes, Amounts(quick=quick))
        return {name: WORK[name](scene) for name in names}


def costs_of(measured: Mapping[int, Mapping[str, Any]]) -> Costs:
    """Return the model's terms: from the smallest and the largest number of nodes, work from the largest alone."""
    base, each = line({nodes: _spent(found["idle"], nodes) for nodes, found in measured.items() if "idle" in found})
    largest = max(measured)
    resting = Costs(base, each, {}, {}, {})

    def work(name: str, count_a_second: Callable[[Mapping[str, Any]], float]) -> dict[str, float]:
        found = measured[largest].get(name)
        if found is None:
            return {}
        rate = count_a_second(found)
        return {
            part: max(0.0, us - spends(resting, Load(largest), part) * 1e6 / rate) for part, us in found["us"].items()
        }

    return Costs(
        base,
        each,
        work("sleep", lambda found: float(found["rate"])),
        work("empty", lambda found: float(found["rate"])),
        work("calls", lambda found: float(found["rate"])),
        work("actors", lambda found: float(found["rate"])),
    )


def _spent(found: Mapping[str, Any], nodes: int) -> dict[str, float]:
    """Return the microseconds that parts spend each second with so many idle nodes."""
    return {part: us * nodes for part, us in found["us"].items()}


def report(measured: Mapping[int, Mapping[str, Any]]) -> str:
    """Return tables: what was measured, what the model says of other sizes, and how far off that is."""
    lines = []
    for name in WORK:
        rows = [(nodes, found[name]) for nodes, found in measured.items() if name in found]
        if not rows:
            continue
        lines += [f"\n{name}: {(WORK[name].__doc__ or '').splitlines()[0]}"]
        lines += [
            f"{'nodes':>6} {'redis':>8} {'rabbitmq':>9} {'node':>8} {'executor':>9} {'driver':>8} {'commands':>9}"
        ]
        for nodes, each in rows:
            us = each["us"]
            more = ""
            if "efficiency" in each:
                cores = sum(us.values()) * each["rate"] / 1e6
                more = f"  efficiency {each['efficiency']:.2f} with {cores:.2f} cores"
            if "shares" in each:
                shares = each["shares"]
                more += f"  {shares[0]} to {shares[-1]} tasks a node, {shares[len(shares) // 10]} at the tenth"
            lines.append(_row(str(nodes), us, each["commands"]) + more)
            if "made" in each:
                memory = " and ".join(f"{kib:.0f} KiB ({part})" for part, kib in each["kib"].items())
                made = each["made"]
                lines.append(
                    _row("made", made["us"], made["commands"]) + f"  in {made['seconds']:.1f} s, {memory} each"
                )
    if all("idle" in found and "sleep" in found for found in measured.values()):
        lines += ["", *_predictions(measured)]
    return "\n".join(lines)


def _row(what: str, us: Mapping[str, float], commands: float) -> str:
    return (
        f"{what:>6} {us['redis']:>8.1f} {us['rabbitmq']:>9.1f} {us['node']:>8.1f} {us['executor']:>9.1f} "
        f"{us['driver']:>8.1f} {commands:>9.2f}"
    )


def _predictions(measured: Mapping[int, Mapping[str, Any]]) -> list[str]:
    costs = costs_of(measured)
    lines = [f"what follows, if Redis has {CORES['redis']:g} core and RabbitMQ {CORES['rabbitmq']:g}:"]
    for nodes in SIZES:
        idle_cores = spends(costs, Load(nodes), "redis")
        rate, server = ceiling(costs, nodes, CORES)
        lines.append(
            f"{nodes:>6} nodes: idle ones take {idle_cores:.3f} cores of Redis; "
            f"{rate:,.0f} tasks a second, then {server} is full"
        )
    for seconds in (0.01, 0.1, 1.0, 10.0, 60.0):
        nodes, server = most_nodes(costs, CORES, task_seconds=seconds, slots=8)
        lines.append(f"tasks of {seconds:g} s on nodes of 8 CPUs: {nodes:,} nodes are kept busy, then {server} is full")
    lines.append("cores that the model says, beside those that were seen:")
    for nodes, found in measured.items():
        for name in ("idle", "sleep"):
            load = Load(nodes, tasks=found["sleep"]["rate"] if name == "sleep" else 0.0)
            for part in (*SERVERS, "node"):
                seen = found[name]["us"][part] * found[name]["rate"] / 1e6
                said = spends(costs, load, part)
                lines.append(
                    f"{nodes:>6} nodes, {name:<5} {part:<8} {said:.4f} said, {seen:.4f} seen: "
                    f"{100 * relative_error(said, seen):+.0f} %"
                )
    return lines


def _run(command: Sequence[str]) -> tuple[str, str]:
    """Return what a program says on both streams; it ends with this one, in good order, and so do its servers."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        return child.communicate(timeout=LIMIT_SECONDS)
    finally:
        child.terminate()
        child.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", metavar="N,N", help=f"numbers of nodes (default {','.join(map(str, NODES))})")
    parser.add_argument("--only", metavar="NAMES", default=",".join(WORK), help=f"of {', '.join(WORK)}")
    parser.add_argument("--quick", action="store_true", help="little of everything: whether it works, no figures")
    parser.add_argument("--json", metavar="FILE", help="write everything there, too")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started ends with us
    numbers = (
        [int(each) for each in options.nodes.split(",")] if options.nodes else QUICK_NODES if options.quick else NODES
    )
    names = options.only.split(",")
    unknown = set(names) - set(WORK)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    if options.here:
        print(RESULT + json.dumps(measure(numbers[0], names, quick=options.quick)))
        return 0
    measured: dict[int, Any] = {}
    for nodes in numbers:
        command = [sys.executable, "-m", "benchmarks.scale", "--here", "--nodes", str(nodes), "--only", options.only]
        output, trouble = _run([*command, *(["--quick"] if options.quick else [])])
        lines = [each for each in output.splitlines() if each.startswith(RESULT)]
        if not lines:
            print(f"{nodes} nodes: it failed:\n{trouble[-3000:]}", file=sys.stderr)
            return 1
        measured[nodes] = json.loads(lines[-1].removeprefix(RESULT))
        print(f"{nodes} nodes: done", flush=True)
    print(report(measured))
    if options.json:
        Path(options.json).write_text(json.dumps(measured, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
