"""The locks of a client are taken in one order, whatever happens at the same time; see `rabbitry.core.lock_order`."""

from __future__ import annotations

import linecache
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rabbitry
import rabbitry_broker
from rabbitry import current
from rabbitry.core.lock_order import ORDER
from tests.end_to_end.waiting import wait_until

RANKS = {name: rank for rank, row in enumerate(ORDER) for name in row}
# Whole paths: a clone may lie in a directory of the same name, and its .venv in it.
PACKAGES = tuple(f"{Path(package.__file__).parent}{os.sep}" for package in (rabbitry, rabbitry_broker))
make_lock, make_rlock = threading.Lock, threading.RLock


class Watch:
    """Which locks were taken while others were held, by any thread of this process."""

    def __init__(self) -> None:
        self.made: set[str] = set()
        self.pairs: dict[tuple[str, str], str] = {}
        self._held = threading.local()

    def held(self) -> list[WatchedLock]:
        """Return what the thread holds, in the order of taking."""
        held: list[WatchedLock] = self._held.__dict__.setdefault("locks", [])
        return held

    def taken(self, lock: WatchedLock) -> None:
        """Note that the thread has taken a lock."""
        held = self.held()
        if lock not in held:
            for other in held:
                pair = (other.name, lock.name)
                if pair not in self.pairs:
                    self.pairs[pair] = "".join(traceback.format_stack(sys._getframe(2), 12))
        held.append(lock)

    def let_go(self, lock: WatchedLock) -> None:
        """Note that the thread has let go of a lock it took last of all, or before."""
        held = self.held()
        for at in range(len(held) - 1, -1, -1):
            if held[at] is lock:
                del held[at]
                return

    def make(self, real: Callable[[], Any]) -> Any:
        """Return a new lock: a watched one if a module of ours asks."""
        frame = sys._getframe(2)
        while frame.f_code.co_filename == threading.__file__ and frame.f_back is not None:
            frame = frame.f_back
        path = frame.f_code.co_filename
        if not path.startswith(PACKAGES):
            return real()
        found = re.search(r"self\.(\w+) = threading\.(?:R?Lock|Condition)\(", linecache.getline(path, frame.f_lineno))
        if found is None:
            return real()  # of something in the library: Event, Thread
        name = f"{Path(path).stem}.{found[1]}"
        self.made.add(name)
        return WatchedLock(self, name, real())


class WatchedLock:
    """A lock that tells what it is taken after."""

    def __init__(self, watch: Watch, name: str, lock: Any) -> None:
        self.watch = watch
        self.name = name
        self.lock = lock

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        taken: bool = self.lock.acquire(blocking, timeout)
        if taken:
            self.watch.taken(self)
        return taken

    def release(self) -> None:
        self.watch.let_go(self)
        self.lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def locked(self) -> bool:
        return bool(self.lock.locked())

    def _is_owned(self) -> bool:
        return bool(self.lock._is_owned())

    def _release_save(self) -> Any:
        held = self.watch.held()
        held[:] = [each for each in held if each is not self]
        return self.lock._release_save()

    def _acquire_restore(self, state: Any) -> None:
        self.lock._acquire_restore(state)
        self.watch.taken(self)


@pytest.fixture(scope="module", autouse=True)
def watch() -> Iterator[Watch]:
    """Have every lock watched that is made from now on: this module's sessions start after it."""
    watch = Watch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "Lock", lambda: watch.make(make_lock))
        patch.setattr(threading, "RLock", lambda: watch.make(make_rlock))
        yield watch


@rabbitry.remote
def double(x: Any) -> Any:
    return x * 2 if isinstance(x, int) else x


@rabbitry.remote(num_returns=2)
def two() -> tuple[int, int]:
    return 1, 2


@rabbitry.remote
def failing() -> None:
    raise ValueError("of the test")


@rabbitry.remote
def numbers(count: int) -> Iterator[int]:
    yield from range(count)


@rabbitry.remote
class Counter:
    def add(self, x: int = 1) -> int:
        return x

    def kept(self) -> Any:
        return [rabbitry.put(1)]


def actors_come_and_go(turn: int) -> None:
    counter = Counter.remote()
    assert rabbitry.get(counter.add.remote(turn)) == turn
    rabbitry.get(rabbitry.get(counter.kept.remote()))
    del counter
    holder = rabbitry.put([Counter.remote()])
    rabbitry.get(holder)


def puts(turn: int) -> None:
    for size in (10, 20_000, 300_000):
        ref = rabbitry.put(b"x" * size)
        rabbitry.get(double.remote([ref]))
        rabbitry.wait([ref, rabbitry.put(turn)], timeout=0)
        rabbitry.put([ref])


def tasks(turn: int) -> None:
    refs = [double.remote(at) for at in range(300)] + [double.remote(double.remote(turn))]
    rabbitry.get(refs)
    rabbitry.get(list(two.remote()))
    assert rabbitry.wait([failing.remote()])[0]
    rabbitry.get([double.options(name=f"named {turn}").remote(1), double.remote(rabbitry.put(2))])


def odds_and_ends(turn: int) -> None:
    assert sum(rabbitry.get(list(numbers.remote(5)))) == 10
    next(numbers.remote(50))
    slow = double.remote(two.remote()[0])
    rabbitry.cancel(slow)
    ref = rabbitry.put(turn)
    ref.hex()
    current.client().free([ref])
    assert double.remote(turn).future().result(20) == 2 * turn


def test_locks_are_taken_in_one_order(session: str, watch: Watch) -> None:
    client = current.client()
    errors: list[BaseException] = []
    deadline = time.monotonic() + 4

    def work(kind: Callable[[int], None]) -> None:
        try:
            for turn in range(12):
                kind(turn)
                if time.monotonic() > deadline:
                    return
        except BaseException as error:
            errors.append(error)

    kinds = (actors_come_and_go, puts, tasks, odds_and_ends)
    threads = [threading.Thread(target=work, args=(kind,), daemon=True) for kind in kinds * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not errors, errors
    # A full store, which has everybody let go in the middle of what they do.
    counter = Counter.remote()
    rabbitry.get(counter.add.remote())
    del counter
    client.make_room()
    wait_until(lambda: not client.actors.ending and not client.actors.owned)

    unknown = watch.made - set(RANKS)
    assert not unknown, f"locks without a place in rabbitry.core.lock_order.ORDER: {unknown}"
    assert {"outbox._flush_lock", "lifetimes.lock", "references.lock"} <= watch.made
    wrong = {
        f"{outer} -> {inner}": stack
        for (outer, inner), stack in list(watch.pairs.items())
        if RANKS[outer] > RANKS[inner]
        or (RANKS[outer] == RANKS[inner] and (outer == inner or RANKS[outer] == len(ORDER) - 1))
    }
    assert not wrong, "\n".join(f"{pair}:\n{stack}" for pair, stack in wrong.items())


def test_an_actor_that_lost_its_handle_while_values_are_sent(session: str) -> None:
    """`wait` flushes and collects, the service thread collects and sends: in opposite orders, this hung for good."""
    for _ in range(3):
        counter = Counter.remote()
        rabbitry.get(counter.add.remote())
        del counter
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            rabbitry.wait([rabbitry.put(1)], timeout=0)
    wait_until(lambda: not current.client().actors.owned)
