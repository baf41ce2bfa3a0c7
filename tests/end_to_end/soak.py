"""A soak: work of mixed shapes, executors killed at random, drivers that come and go, and nothing left at the end.

    make soak                                                # 50,000 steps on each engine
    python -m tests.end_to_end.soak --steps 5000 --engine embedded --seed 7
    python -m tests.end_to_end.soak --minutes 60             # an hour on each engine

Prints the keys and files that the cluster keeps for objects as time goes by. It ends with status 1 if, when all is
done, anything is kept for objects but what live refs hold, or there is more of anything (keys, queues, files,
collections of the driver: see `growth`) than after the first part of the soak. One that took long enough also fails if
the memory of a process that lived all the time has grown since that part (see `memory`).
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy

import rabbitry
from rabbitry.exceptions import GetTimeoutError, RabbitryError
from rabbitry.util import placement_group, remove_placement_group
from rabbitry.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from tests.end_to_end.growth import QueueNames, bytes_that_end, grown, kept
from tests.end_to_end.inspection import assert_kept, objects_kept
from tests.end_to_end.memory import Memory

LIVE = 300  # refs that are held at a time
KILL_EVERY = 250  # steps
ENVIRONMENTS_EVERY = 20
WARM_UP = 0.4  # of the whole: then all has been used that is there once
MEMORY_SECONDS = 10.0
DRIVERS_EVERY = 4_000  # steps
REPORT_EVERY = 2_000
GET_SECONDS = 60.0
SETTLE_SECONDS = 90.0
SMALL_KEPT, LARGE_KEPT = 7, 3

Put = Callable[..., Any]


def array(value: float, items: int = 20_000) -> Any:
    """Return an array that is a large object: 160 kB."""
    return numpy.full(items, value)


@rabbitry.remote(max_retries=3)
def give(value: Any, *others: Any) -> Any:
    """Return the first argument."""
    return value


@rabbitry.remote(max_retries=3)
def make_large(value: float) -> Any:
    """Return a large object."""
    return array(value)


@rabbitry.remote(max_retries=3)
def make_refs(count: int) -> list[Any]:
    """Return refs on objects that the executor owns, small ones and large ones, one within another."""
    return [rabbitry.put(at) for at in range(count)] + [rabbitry.put([rabbitry.put(array(1))]), give.remote(2)]


@rabbitry.remote(max_retries=3, num_returns=2)
def make_two(ref: list[Any]) -> tuple[Any, Any]:
    """Return the ref it was given, and a large object."""
    return ref, array(2)


@rabbitry.remote(max_retries=3)
def read(refs: list[Any]) -> int:
    """Get what the refs of an argument name."""
    return len(rabbitry.get(refs))


@rabbitry.remote(max_retries=3)
def stream(count: int) -> Iterator[Any]:
    """Yield small and large objects."""
    for at in range(count):
        yield array(at) if at % 2 else at


@rabbitry.remote(max_retries=0)
def fail(ref: list[Any], value: Any) -> None:
    """Raise, with refs and a put of its own in the frame."""
    mine = [rabbitry.put(array(3)), ref]
    raise ValueError(len(mine))


@rabbitry.remote(max_retries=3)
def process_id() -> int:
    """Return the executor to be killed."""
    return os.getpid()


DRIVER = """
import os, signal, sys, rabbitry
rabbitry.init(address=sys.argv[1], log_to_driver=False)
@rabbitry.remote
class Counter:
    def add(self): return 1
value = os.urandom(5000)
counter = Counter.remote()
large = rabbitry.put(bytes(200_000))
refs = [rabbitry.remote(lambda: value).options(num_cpus=0).remote(), counter.add.remote(), large]
rabbitry.get(refs)
rabbitry.cancel(rabbitry.remote(lambda: value).remote())
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@rabbitry.remote
class Keeper:
    """An actor that keeps refs for a while."""

    def __init__(self) -> None:
        self.kept: deque[Any] = deque(maxlen=5)

    def keep(self, refs: list[Any]) -> int:
        """Keep refs; forget the oldest."""
        self.kept.append(refs)
        return len(self.kept)

    def read(self) -> int:
        """Get what is kept."""
        return sum(len(rabbitry.get(refs)) for refs in self.kept)


class Length:
    """How long a soak is: so many steps, or so many seconds if these are given."""

    def __init__(self, steps: int, seconds: float = 0.0) -> None:
        self._steps = steps
        self._seconds = seconds

    def part(self, step: int, seconds: float) -> float:
        """Return how much of it is done after so many steps and seconds: 1 or more at the end."""
        return seconds / self._seconds if self._seconds else step / self._steps


