"""The workloads. Each takes the module `ray` (Ray's own, or warren) and returns a number; see `WORKLOADS`.

Run as a program in the interpreter under test: `python workloads.py SYSTEM NAME,NAME,... [ADDRESS]` prints one JSON
line. It imports nothing but the system under test, so that Ray's interpreter needs no more than Ray.
"""

import gc
import json
import os
import statistics
import sys
import time

CPUS = 2


def _rate(count, action):
    start = time.perf_counter()
    action()
    return count / (time.perf_counter() - start)


def _best_of(times, action):
    return statistics.median(action() for _ in range(times))


class Tasks:
    """The remote functions and actors, made once a process."""

    def __init__(self, ray):
        @ray.remote
        def empty():
            pass

        @ray.remote
        def increment(x):
            return x + 1

        @ray.remote
        def spawn(count):
            return len(ray.get([empty.remote() for _ in range(count)]))

        @ray.remote
        def fib(n):
            return n if n < 2 else sum(ray.get([fib.remote(n - 1), fib.remote(n - 2)]))

        @ray.remote
        def take(*values):
            return len(values)

        @ray.remote
        def size(array):
            return array.nbytes

        @ray.remote
        def make(nbytes):
            import numpy

            return numpy.zeros(nbytes, dtype=numpy.uint8)

        @ray.remote
        class Counter:
            def __init__(self):
                self.value = 0

            def increment(self):
                self.value += 1
                return self.value

        @ray.remote
        class AsyncCounter:
            async def increment(self):
                return 1

        @ray.remote
        class Caller:
            def __init__(self, targets):
                self.targets = targets

            def call(self, count):
                refs = [target.increment.remote() for target in self.targets for _ in range(count)]
                return len(ray.get(refs))

        self.empty, self.increment, self.spawn, self.fib = empty, increment, spawn, fib
        self.take, self.size, self.make = take, size, make
        self.Counter, self.AsyncCounter, self.Caller = Counter, AsyncCounter, Caller


def sync(ray, tasks):
    return _rate(500, lambda: [ray.get(tasks.empty.remote()) for _ in range(500)])


def _async(count):
    def run(ray, tasks):
        return _rate(count, lambda: ray.get([tasks.empty.remote() for _ in range(count)]))

    return run


def chain(ray, tasks):
    def once():
        ref = 0
        for _ in range(100):
            ref = tasks.increment.remote(ref)
        assert ray.get(ref) == 100

    return _best_of(5, lambda: _rate(100, once))


def wait(ray, tasks):
    def once():
        waiting = [tasks.empty.remote() for _ in range(1000)]
        while waiting:
            _, waiting = ray.wait(waiting)

    return _best_of(3, lambda: _rate(1000, once))


def spawn(ray, tasks):
    def once():
        assert ray.get([tasks.spawn.remote(100) for _ in range(4)]) == [100] * 4

    once()
    return _best_of(3, lambda: _rate(400, once))


def fib(ray, tasks):
    def once():
        assert ray.get(tasks.fib.remote(10)) == 55

    once()
    return _best_of(3, lambda: _rate(177, once))


def get_small(ray, tasks):
    ref = ray.put(1)
    return _rate(2000, lambda: [ray.get(ref) for _ in range(2000)])


def put_small(ray, tasks):
    return _rate(2000, lambda: [ray.put(1) for _ in range(2000)])


def driver_bytes(ray, tasks):
    """Driver memory (bytes a task) with 100,000 results outstanding."""
    ray.get([tasks.empty.remote() for _ in range(1000)])
    gc.collect()
    before = _pss([os.getpid()])
    refs = [tasks.empty.remote() for _ in range(100_000)]
    ray.get(refs[-1])
    gc.collect()
    return (_pss([os.getpid()]) - before) / len(refs)


def actor_sync(ray, tasks):
    counter = tasks.Counter.remote()
    ray.get(counter.increment.remote())
    return _rate(500, lambda: [ray.get(counter.increment.remote()) for _ in range(500)])


def actor_async(ray, tasks):
    counter = tasks.Counter.remote()
    ray.get(counter.increment.remote())
    return _best_of(3, lambda: _rate(1000, lambda: ray.get([counter.increment.remote() for _ in range(1000)])))


def actor_durable(ray, tasks):
    durable = tasks.Counter.options(durable=True).remote()
    ray.get(durable.increment.remote())
    return _best_of(3, lambda: _rate(1000, lambda: ray.get([durable.increment.remote() for _ in range(1000)])))


def actor_1_4(ray, tasks):
    counters = [tasks.Counter.remote() for _ in range(4)]
    ray.get([counter.increment.remote() for counter in counters])
    refs = lambda: [counter.increment.remote() for _ in range(250) for counter in counters]  # noqa: E731
    return _best_of(3, lambda: _rate(1000, lambda: ray.get(refs())))


def actor_2_4(ray, tasks):
    counters = [tasks.Counter.remote() for _ in range(4)]
    callers = [tasks.Caller.remote(counters) for _ in range(2)]
    ray.get([caller.call.remote(1) for caller in callers])
    return _best_of(3, lambda: _rate(2000, lambda: ray.get([caller.call.remote(250) for caller in callers])))


