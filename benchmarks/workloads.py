"""The workloads, and the program that measures them.

A workload is a function of the module `ray` (Ray's own, or rabbitry) and the remote functions of `Tasks`; it returns a
number, in the unit that `WORKLOADS` gives it. It calls nothing that is not in Ray, so it runs unchanged on both.

As a program, in the interpreter under test: `python workloads.py SYSTEM NAME,NAME,... [ADDRESS]` prints one line,
`RESULT` and JSON. It imports nothing but the system under test: Ray's interpreter needs no more than Ray and numpy.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

CPUS = 2
"""What every cluster under test has."""

LIMIT_SECONDS = 300
"""A workload that takes longer is given up and reported as failed."""

MARKER = "RABBITRY_BENCHMARK"
"""The environment variable that tells the processes of a cluster under test from others; the runner sets it."""

SERVERS = "RABBITRY_BENCHMARK_SERVERS"
"""The environment variable that lists the process ids of servers that the runner started for the cluster."""

IDLE_SECONDS = 2.0
"""How long a cluster that did some work is left alone before its memory is taken."""

CALLER = "--calls-beside"
"""The first argument of the program as the other driver of `calls_beside`."""

ADDRESS: list[str] = []
"""Of the cluster under test, for other drivers."""

TASK, ACTOR, GROUP, OBJECT, SESSION = "tasks", "actors", "placement groups", "objects", "session"


def _rate(count: int, action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return count / (time.perf_counter() - start)


def _median_of(times: int, action: Callable[[], float]) -> float:
    return statistics.median(action() for _ in range(times))


class Tasks:
    """The remote functions and actors, made once a process."""

    def __init__(self, ray: Any) -> None:
        @ray.remote
        def empty() -> None:
            pass

        @ray.remote
        def sleep(seconds: float) -> None:
            time.sleep(seconds)

        @ray.remote
        def increment(x: int) -> int:
            return x + 1

        @ray.remote
        def spawn(count: int) -> int:
            return len(ray.get([empty.remote() for _ in range(count)]))

        @ray.remote
        def fib(n: int) -> int:
            return n if n < 2 else sum(ray.get([fib.remote(n - 1), fib.remote(n - 2)]))

        @ray.remote
        def take(*values: int) -> int:
            return len(values)

        @ray.remote
        def size(array: Any) -> int:
            return array.nbytes

        @ray.remote
        def read(array: Any) -> float:
            start = time.perf_counter()
            array.view("uint64").max()
            return time.perf_counter() - start

        @ray.remote
        def make(nbytes: int) -> Any:
            import numpy

            return numpy.zeros(nbytes, dtype=numpy.uint8)

        @ray.remote
        class Counter:
            def __init__(self) -> None:
                self.value = 0

            def increment(self) -> int:
                self.value += 1
                return self.value

        @ray.remote
        class AsyncCounter:
            async def increment(self) -> int:
                return 1

        @ray.remote
        class Caller:
            def __init__(self, targets: list[Any]) -> None:
                self.targets = targets

            def call(self, count: int) -> int:
                refs = [target.increment.remote() for target in self.targets for _ in range(count)]
                return len(ray.get(refs))

        self.empty, self.increment, self.spawn, self.fib, self.sleep = empty, increment, spawn, fib, sleep
        self.take, self.size, self.read, self.make = take, size, read, make
        self.Counter, self.AsyncCounter, self.Caller = Counter, AsyncCounter, Caller


def sync(ray: Any, tasks: Tasks) -> float:
    return _rate(500, lambda: [ray.get(tasks.empty.remote()) for _ in range(500)])


def _async(count: int) -> Callable[[Any, Tasks], float]:
    def run(ray: Any, tasks: Tasks) -> float:
        return _rate(count, lambda: ray.get([tasks.empty.remote() for _ in range(count)]))

    return run


def chain(ray: Any, tasks: Tasks) -> float:
    def once() -> None:
        ref = 0
        for _ in range(100):
            ref = tasks.increment.remote(ref)
        assert ray.get(ref) == 100

    return _median_of(5, lambda: _rate(100, once))


def _wait(count: int, times: int) -> Callable[[Any, Tasks], float]:
    def once(ray: Any, tasks: Tasks) -> None:
        waiting = [tasks.empty.remote() for _ in range(count)]
        while waiting:
            _, waiting = ray.wait(waiting)

    return lambda ray, tasks: _median_of(times, lambda: _rate(count, lambda: once(ray, tasks)))


def cancel_3000(ray: Any, tasks: Tasks) -> float:
    """Cancel 3,000 tasks that wait behind others, from the first `cancel` until all of them have ended."""
    count = 3000

    def once() -> float:
        busy = [tasks.sleep.remote(LIMIT_SECONDS) for _ in range(CPUS)]
        waiting = [tasks.empty.remote() for _ in range(count)]
        ray.wait(waiting, timeout=1.0)  # all are sent

        def cancel() -> None:
            for ref in waiting:
                ray.cancel(ref)
            ray.wait(waiting, num_returns=count, timeout=LIMIT_SECONDS)

        rate = _rate(count, cancel)
        for ref in busy:
            ray.cancel(ref, force=True)
        ray.wait(busy, num_returns=CPUS, timeout=LIMIT_SECONDS)
        return rate

    return _median_of(3, once)


def spawn(ray: Any, tasks: Tasks) -> float:
    def once() -> None:
        assert ray.get([tasks.spawn.remote(100) for _ in range(4)]) == [100] * 4

    once()
    return _median_of(3, lambda: _rate(400, once))


def fib(ray: Any, tasks: Tasks) -> float:
    def once() -> None:
        assert ray.get(tasks.fib.remote(10)) == 55

    once()
    return _median_of(3, lambda: _rate(177, once))


def classes_200(ray: Any, tasks: Tasks) -> float:
    kinds = [tasks.empty.options(num_cpus=round(1 - number / 1000, 3)) for number in range(200)]

    def once() -> None:
        ray.get([kind.remote() for _ in range(10) for kind in kinds])

    once()
    return _median_of(3, lambda: _rate(2000, once))


def calls_beside(ray: Any, tasks: Tasks) -> float:
    """Calls a second, at the 95th percentile of their times, of another driver beside 3,000 tasks of 5 ms."""
    refs = [tasks.sleep.remote(0.005) for _ in range(3000)]
    ray.wait(refs, num_returns=50)
    child = [sys.executable, __file__, CALLER, ray.__name__, ADDRESS[0]]
    done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT_SECONDS)
    ray.get(refs)
    times = sorted(json.loads(done.stdout.splitlines()[-1]))
    return float(1 / times[int(0.95 * len(times))])


def call_beside(system: str, address: str) -> None:
    """Be the other driver: print how long each of some calls took."""
    ray = importlib.import_module(system)
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    tasks = Tasks(ray)
    times = []
    for _ in range(40):
        start = time.perf_counter()
        ray.get(tasks.empty.remote())
        times.append(time.perf_counter() - start)
        time.sleep(0.02)
    print(json.dumps(times))
    ray.shutdown()


def get_small(ray: Any, tasks: Tasks) -> float:
    ref = ray.put(1)
    return _rate(2000, lambda: [ray.get(ref) for _ in range(2000)])


def put_small(ray: Any, tasks: Tasks) -> float:
    return _rate(2000, lambda: [ray.put(1) for _ in range(2000)])


def driver_memory(ray: Any, tasks: Tasks) -> float:
    """Bytes by which the driver grows a task, at the worst of three moments, with 100,000 refs held."""
    count = 100_000
    ray.get([tasks.empty.remote() for _ in range(1000)])
    gc.collect()
    before = _pss([os.getpid()])
    refs = [tasks.empty.remote() for _ in range(count)]
    submitted = _pss([os.getpid()])
    ray.wait(refs, num_returns=count // 2, timeout=LIMIT_SECONDS)
    halfway = _pss([os.getpid()])
    ray.get(refs)
    return (max(submitted, halfway, _pss([os.getpid()])) - before) / count


def driver_memory_after(ray: Any, tasks: Tasks) -> float:
    """Bytes by which the driver has grown once 1,000,000 refs are gone again."""
    ray.get([tasks.empty.remote() for _ in range(1000)])
    gc.collect()
    before = _pss([os.getpid()])
    refs = [tasks.empty.remote() for _ in range(1_000_000)]
    ray.wait(refs, num_returns=len(refs), timeout=LIMIT_SECONDS)
    refs.clear()
    least = _pss([os.getpid()])
    for _ in range(20):  # both systems let go of them in the background
        time.sleep(1.0)
        least = min(least, _pss([os.getpid()]))
    return least - before


def actor_sync(ray: Any, tasks: Tasks) -> float:
    counter = tasks.Counter.remote()
    ray.get(counter.increment.remote())
    return _rate(500, lambda: [ray.get(counter.increment.remote()) for _ in range(500)])


def actor_async(ray: Any, tasks: Tasks) -> float:
    counter = tasks.Counter.remote()
    ray.get(counter.increment.remote())
    return _median_of(3, lambda: _rate(1000, lambda: ray.get([counter.increment.remote() for _ in range(1000)])))


def actor_durable(ray: Any, tasks: Tasks) -> float:
    durable = tasks.Counter.options(durable=True).remote()
    ray.get(durable.increment.remote())
    return _median_of(3, lambda: _rate(1000, lambda: ray.get([durable.increment.remote() for _ in range(1000)])))


def actor_1_4(ray: Any, tasks: Tasks) -> float:
    counters = [tasks.Counter.remote() for _ in range(4)]
    ray.get([counter.increment.remote() for counter in counters])
    refs = lambda: [counter.increment.remote() for _ in range(250) for counter in counters]  # noqa: E731
    return _median_of(3, lambda: _rate(1000, lambda: ray.get(refs())))


def actor_2_4(ray: Any, tasks: Tasks) -> float:
    counters = [tasks.Counter.remote() for _ in range(4)]
    callers = [tasks.Caller.remote(counters) for _ in range(2)]
    ray.get([caller.call.remote(1) for caller in callers])
    return _median_of(3, lambda: _rate(2000, lambda: ray.get([caller.call.remote(250) for caller in callers])))


def actor_asyncio(ray: Any, tasks: Tasks) -> float:
    counter = tasks.AsyncCounter.remote()
    ray.get(counter.increment.remote())
    return _median_of(3, lambda: _rate(1000, lambda: ray.get([counter.increment.remote() for _ in range(1000)])))


def actor_create(ray: Any, tasks: Tasks) -> float:
    def once() -> None:
        counters = [tasks.Counter.remote() for _ in range(4)]
        ray.get([counter.increment.remote() for counter in counters])
        for counter in counters:
            ray.kill(counter)

    once()
    return _median_of(3, lambda: _rate(4, once))


def _idle_actors(count: int) -> Callable[[Any, Tasks], float]:
    def run(ray: Any, tasks: Tasks) -> float:
        before = _pss(cluster_processes())
        counters = [tasks.Counter.options(num_cpus=0).remote() for _ in range(count)]
        ray.get([counter.increment.remote() for counter in counters])
        time.sleep(IDLE_SECONDS)
        grown = _pss(cluster_processes()) - before
        for counter in counters:
            ray.kill(counter)
        return grown / count

    return run


def group_one(ray: Any, tasks: Tasks) -> float:
    util = importlib.import_module(f"{ray.__name__}.util")

    def once() -> None:
        for _ in range(20):
            group = util.placement_group([{"CPU": 1}])
            ray.get(group.ready())
            util.remove_placement_group(group)

    once()
    return _median_of(3, lambda: _rate(20, once))


def groups_100(ray: Any, tasks: Tasks) -> float:
    util = importlib.import_module(f"{ray.__name__}.util")

    def once() -> float:
        made: list[Any] = []

        def make() -> None:
            made.extend(util.placement_group([{"CPU": 0.001}] * 4) for _ in range(100))
            ray.get([group.ready() for group in made])

        rate = _rate(100, make)
        for group in made:
            util.remove_placement_group(group)
        return rate

    return _median_of(3, once)


def group_inside_1000(ray: Any, tasks: Tasks) -> float:
    util = importlib.import_module(f"{ray.__name__}.util")
    strategies = importlib.import_module(f"{ray.__name__}.util.scheduling_strategies")
    group = util.placement_group([{"CPU": CPUS}])
    ray.get(group.ready())
    inside = tasks.empty.options(scheduling_strategy=strategies.PlacementGroupSchedulingStrategy(group))
    ray.get([inside.remote() for _ in range(100)])
    rate = _median_of(3, lambda: _rate(1000, lambda: ray.get([inside.remote() for _ in range(1000)])))
    util.remove_placement_group(group)
    return rate


def put_large(ray: Any, tasks: Tasks) -> float:
    import numpy

    array = numpy.ones(64 << 20, dtype=numpy.uint8)

    def once() -> None:
        ref = ray.put(array)
        del ref

    for _ in range(3):
        once()
        time.sleep(0.1)

    def timed() -> float:
        time.sleep(0.2)  # both systems free in the background
        return _rate(64, once)

    return _median_of(7, timed)


def set_large(ray: Any, tasks: Tasks) -> float:
    """Send the same bytes to the cluster's Redis with nothing but SET, in chunks as rabbitry's, over a plain socket."""
    import socket
    from urllib.parse import urlsplit

    import numpy

    from rabbitry import current

    address = urlsplit(current.client().endpoint.store_url)
    chunk = 1 << 20
    data = numpy.ones(64 << 20, dtype=numpy.uint8).data
    family = socket.AF_INET if address.hostname else socket.AF_UNIX
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.connect((address.hostname, address.port) if address.hostname else address.path)

        def once() -> None:
            for at in range(0, data.nbytes, chunk):
                sock.sendall(b"*3\r\n$3\r\nSET\r\n$12\r\nbenchmark:%02d\r\n$%d\r\n" % (at // chunk, chunk))
                sock.sendall(data[at : at + chunk])
                sock.sendall(b"\r\n")
                assert sock.recv(100) == b"+OK\r\n"

        def delete() -> None:
            sock.sendall(b"UNLINK " + b" ".join([b"benchmark:%02d" % at for at in range(64)]) + b"\r\n")
            sock.recv(100)

        def timed() -> float:
            delete()
            time.sleep(0.2)
            return _rate(64, once)

        once()
        rate = _median_of(7, timed)
        delete()
    return rate


def get_large(ray: Any, tasks: Tasks) -> float:
    import numpy

    ref = ray.put(numpy.ones(64 << 20, dtype=numpy.uint8))
    ray.get(ref)
    return _rate(500, lambda: [ray.get(ref) for _ in range(500)])


def task_large_argument(ray: Any, tasks: Tasks) -> float:
    import numpy

    ref = ray.put(numpy.ones(64 << 20, dtype=numpy.uint8))
    ray.get(tasks.size.remote(ref))
    return _median_of(3, lambda: _rate(50, lambda: [ray.get(tasks.size.remote(ref)) for _ in range(50)]))


def task_large_read(ray: Any, tasks: Tasks) -> float:
    """Seconds that a task takes to read all of an array that tasks have read before."""
    import numpy

    ref = ray.put(numpy.ones(64 << 20, dtype=numpy.uint8))
    for _ in range(CPUS + 1):
        ray.get(tasks.read.remote(ref))
    return _median_of(15, lambda: ray.get(tasks.read.remote(ref)))


def get_large_read(ray: Any, tasks: Tasks) -> float:
    """Seconds to get a result and to read all of it, each time another one."""

    def once() -> float:
        ref = tasks.make.remote(64 << 20)
        ray.wait([ref])
        time.sleep(0.05)
        start = time.perf_counter()
        ray.get(ref).view("uint64").max()
        return time.perf_counter() - start

    for _ in range(3):
        once()
    return _median_of(9, once)


def put_read_large(ray: Any, tasks: Tasks) -> float:
    import numpy

    array = numpy.ones(64 << 20, dtype=numpy.uint8)

    def once() -> None:
        ref = ray.put(array)
        ray.get(tasks.read.remote(ref))

    for _ in range(3):
        once()
    return _median_of(3, lambda: _rate(5 * 64, lambda: [once() for _ in range(5)]))


def task_large_results(ray: Any, tasks: Tasks) -> float:
    def once() -> None:
        assert len(ray.get([tasks.make.remote(8 << 20) for _ in range(20)])) == 20

    once()
    return _median_of(5, lambda: _rate(20 * 8, once))


def task_large_result(ray: Any, tasks: Tasks) -> float:
    ray.get(tasks.make.remote(8 << 20))
    return _median_of(3, lambda: _rate(20, lambda: [ray.get(tasks.make.remote(8 << 20)).nbytes for _ in range(20)]))


def task_2000_refs(ray: Any, tasks: Tasks) -> float:
    refs = [ray.put(at) for at in range(2000)]
    ray.get(tasks.take.remote(*refs))
    return _median_of(3, lambda: _rate(1, lambda: ray.get(tasks.take.remote(*refs))))


def get_2000_refs(ray: Any, tasks: Tasks) -> float:
    ref = ray.put([ray.put(at) for at in range(2000)])
    ray.get(ref)
    return _median_of(5, lambda: _rate(1, lambda: ray.get(ref)))


class Workload(NamedTuple):
    """A workload.

    Attributes:
        run: measures it once; None for what is measured by the way.
        group: which others it belongs to.
        unit: of its number.
        what: it does.
        ours_only: Ray cannot do it, or not on a machine of this size.
        quick: False if `--quick` leaves it out.
    """

    run: Callable[[Any, Tasks], float] | None
    group: str
    unit: str
    what: str
    ours_only: bool = False
    quick: bool = True


WORKLOADS: dict[str, Workload] = {
    "sync": Workload(sync, TASK, "tasks/s", "get(f.remote()), one after the other"),
    "async_1000": Workload(_async(1000), TASK, "tasks/s", "1,000 empty tasks, then get all"),
    "async_10000": Workload(_async(10_000), TASK, "tasks/s", "10,000 empty tasks, then get all"),
    "async_100000": Workload(_async(100_000), TASK, "tasks/s", "100,000 empty tasks, then get all", quick=False),
    "chain_100": Workload(chain, TASK, "tasks/s", "100 tasks, each with the ref of the one before"),
    "wait_1000": Workload(_wait(1000, 3), TASK, "refs/s", "wait for 1,000 refs one by one"),
    "wait_10000": Workload(_wait(10_000, 1), TASK, "refs/s", "wait for 10,000 refs one by one", quick=False),
    "cancel_3000": Workload(cancel_3000, TASK, "tasks/s", "cancel 3,000 tasks that wait", quick=False),
    "spawn": Workload(spawn, TASK, "tasks/s", "4 tasks that submit 100 tasks each and get them"),
    "fib_10": Workload(fib, TASK, "tasks/s", "fib(10), every call a task"),
    "classes_200": Workload(classes_200, TASK, "tasks/s", "200 resource classes x 10 empty tasks, interleaved"),
    "calls_beside": Workload(
        calls_beside, TASK, "calls/s", "get(f.remote()) beside 3,000 tasks of 5 ms of another driver, 95th percentile"
    ),
    "get_small": Workload(get_small, TASK, "gets/s", "get of one small object that was put here"),
    "put_small": Workload(put_small, TASK, "puts/s", "put of a small object"),
    "driver_memory": Workload(driver_memory, TASK, "bytes/task", "growth of the driver, 100,000 tasks", quick=False),
    "driver_memory_after": Workload(
        driver_memory_after, TASK, "bytes", "of the driver, 1,000,000 refs that are gone", ours_only=True, quick=False
    ),
    "actor_sync": Workload(actor_sync, ACTOR, "calls/s", "get(actor.method.remote()), one after the other"),
    "actor_async": Workload(actor_async, ACTOR, "calls/s", "1,000 calls of one actor, then get all"),
    "actor_durable": Workload(actor_durable, ACTOR, "calls/s", "the same, of a durable actor", ours_only=True),
    "actor_1_4": Workload(actor_1_4, ACTOR, "calls/s", "the driver calls 4 actors, 250 times each"),
    "actor_2_4": Workload(actor_2_4, ACTOR, "calls/s", "2 actors call 4 actors, 250 times each"),
    "actor_asyncio": Workload(actor_asyncio, ACTOR, "calls/s", "1,000 calls of an asyncio actor"),
    "actor_create": Workload(actor_create, ACTOR, "actors/s", "make 4 actors, call them, kill them"),
    "idle_actors_20": Workload(_idle_actors(20), ACTOR, "bytes/actor", "memory of 20 idle actors", quick=False),
    "idle_actors_1000": Workload(_idle_actors(1000), ACTOR, "bytes/actor", "of 1,000", ours_only=True, quick=False),
    "group_one": Workload(group_one, GROUP, "groups/s", "make a group of one bundle, wait for it, remove it"),
    "groups_100": Workload(groups_100, GROUP, "groups/s", "make 100 groups of 4 bundles, wait for all"),
    "group_inside_1000": Workload(group_inside_1000, GROUP, "tasks/s", "1,000 empty tasks in a group, then get all"),
    "put_64mib": Workload(put_large, OBJECT, "MiB/s", "put of a 64 MiB array"),
    "set_64mib": Workload(set_large, OBJECT, "MiB/s", "bare SET of as much in chunks of 1 MiB", ours_only=True),
    "get_64mib": Workload(get_large, OBJECT, "gets/s", "get of a 64 MiB array"),
    "task_64mib_argument": Workload(task_large_argument, OBJECT, "tasks/s", "a task with the ref of 64 MiB"),
    "task_64mib_read": Workload(task_large_read, OBJECT, "s", "reading 64 MiB that tasks have read before, in a task"),
    "get_64mib_read": Workload(get_large_read, OBJECT, "s", "get of a result of 64 MiB, and reading it"),
    "put_read_64mib": Workload(put_read_large, OBJECT, "MiB/s", "put 64 MiB, read it in a task, drop it"),
    "results_8mib": Workload(task_large_results, OBJECT, "MiB/s", "20 tasks that return 8 MiB each, and get all"),
    "task_8mib_result": Workload(task_large_result, OBJECT, "tasks/s", "a task that returns 8 MiB, and get"),
    "task_2000_refs": Workload(task_2000_refs, OBJECT, "tasks/s", "a task with 2,000 refs as arguments"),
    "get_2000_refs": Workload(get_2000_refs, OBJECT, "gets/s", "get of an object that holds 2,000 refs"),
}

MEASURED_BY_THE_WAY: dict[str, Workload] = {
    "import": Workload(None, SESSION, "s", "import, in a fresh process"),
    "init": Workload(None, SESSION, "s", "init(), once imported"),
    "idle_memory": Workload(None, SESSION, "bytes", "all processes of an idle cluster and its driver"),
    "idle_servers": Workload(None, SESSION, "bytes", "of which Redis and RabbitMQ"),
}
"""What every round measures, whatever else it does."""


def _pss(pids: Iterable[int]) -> int:
    """Bytes of memory of processes, what they share divided among them."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        except OSError:  # it ended meanwhile
            continue
    return total * 1024