class Soak:
    """One run in the session that is open.

    Args:
        seed: of what is random.
        say: prints a line.
        address: of the cluster, for other drivers; "" for one that only this process can join.
        queues: returns the names of the queues of RabbitMQ.
        detached: make detached actors too; what created one is deleted a minute after its end.
    """

    def __init__(
        self,
        seed: int,
        say: Callable[[str], None] = print,
        *,
        address: str = "",
        queues: QueueNames = tuple,
        detached: bool = True,
    ) -> None:
        self._detached = detached
        self._address = address
        self._queues = queues
        self._drivers: list[subprocess.Popen[bytes]] = []
        self._made = 0
        self._random = random.Random(seed)
        self._say = say
        self._live: list[Any] = []
        self._pids: deque[int] = deque(maxlen=50)
        self._keeper: Any = None
        self._errors: Counter[str] = Counter()  # by class
        self._grouped = False
        self._environments: list[dict[str, Any]] = []
        self._directory = tempfile.TemporaryDirectory(prefix="soak-")
        self.killed = 0

    def run(self, length: Length, kill_every: int = KILL_EVERY, report_every: int = REPORT_EVERY) -> None:
        """Run for so long, then let go of all but a few refs, then of these.

        Raises:
            AssertionError: something is kept that no live ref holds, memory has grown, or a value is wrong.
        """
        began = time.monotonic()
        small = [rabbitry.put(at) for at in range(SMALL_KEPT)]
        large = [rabbitry.put(array(at)) for at in range(LARGE_KEPT)]
        alone = objects_kept()
        alone.pop("o", None)
        shapes = self._shapes()
        before: Counter[str] | None = None
        ending = 0
        memory = Memory()
        next_look = 0.0
        self._say("seconds   steps  refs  killed  errors  kept")
        step, part = 0, 0.0
        while part < 1:
            step += 1
            # Each shape once at first: what is there once for each kind of work is there from then on.
            shape = shapes[step - 1] if step <= len(shapes) else self._random.choice(shapes)
            self._hold(shape())
            if kill_every and step % kill_every == 0:
                self._kill()
            if step % report_every == 0:
                self._report(began, step)
            if step % DRIVERS_EVERY == 1:
                self._start_drivers()
            part = length.part(step, time.monotonic() - began)
            if before is None and part >= WARM_UP:
                self._settle(began, step, alone)
                before = kept(self._queues)
                ending = bytes_that_end()
                self._start_drivers()
            if before is not None and time.monotonic() >= next_look:
                memory.look()
                next_look = time.monotonic() + MEMORY_SECONDS
        self._say("errors: " + ", ".join(f"{count} {name}" for name, count in self._errors.most_common()))
        self._settle(began, step, alone)
        assert before is not None
        self._assert_not_grown(before)
        for name, early, late in memory.lasting():
            self._say(f"{early / 2**20:7.1f} MiB, then {late / 2**20:7.1f} MiB  {name}")
        ending = bytes_that_end() - ending
        self._say(f"{ending / 2**20:7.1f} MiB more of keys that end by themselves")
        assert not (more := memory.grown(redis=max(0, ending))), f"memory has grown, in bytes: {more}"
        assert rabbitry.get(small) == list(range(SMALL_KEPT))
        assert [float(each[-1]) for each in rabbitry.get(large)] == list(range(LARGE_KEPT))
        self._report(began, step)
        del small, large
        gc.collect()
        assert_kept(SETTLE_SECONDS)
        self._report(began, step)

    def _settle(self, began: float, step: int, alone: dict[str, int]) -> None:
        """Let go of all that steps have made, and wait until nothing else is kept."""
        self._let_go()
        self._report(began, step)
        assert_kept(SETTLE_SECONDS, o=SMALL_KEPT + LARGE_KEPT, **alone)

    def _let_go(self) -> None:
        """Drop all that steps have made, and wait for other drivers."""
        self._live.clear()
        self._keeper = None
        gc.collect()
        for driver in self._drivers:
            driver.wait(GET_SECONDS)
            assert driver.returncode in (0, -signal.SIGKILL), "a driver failed"
        self._drivers.clear()

    def _start_drivers(self) -> None:
        """Have two drivers come and go, one of them without a goodbye."""
        if self._address:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            for end in ("says goodbye", "killed"):
                command = [sys.executable, "-c", DRIVER, self._address, end]
                self._drivers.append(subprocess.Popen(command, env=environment))

    def _assert_not_grown(self, before: Counter[str]) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while more := grown(before, kept(self._queues)):
            gc.collect()
            assert time.monotonic() < deadline, f"there is more than before: {more}"
            time.sleep(0.2)

    def _report(self, began: float, step: int) -> None:
        kept = " ".join(f"{kind}={count}" for kind, count in sorted(objects_kept().items())) or "nothing"
        elapsed = time.monotonic() - began
        self._say(
            f"{elapsed:7.1f} {step:7d} {len(self._live):5d} {self.killed:7d} {sum(self._errors.values()):7d}  {kept}"
        )

    def _hold(self, new: Any) -> None:
        """Keep what a step made for a while; get some of what is kept, drop some."""
        live, choose = self._live, self._random
        live += new if isinstance(new, list) else [] if new is None else [new]
        while len(live) > LIVE:
            # The newer half is dropped too: refs of tasks that have not run yet.
            at = choose.randrange(len(live))
            ref = live[at]
            live[at] = live[-1]
            live.pop()
            if at < LIVE // 4:
                self._get(ref)

    def _get(self, ref: Any) -> None:
        try:
            value = rabbitry.get(ref, timeout=GET_SECONDS)
        except GetTimeoutError:
            raise
        except (RabbitryError, ValueError) as error:  # of tasks that fail, and of owners and processes that were killed
            self._count(error)
            return
        if isinstance(value, int) and value > 1000:
            self._pids.append(value)

    def _count(self, error: Exception) -> None:
        self._errors[type(error).__name__] += 1

    def _kill(self) -> None:
        try:
            self._pids.append(rabbitry.get(process_id.remote(), timeout=GET_SECONDS))
        except GetTimeoutError:
            raise
        except RabbitryError as error:
            self._count(error)
        with suppress(IndexError, ProcessLookupError):
            os.kill(self._pids.pop(), signal.SIGKILL)
            self.killed += 1

    def _any(self) -> Any:
        return self._random.choice(self._live) if self._live else rabbitry.put(0)

    # -- shapes of steps ---------------------------------------------------------------------------------------------

    def _shapes(self) -> list[Callable[[], Any]]:
        return [
            lambda: rabbitry.put(1),
            lambda: rabbitry.put(array(4)),
            lambda: rabbitry.put([rabbitry.put(1), rabbitry.put(array(5)), self._any()]),
            lambda: give.remote(6),
            lambda: give.remote(rabbitry.put(7), [rabbitry.put(8)]),
            lambda: give.remote([self._any()], array(9)),
            lambda: give.remote(give.remote(give.remote(10))),
            lambda: make_large.remote(11),
            lambda: give.remote(make_large.remote(12)),
            lambda: make_refs.remote(self._random.randrange(4)),
            lambda: make_two.remote([self._any()]),
            lambda: read.remote([rabbitry.put(13), make_large.remote(14)]),
            lambda: fail.remote([self._any()], rabbitry.put(array(15))),
            self._fire_and_forget,
            self._streamed,
            self._dynamic,
            self._cancelled,
            self._freed,
            self._sent_out,
            self._by_actor,
            self._new_function,
            self._new_options,
            self._new_actor,
            self._in_a_group,
            self._in_an_environment,
            *([self._detached_actor] if self._detached else []),
        ]

    def _new_function(self) -> Any:
        number = self._made = self._made + 1
        return rabbitry.remote(lambda: number).remote()

    def _new_options(self) -> Any:
        number = self._made = self._made + 1
        return give.options(name=f"task {number}", priority=number % 3, max_retries=number).remote(number)

    def _new_actor(self) -> Any:
        number = self._made = self._made + 1

        class Actor:
            def get(self) -> int:
                return number

        # The handle goes at once: the actor ends after this call.
        return rabbitry.remote(num_cpus=0)(Actor).options(name=f"actor {number}").remote().get.remote()

    def _in_an_environment(self) -> Any:
        """Run a task in one of two environments; seldom, since their processes are others' too."""
        number = self._made = self._made + 1
        if self._environments and number % ENVIRONMENTS_EVERY:
            return None
        if not self._environments:
            path = os.path.join(self._directory.name, "work.zip")
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("work/data", "text")
            self._environments = [{"env_vars": {"SOAK": "1"}}, {"working_dir": f"file://{path}"}]
        return [give.options(num_cpus=0, runtime_env=each).remote(number) for each in self._environments]

    def _in_a_group(self) -> Any:
        """Now and then: the queue of a removed group is looked after for a while."""
        if self._grouped and self._random.random() < 0.7:
            return give.remote(22)
        self._grouped = True
        group = placement_group([{"CPU": 0.01}])
        inside = give.options(num_cpus=0.01, scheduling_strategy=PlacementGroupSchedulingStrategy(group))
        try:
            rabbitry.get(group.ready(), timeout=GET_SECONDS)
            rabbitry.get(inside.remote(23, [rabbitry.put(array(24))]), timeout=GET_SECONDS)
        except GetTimeoutError:
            raise
        except RabbitryError as error:
            self._count(error)
        remove_placement_group(group)
        return inside.remote(25)  # which fails

    def _detached_actor(self) -> Any:
        number = self._made = self._made + 1
        actor = Keeper.options(name=f"detached {number}", lifetime="detached", num_cpus=0).remote()
        with suppress(RabbitryError):
            rabbitry.get(actor.keep.remote([]), timeout=GET_SECONDS)
        rabbitry.kill(actor)

    def _fire_and_forget(self) -> None:
        give.remote(make_refs.remote(1), array(16))

    def _streamed(self) -> list[Any]:
        wanted = self._random.randrange(4)
        items = list(itertools.islice(stream.remote(6), wanted))  # the rest is dropped
        if len(items) < wanted:
            self._assert_failed(items[-1:])
        return items

    def _assert_failed(self, refs: list[Any]) -> None:
        """A stream has ended early: only a failure, which is its last item, ends it so."""
        try:
            values = rabbitry.get(refs, timeout=GET_SECONDS)
        except GetTimeoutError:
            raise
        except RabbitryError as error:
            self._count(error)
        else:
            raise AssertionError(f"a stream of 6 items ended early, after {values}")

    def _dynamic(self) -> Any:
        ref = stream.options(num_returns="dynamic").remote(3)
        if self._random.random() < 0.5:
            return ref
        with suppress(RabbitryError):
            return list(rabbitry.get(ref, timeout=GET_SECONDS))[1:]
        return None

    def _cancelled(self) -> Any:
        ref = give.remote(rabbitry.put(array(17)))
        rabbitry.cancel(ref)
        return ref

    def _freed(self) -> Any:
        ref = rabbitry.put([rabbitry.put(array(18))])
        rabbitry.free(ref)
        return ref

    def _sent_out(self) -> Any:
        ref = rabbitry.put(array(19))
        return rabbitry.ObjectRef.from_hex(ref.hex())

    def _by_actor(self) -> Any:
        if self._keeper is None or self._random.random() < 0.05:
            self._keeper = Keeper.remote()
        if self._random.random() < 0.2:
            return self._keeper.read.remote()
        return self._keeper.keep.remote([rabbitry.put(array(20)), give.remote(21)])