def actor_asyncio(ray, tasks):
    counter = tasks.AsyncCounter.remote()
    ray.get(counter.increment.remote())
    return _best_of(3, lambda: _rate(1000, lambda: ray.get([counter.increment.remote() for _ in range(1000)])))


def actor_create(ray, tasks):
    def once():
        counters = [tasks.Counter.remote() for _ in range(4)]
        ray.get([counter.increment.remote() for counter in counters])
        for counter in counters:
            ray.kill(counter)

    once()
    return _best_of(3, lambda: _rate(4, once))


def put_large(ray, tasks):
    """MiB/s of put of a 64 MiB array."""
    import numpy

    array = numpy.ones(64 << 20, dtype=numpy.uint8)

    def once():
        ref = ray.put(array)
        del ref

    for _ in range(3):
        once()
        time.sleep(0.1)

    def timed():
        time.sleep(0.2)  # both systems free in the background
        return _rate(64, once)

    return _best_of(7, timed)


def get_large(ray, tasks):
    import numpy

    ref = ray.put(numpy.ones(64 << 20, dtype=numpy.uint8))
    ray.get(ref)
    return _rate(500, lambda: [ray.get(ref) for _ in range(500)])


def task_large_argument(ray, tasks):
    import numpy

    ref = ray.put(numpy.ones(64 << 20, dtype=numpy.uint8))
    ray.get(tasks.size.remote(ref))
    return _best_of(3, lambda: _rate(50, lambda: [ray.get(tasks.size.remote(ref)) for _ in range(50)]))


def task_large_result(ray, tasks):
    ray.get(tasks.make.remote(8 << 20))
    return _best_of(3, lambda: _rate(20, lambda: [ray.get(tasks.make.remote(8 << 20)).nbytes for _ in range(20)]))


def task_2000_refs(ray, tasks):
    refs = [ray.put(at) for at in range(2000)]
    ray.get(tasks.take.remote(*refs))
    return _best_of(3, lambda: _rate(1, lambda: ray.get(tasks.take.remote(*refs))))


def get_2000_refs(ray, tasks):
    ref = ray.put([ray.put(at) for at in range(2000)])
    ray.get(ref)
    return _best_of(5, lambda: _rate(1, lambda: ray.get(ref)))


# name -> (function, unit, True if larger is better)
WORKLOADS = {
    "sync": (sync, "tasks/s"),
    "async_1000": (_async(1000), "tasks/s"),
    "async_10000": (_async(10_000), "tasks/s"),
    "async_100000": (_async(100_000), "tasks/s"),
    "chain_100": (chain, "tasks/s"),
    "wait_1000": (wait, "refs/s"),
    "spawn": (spawn, "tasks/s"),
    "fib_10": (fib, "tasks/s"),
    "get_small": (get_small, "gets/s"),
    "put_small": (put_small, "puts/s"),
    "actor_sync": (actor_sync, "calls/s"),
    "actor_async": (actor_async, "calls/s"),
    "actor_durable": (actor_durable, "calls/s"),
    "actor_1_4": (actor_1_4, "calls/s"),
    "actor_2_4": (actor_2_4, "calls/s"),
    "actor_asyncio": (actor_asyncio, "calls/s"),
    "actor_create": (actor_create, "actors/s"),
    "put_64mib": (put_large, "MiB/s"),
    "get_64mib": (get_large, "gets/s"),
    "task_64mib_argument": (task_large_argument, "tasks/s"),
    "task_8mib_result": (task_large_result, "tasks/s"),
    "task_2000_refs": (task_2000_refs, "tasks/s"),
    "get_2000_refs": (get_2000_refs, "gets/s"),
    "driver_memory": (driver_bytes, "bytes/task"),
}


def _pss(pids):
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
    return total * 1024


def _family(root):
    """All descendants of a process, and what they detached: everything in our session group that carries our mark."""
    mark = f"WARREN_BENCHMARK={os.environ.get('WARREN_BENCHMARK')}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    if mark in file.read().split(b"\0"):
                        found.append(int(entry))
            except OSError:
                continue
    return found


def main():
    system, names, *rest = sys.argv[1:]
    start = time.perf_counter()
    if system == "ray":
        import ray
    else:
        import warren as ray
    results = {"import": time.perf_counter() - start}
    start = time.perf_counter()
    if system == "ray":
        ray.init(num_cpus=CPUS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    elif rest:
        ray.init(address=rest[0], log_to_driver=False)
    else:
        ray.init(num_cpus=CPUS, log_to_driver=False)
    results["init"] = time.perf_counter() - start
    time.sleep(1.0)
    results["idle_memory"] = _pss(_family(os.getpid()))
    tasks = Tasks(ray)
    ray.get([tasks.empty.remote() for _ in range(200)])
    for name in names.split(","):
        if name not in WORKLOADS or (system == "ray" and name == "actor_durable"):
            continue
        try:
            results[name] = WORKLOADS[name][0](ray, tasks)
        except Exception as error:
            print(f"{system} {name}: {type(error).__name__}: {error}", file=sys.stderr)
            results[name] = None
        gc.collect()
        time.sleep(0.3)
    ray.shutdown()
    print("RESULT " + json.dumps(results))


if __name__ == "__main__":
    main()