def marked(mark: str | None) -> set[int]:
    """The processes that inherited a mark."""
    wanted = f"{MARKER}={mark}".encode()
    found = set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    found.add(int(entry))
        except OSError:  # another user's, or ended meanwhile
            continue
    return found


def cluster_processes() -> set[int]:
    """The processes of the cluster under test: those that carry our mark, the servers, and all descendants of both."""
    children: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(entry))
    ours = {os.getpid(), *map(int, os.environ.get(SERVERS, "").split())} | marked(os.environ.get(MARKER))
    return _with_descendants(ours, children)


def _with_descendants(pids: Iterable[int], children: Mapping[int, list[int]]) -> set[int]:
    found: set[int] = set()
    new = list(pids)
    while new:
        pid = new.pop()
        if pid not in found:
            found.add(pid)
            new += children.get(pid, ())
    return found


def _servers(pids: Iterable[int]) -> set[int]:
    """Those of the processes that are Redis or belong to RabbitMQ (Redis hides the environment it was given)."""
    given = set(map(int, os.environ.get(SERVERS, "").split()))
    found = set()
    for pid in pids:
        at = pid
        while at > 1:
            try:
                with open(f"/proc/{at}/stat") as file:
                    name, _, rest = file.read().partition("(")[2].rpartition(")")
            except OSError:
                break
            if at in given or name.startswith(("redis-server", "valkey-server")):
                found.add(pid)
                break
            at = int(rest.split()[1])
    return found


