"""The workload: every kind of task, actor and object that rabbitry has, entered into a ledger as it is submitted."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import time
from typing import Any

import rabbitry
from rabbitry.exceptions import (
    ActorDiedError,
    ActorError,
    ActorUnavailableError,
    NodeDiedError,
    OwnerDiedError,
    WorkerCrashedError,
)
from tests.chaos.ledger import OUTCOME_TIMEOUT, Ledger, note

RETRIES = 50  # more than any scenario has faults
LOST = (WorkerCrashedError, NodeDiedError, OwnerDiedError)
ACTOR_LOST = (ActorDiedError, ActorUnavailableError, ActorError)
SMALL_BYTES = 1000
LARGE_BYTES = 400_000


@rabbitry.remote(max_retries=RETRIES)
def plain(path: str, key: str, value: int) -> int:
    """Return a number that depends on its argument."""
    note(path, key)
    return value * 3 + 1


@rabbitry.remote(max_retries=RETRIES)
def join(path: str, key: str, left: int, right: int) -> int:
    """Return a sum: a link of a chain."""
    note(path, key)
    return left + right


@rabbitry.remote(max_retries=RETRIES)
def nested(path: str, key: str, value: int) -> int:
    """Run two tasks of its own and wait for them."""
    note(path, key)
    return sum(rabbitry.get([plain.remote(path, f"{key}.{each}", value) for each in range(2)]))


@rabbitry.remote(max_retries=RETRIES, retry_exceptions=True)
def flaky(path: str, key: str, value: int) -> int:
    """Fail the first time."""
    note(path, key)
    with open(path) as file:
        begun = sum(line.startswith(f"{key} ") for line in file)
    if begun < 2:
        raise RuntimeError("the first time fails")
    return value


@rabbitry.remote(max_retries=RETRIES)
def long(path: str, key: str, seconds: float) -> float:
    """Take its time."""
    note(path, key)
    time.sleep(seconds)
    return seconds


@rabbitry.remote(max_retries=0)
def once(path: str, key: str, value: int) -> int:
    """Run once or not at all."""
    note(path, key)
    time.sleep(0.01)
    return -value


@rabbitry.remote(max_retries=RETRIES)
def digest(path: str, key: str, data: bytes) -> str:
    """Read an object."""
    note(path, key)
    return hashlib.sha256(data).hexdigest()


@rabbitry.remote(max_retries=RETRIES)
def produce(path: str, key: str, size: int, seed: int) -> bytes:
    """Make an object."""
    note(path, key)
    return random.Random(seed).randbytes(size)


@rabbitry.remote(num_cpus=0)
class Echo:
    """An actor whose answers do not depend on its state."""

    def __init__(self, path: str) -> None:
        self.path = path

    def say(self, key: str, value: int) -> int:
        """Return its argument."""
        note(self.path, key)
        return value

    def pid(self) -> int:
        """Return the process it lives in."""
        return os.getpid()


@rabbitry.remote(num_cpus=0, durable=True, max_restarts=-1, max_task_retries=-1)
class Counter:
    """A durable count."""

    def __init__(self) -> None:
        self.value = 0

    def increment(self) -> int:
        """Count one more, and return the count."""
        self.value += 1
        return self.value

    def pid(self) -> int:
        """Return the process it lives in."""
        return os.getpid()


class Workload:
    """Submits work at random and enters it into a ledger.

    Args:
        ledger: where submissions and effects go.
        random_source: decides what is submitted.
        long_seconds: how long a long task takes at most.
        actors: whether there are actors among it.
    """

    def __init__(
        self, ledger: Ledger, random_source: random.Random, *, long_seconds: float = 1.5, actors: bool = True
    ) -> None:
        self.ledger = ledger
        self._random = random_source
        self._long_seconds = long_seconds
        self._numbers = itertools.count()
        self._kinds = [
            (12, self._plain),
            (3, self._chain),
            (2, self._nested),
            (2, self._flaky),
            (1, self._long),
            (4, self._once),
            (2, self._small),
            (1, self._large),
        ]
        self.counter: Any = None
        self._counted = 0
        if actors:
            path = ledger.path
            self.mortal = Echo.options(max_restarts=0).remote(path)
            self.restarting = Echo.options(max_restarts=-1, max_task_retries=-1).remote(path)
            self.counter = Counter.remote()
            self._kinds += [(2, self._mortal), (4, self._restarting), (4, self._durable)]

    def submit(self, count: int) -> None:
        """Submit so many pieces of work."""
        weights = [weight for weight, _ in self._kinds]
        for _, kind in self._random.choices(self._kinds, weights, k=count):
            kind()

    def submit_for(self, seconds: float, *, rate: float = 60.0) -> None:
        """Submit work at a steady rate for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.submit(3)
            time.sleep(3 / rate)

    def finish(self, timeout: float = OUTCOME_TIMEOUT) -> None:
        """Check the ledger, and that the durable actor counted each call once. More may be submitted afterwards."""
        started = time.monotonic()
        outcomes = self.ledger.check(timeout)
        waited = time.monotonic() - started
        if self.counter is not None:
            self._counted += 1
            total = rabbitry.get(self.counter.increment.remote(), timeout=30)
            assert total == self._counted, f"the durable actor counted {total}, called {self._counted} times"
        print(f"{sum(outcomes.values())} outcomes, the last after {waited:.1f} s: {dict(outcomes)}")

    def _key(self, kind: str) -> tuple[str, str, int]:
        number = next(self._numbers)
        return self.ledger.path, f"{kind}-{number}", number

    def _plain(self) -> None:
        path, key, number = self._key("plain")
        self.ledger.add(key, plain.remote(path, key, number), number * 3 + 1)

    def _chain(self) -> None:
        path, key, number = self._key("chain")
        ref, value = plain.remote(path, f"{key}.0", number), number * 3 + 1
        for link in range(1, self._random.randint(2, 5)):
            ref, value = join.remote(path, f"{key}.{link}", ref, ref), 2 * value
        self.ledger.add(key, ref, value)

    def _nested(self) -> None:
        path, key, number = self._key("nested")
        self.ledger.add(key, nested.remote(path, key, number), 2 * (number * 3 + 1))

    def _flaky(self) -> None:
        path, key, number = self._key("flaky")
        self.ledger.add(key, flaky.remote(path, key, number), number)

    def _long(self) -> None:
        path, key, _ = self._key("long")
        seconds = round(self._random.uniform(0.1, self._long_seconds), 2)
        self.ledger.add(key, long.remote(path, key, seconds), seconds)

    def _once(self) -> None:
        path, key, number = self._key("once")
        self.ledger.add(key, once.remote(path, key, number), -number, errors=LOST, runs=1)

    def _small(self) -> None:
        self._object("small", SMALL_BYTES)

    def _large(self) -> None:
        self._object("large", LARGE_BYTES)

    def _object(self, kind: str, size: int) -> None:
        path, key, number = self._key(kind)
        data = random.Random(number).randbytes(size)
        expected = hashlib.sha256(data).hexdigest()
        self.ledger.add(key, digest.remote(path, key, rabbitry.put(data)), expected)
        made = produce.remote(path, f"{key}.made", size, number)
        self.ledger.add(f"{key}.made", made, data)
        self.ledger.add(f"{key}.read", digest.remote(path, f"{key}.read", made), expected)

    def _mortal(self) -> None:
        _, key, number = self._key("mortal")
        self.ledger.add(key, self.mortal.say.remote(key, number), number, errors=ACTOR_LOST, runs=1)

    def _restarting(self) -> None:
        _, key, number = self._key("restarting")
        self.ledger.add(key, self.restarting.say.remote(key, number), number)

    def _durable(self) -> None:
        _, key, _ = self._key("durable")
        self._counted += 1
        self.ledger.add(key, self.counter.increment.remote(), self._counted)