def on_embedded(length: Length, seed: int) -> None:
    """Run a soak on the embedded engine."""
    rabbitry.init(num_cpus=2, log_to_driver=False)
    try:
        Soak(seed).run(length)
    finally:
        rabbitry.shutdown()


def on_rabbitmq(length: Length, seed: int) -> None:
    """Run a soak on servers of its own, with one node."""
    from rabbitry.cluster_utils import Cluster
    from tests.servers import RabbitMQServer, RedisServer

    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        redis, rabbitmq = RedisServer(Path(directory, "redis")), RabbitMQServer(Path(directory, "rabbitmq"))
        try:
            redis.start()
            rabbitmq.start()
            cluster = Cluster(engine="rabbitmq", broker_url=rabbitmq.add_vhost("soak"), store_url=redis.url)
            try:
                cluster.add_node(num_cpus=2)
                cluster.connect(log_to_driver=False)
                cluster.wait_for_nodes(60)
                Soak(seed, address=cluster.address, queues=lambda: rabbitmq.queues("soak")).run(length)
            finally:
                cluster.shutdown()
        finally:
            rabbitmq.kill()
            redis.kill()


def main() -> int:
    """Run soaks as the command line says."""
    import warnings

    warnings.simplefilter("ignore", DeprecationWarning)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--minutes", type=float, default=0.0, help="on each engine; counts instead of --steps")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--engine", choices=["embedded", "rabbitmq", "both"], default="both")
    chosen = parser.parse_args()
    length = Length(chosen.steps, chosen.minutes * 60)
    # Hundreds of its tasks fail, as they shall.
    os.environ.setdefault("RABBITRY_IGNORE_UNHANDLED_ERRORS", "1")
    for name, run in (("embedded", on_embedded), ("rabbitmq", on_rabbitmq)):
        if chosen.engine in (name, "both"):
            print(f"{name}, seed {chosen.seed}")
            try:
                run(length, chosen.seed)
            except AssertionError as error:
                print(f"left behind: {error}", file=sys.stderr)
                return 1
    print("nothing is left but what live refs hold")
    return 0


if __name__ == "__main__":
    sys.exit(main())