def _too_long(*_: object) -> None:
    raise TimeoutError(f"not done after {LIMIT_SECONDS} s")


def main() -> None:
    if sys.argv[1] == CALLER:
        call_beside(*sys.argv[2:])
        return
    system, names, *rest = sys.argv[1:]
    results: dict[str, float] = {}
    errors: dict[str, str] = {}
    start = time.perf_counter()
    if system == "ray":
        import ray  # type: ignore[import-not-found]
    else:
        import rabbitry as ray
    results["import"] = time.perf_counter() - start
    start = time.perf_counter()
    if system == "ray":
        context = ray.init(num_cpus=CPUS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    elif rest:
        context = ray.init(address=rest[0], log_to_driver=False)
    else:
        context = ray.init(num_cpus=CPUS, log_to_driver=False)
    ADDRESS[:] = rest[:1] or [context.address_info["address"]]
    results["init"] = time.perf_counter() - start
    tasks = Tasks(ray)
    ray.get([tasks.empty.remote() for _ in range(200)], timeout=LIMIT_SECONDS)
    time.sleep(IDLE_SECONDS)
    pids = cluster_processes()
    results["idle_memory"] = _pss(pids)
    results["idle_servers"] = _pss(_servers(pids))
    signal.signal(signal.SIGALRM, _too_long)
    for name in filter(None, names.split(",")):
        if WORKLOADS[name].ours_only and system == "ray":
            continue
        signal.alarm(LIMIT_SECONDS)
        try:
            results[name] = WORKLOADS[name].run(ray, tasks)  # type: ignore[misc]
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {error}"[-1000:]
        finally:
            signal.alarm(0)
        gc.collect()
        time.sleep(0.3)
    ray.shutdown()
    about = {"version": ray.__version__, "python": platform.python_version()}
    print("RESULT " + json.dumps({"results": results, "errors": errors, **about}))


if __name__ == "__main__":
    main()
