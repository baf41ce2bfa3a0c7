"""A soak of object lifetimes: tasks and puts of mixed shapes, executors killed at random, and nothing left at the end.

    make soak                                                # 50,000 steps on each engine
    python -m tests.end_to_end.soak --steps 5000 --engine embedded --seed 7

Prints the keys and files that the cluster keeps for objects as time goes by. It ends with status 1 if, when all is
done, anything is kept but what live refs hold.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy

import warren
from tests.end_to_end.inspection import assert_kept, objects_kept
from warren.exceptions import GetTimeoutError, WarrenError

LIVE = 300  # refs that are held at a time
KILL_EVERY = 250  # steps
REPORT_EVERY = 2_000
GET_SECONDS = 60.0
SETTLE_SECONDS = 90.0
SMALL_KEPT, LARGE_KEPT = 7, 3

Put = Callable[..., Any]


def array(value: float, items: int = 20_000) -> Any:
    """Return an array that is a large object: 160 kB."""
    return numpy.full(items, value)


@warren.remote(max_retries=3)
def give(value: Any, *others: Any) -> Any:
    """Return the first argument."""
    return value


@warren.remote(max_retries=3)
def make_large(value: float) -> Any:
    """Return a large object."""
    return array(value)


@warren.remote(max_retries=3)
def make_refs(count: int) -> list[Any]:
    """Return refs on objects that the executor owns, small ones and large ones, one within another."""
    return [warren.put(at) for at in range(count)] + [warren.put([warren.put(array(1))]), give.remote(2)]


@warren.remote(max_retries=3, num_returns=2)
def make_two(ref: list[Any]) -> tuple[Any, Any]:
    """Return the ref it was given, and a large object."""
    return ref, array(2)


@warren.remote(max_retries=3)
def read(refs: list[Any]) -> int:
    """Get what the refs of an argument name."""
    return len(warren.get(refs))


@warren.remote(max_retries=3)
def stream(count: int) -> Iterator[Any]:
    """Yield small and large objects."""
    for at in range(count):
        yield array(at) if at % 2 else at


@warren.remote(max_retries=0)
def fail(ref: list[Any], value: Any) -> None:
    """Raise, with refs and a put of its own in the frame."""
    mine = [warren.put(array(3)), ref]
    raise ValueError(len(mine))


@warren.remote(max_retries=3)
def process_id() -> int:
    """Return the executor to be killed."""
    return os.getpid()


@warren.remote
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
        return sum(len(warren.get(refs)) for refs in self.kept)


class Soak:
    """One run in the session that is open.

    Args:
        seed: of what is random.
        say: prints a line.
    """

    def __init__(self, seed: int, say: Callable[[str], None] = print) -> None:
        self._random = random.Random(seed)
        self._say = say
        self._live: list[Any] = []
        self._pids: deque[int] = deque(maxlen=50)
        self._keeper: Any = None
        self._errors = 0
        self.killed = 0

    def run(self, steps: int, kill_every: int = KILL_EVERY, report_every: int = REPORT_EVERY) -> None:
        """Run so many steps, then let go of all but a few refs, then of these.

        Raises:
            AssertionError: something is kept that no live ref holds, or a value is wrong.
        """
        began = time.monotonic()
        small = [warren.put(at) for at in range(SMALL_KEPT)]
        large = [warren.put(array(at)) for at in range(LARGE_KEPT)]
        alone = objects_kept()
        shapes = self._shapes()
        self._say("seconds   steps  refs  killed  errors  kept")
        for step in range(1, steps + 1):
            self._hold(self._random.choice(shapes)())
            if kill_every and step % kill_every == 0:
                self._kill()
            if step % report_every == 0:
                self._report(began, step)
        self._live.clear()
        self._keeper = None
        gc.collect()
        self._report(began, steps)
        assert_kept(SETTLE_SECONDS, o=SMALL_KEPT + LARGE_KEPT, **{k: n for k, n in alone.items() if k != "o"})
        assert warren.get(small) == list(range(SMALL_KEPT))
        assert [float(each[-1]) for each in warren.get(large)] == list(range(LARGE_KEPT))
        self._report(began, steps)
        del small, large
        gc.collect()
        assert_kept(SETTLE_SECONDS)
        self._report(began, steps)

    def _report(self, began: float, step: int) -> None:
        kept = " ".join(f"{kind}={count}" for kind, count in sorted(objects_kept().items())) or "nothing"
        elapsed = time.monotonic() - began
        self._say(f"{elapsed:7.1f} {step:7d} {len(self._live):5d} {self.killed:7d} {self._errors:7d}  {kept}")

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
            value = warren.get(ref, timeout=GET_SECONDS)
        except GetTimeoutError:
            raise
        except (WarrenError, ValueError):
            self._errors += 1  # of tasks that fail, and of owners and processes that were killed
            return
        if isinstance(value, int) and value > 1000:
            self._pids.append(value)

    def _kill(self) -> None:
        try:
            self._pids.append(warren.get(process_id.remote(), timeout=GET_SECONDS))
        except GetTimeoutError:
            raise
        except WarrenError:
            self._errors += 1
        with suppress(IndexError, ProcessLookupError):
            os.kill(self._pids.pop(), signal.SIGKILL)
            self.killed += 1

    def _any(self) -> Any:
        return self._random.choice(self._live) if self._live else warren.put(0)

    # -- shapes of steps ---------------------------------------------------------------------------------------------

    def _shapes(self) -> list[Callable[[], Any]]:
        return [
            lambda: warren.put(1),
            lambda: warren.put(array(4)),
            lambda: warren.put([warren.put(1), warren.put(array(5)), self._any()]),
            lambda: give.remote(6),
            lambda: give.remote(warren.put(7), [warren.put(8)]),
            lambda: give.remote([self._any()], array(9)),
            lambda: give.remote(give.remote(give.remote(10))),
            lambda: make_large.remote(11),
            lambda: give.remote(make_large.remote(12)),
            lambda: make_refs.remote(self._random.randrange(4)),
            lambda: make_two.remote([self._any()]),
            lambda: read.remote([warren.put(13), make_large.remote(14)]),
            lambda: fail.remote([self._any()], warren.put(array(15))),
            self._fire_and_forget,
            self._streamed,
            self._dynamic,
            self._cancelled,
            self._freed,
            self._sent_out,
            self._by_actor,
        ]

    def _fire_and_forget(self) -> None:
        give.remote(make_refs.remote(1), array(16))

    def _streamed(self) -> list[Any]:
        items = stream.remote(6)
        return [next(items) for _ in range(self._random.randrange(4))]  # the rest is dropped

    def _dynamic(self) -> Any:
        ref = stream.options(num_returns="dynamic").remote(3)
        if self._random.random() < 0.5:
            return ref
        with suppress(WarrenError):
            return list(warren.get(ref, timeout=GET_SECONDS))[1:]
        return None

    def _cancelled(self) -> Any:
        ref = give.remote(warren.put(array(17)))
        warren.cancel(ref)
        return ref

    def _freed(self) -> Any:
        ref = warren.put([warren.put(array(18))])
        warren.free(ref)
        return ref

    def _sent_out(self) -> Any:
        ref = warren.put(array(19))
        return warren.ObjectRef.from_hex(ref.hex())

    def _by_actor(self) -> Any:
        if self._keeper is None or self._random.random() < 0.05:
            self._keeper = Keeper.remote()
        if self._random.random() < 0.2:
            return self._keeper.read.remote()
        return self._keeper.keep.remote([warren.put(array(20)), give.remote(21)])


def on_embedded(steps: int, seed: int) -> None:
    """Run a soak on the embedded engine."""
    warren.init(num_cpus=2, log_to_driver=False)
    try:
        Soak(seed).run(steps)
    finally:
        warren.shutdown()


def on_rabbitmq(steps: int, seed: int) -> None:
    """Run a soak on servers of its own, with one node."""
    from tests.servers import RabbitMQServer, RedisServer
    from warren.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        redis, rabbitmq = RedisServer(Path(directory, "redis")), RabbitMQServer(Path(directory, "rabbitmq"))
        try:
            redis.start()
            rabbitmq.start()
            cluster = Cluster(engine="rabbitmq", broker_url=rabbitmq.add_vhost("soak"), store_url=redis.url)
            try:
                cluster.add_node(num_cpus=2)
                cluster.connect(log_to_driver=False)
                cluster.wait_for_nodes(20)
                Soak(seed).run(steps)
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
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--engine", choices=["embedded", "rabbitmq", "both"], default="both")
    chosen = parser.parse_args()
    for name, run in (("embedded", on_embedded), ("rabbitmq", on_rabbitmq)):
        if chosen.engine in (name, "both"):
            print(f"{name}, seed {chosen.seed}")
            try:
                run(chosen.steps, chosen.seed)
            except AssertionError as error:
                print(f"left behind: {error}", file=sys.stderr)
                return 1
    print("nothing is left but what live refs hold")
    return 0


if __name__ == "__main__":
    sys.exit(main())
