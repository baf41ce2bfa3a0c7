"""What fails keeps nothing alive: no error of ours sits in a variable of a frame that its traceback knows.

Such a cycle holds the frames of all callers, with the refs and handles in their variables, until somebody collects
cycles; an executor that has nothing to do never does. So cycles are not collected here.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import rabbitry
from rabbitry import current
from rabbitry.util import ActorPool
from tests.end_to_end.waiting import wait_until


@rabbitry.remote(max_retries=0)
def fail() -> None:
    raise ValueError("as it should")


@rabbitry.remote(max_retries=0)
def fail_midway() -> Iterator[int]:
    yield 1
    raise ValueError("as it should")


@rabbitry.remote
def same(value: Any) -> Any:
    return value


@rabbitry.remote(resources={"nowhere": 1})
def never() -> None:
    return None


@rabbitry.remote(num_cpus=0)
class Actor:
    def fail(self, value: Any = None) -> None:
        raise ValueError("as it should")


class Unpicklable:
    def __reduce__(self) -> Any:
        raise ValueError("as it should")


class Held:
    """Stands for what users have in their variables."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _timed_out() -> None:
    ref = never.remote()
    try:
        rabbitry.get(ref, timeout=0.01)
    finally:
        rabbitry.cancel(ref)


def _cancelled() -> None:
    ref = never.remote()
    rabbitry.cancel(ref)
    rabbitry.get(ref)


def _dead_actor() -> None:
    actor = Actor.remote()
    rabbitry.kill(actor)
    rabbitry.get(actor.fail.remote())


def _stream() -> None:
    for ref in fail_midway.options(num_returns="streaming").remote():
        rabbitry.get(ref)


def _pool() -> None:
    pool = ActorPool([Actor.remote()])
    pool.submit(lambda actor, value: actor.fail.remote(value), 1)
    pool.get_next()


FAILURES: dict[str, Callable[[], object]] = {
    "get": lambda: rabbitry.get(fail.remote()),
    "get of several": lambda: rabbitry.get([same.remote(1), fail.remote(), fail.remote()]),
    "get of an argument": lambda: rabbitry.get(same.remote(fail.remote())),
    "get, too late": _timed_out,
    "get of what was cancelled": _cancelled,
    "get of a call": lambda: rabbitry.get(Actor.remote().fail.remote()),
    "get of a dead actor's call": _dead_actor,
    "get of nonsense": lambda: rabbitry.get([1]),
    "future": lambda: fail.remote().future().result(),
    "stream": _stream,
    "put": lambda: rabbitry.put(Unpicklable()),
    "argument": lambda: same.remote(Unpicklable()),
    "arguments": lambda: same.remote(),
    "options": lambda: same.options(num_cpus=-1).remote(1),
    "get_actor": lambda: rabbitry.get_actor("nobody"),
    "pool": _pool,
}


@pytest.mark.parametrize("what", FAILURES)
def test_what_fails_keeps_nothing_of_its_caller_alive(session: str, no_collector: None, what: str) -> None:
    client = current.client()
    before = dict(client.references.counts)

    def use() -> weakref.ref[Held]:
        held = Held()
        with suppress(Exception):
            FAILURES[what]()
            raise AssertionError("it did not fail")
        return weakref.ref(held)

    held = use()
    assert held() is None
    wait_until(lambda: client.collect() or set(client.references.counts) <= set(before))


def break_connections() -> None:
    """Close all connections to the store, but for the one that asks."""
    current.client().store.open_connection("breaks").call(b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes")


def test_a_lost_connection_keeps_nothing_of_its_caller_alive(session: str, no_collector: None) -> None:
    store = current.client().store

    def use(action: Callable[[], object]) -> weakref.ref[Held]:
        held = Held()
        break_connections()
        action()
        return weakref.ref(held)

    actions: list[Callable[[], object]] = [
        lambda: store.call(b"PING"),
        lambda: store.fetch([b"\0" * 32]),
        lambda: rabbitry.get(same.remote(1)),
        lambda: rabbitry.get(rabbitry.put(bytes(100_000))),
    ]
    for number, action in enumerate(actions):
        assert use(action)() is None, f"action {number}"


def test_an_executor_gives_back_what_it_borrowed_after_it_lost_its_connections(session: str) -> None:
    """It has nothing more to do, so that nobody collects cycles there."""

    @rabbitry.remote(num_cpus=0)
    class Quiet:
        def wait_for(self, seconds: float) -> None:
            threading.Event().wait(seconds)

    @rabbitry.remote
    def use(actor: Any, at_begin: bool) -> int:
        ours = current.client().store
        if at_begin:
            ours.call(b"PING")
        other = ours.open_connection("breaks")
        other.call(b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes")
        rabbitry.get(actor.wait_for.remote(0.01))
        return 1

    client = current.client()
    for at_begin in (True, False):
        actor = Quiet.remote()
        assert rabbitry.get(use.remote(actor, at_begin)) == 1
        record = client.keys.actor(actor._rabbitry_id)
        del actor
        wait_until(
            lambda record=record: client.collect() or client.store.call(b"HGET", record, b"state") in (b"DEAD", None)  # type: ignore[misc]
        )
