"""What Ray's libraries use of refs, generators and handles beside the public names."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import rabbitry
from rabbitry.exceptions import RabbitrySystemError

pytestmark = pytest.mark.usefixtures("session")
TIMEOUT = 30


def said(stats: Any) -> list[Any]:
    return [type(stats).__name__, stats.object_creation_dur_s >= 0]


@rabbitry.remote(num_cpus=0)
def stream() -> Iterator[Any]:
    stats = yield 1
    yield said(stats)
    yield from [2]
    yield from (each for each in [3])
    yield said((yield 4))


@rabbitry.remote(num_cpus=0)
async def stream_async() -> AsyncIterator[Any]:
    stats = yield 1
    yield said(stats)


@rabbitry.remote(num_cpus=0)
class Streams:
    def plain(self) -> Iterator[Any]:
        stats = yield 1
        yield said(stats)


@rabbitry.remote(num_cpus=0)
class AsyncStreams:
    async def coroutine(self) -> AsyncIterator[Any]:
        stats = yield 1
        yield said(stats)

    def plain(self) -> Iterator[Any]:
        stats = yield 1
        yield said(stats)


def values(generator: Any) -> list[Any]:
    return [rabbitry.get(ref, timeout=TIMEOUT) for ref in generator]


def test_a_generator_is_told_how_long_its_item_took_to_store() -> None:
    told = ["StreamingGeneratorStats", True]
    assert values(stream.options(num_returns="streaming").remote()) == [1, told, 2, 3, 4, told]
    assert values(stream_async.options(num_returns="streaming").remote()) == [1, told]
    for method in (Streams.remote().plain, AsyncStreams.remote().coroutine, AsyncStreams.remote().plain):
        assert values(method.options(num_returns="streaming").remote()) == [1, told]


def test_a_stream_is_exhausted_when_all_refs_were_handed_out() -> None:
    generator = stream.options(num_returns="streaming").remote()
    assert not generator._stream_exhausted()
    for _ in range(6):
        next(generator)
    rabbitry.get(generator.completed(), timeout=TIMEOUT)
    assert generator._stream_exhausted()


@rabbitry.remote(num_cpus=0)
def make(fails: bool = False) -> int:
    if fails:
        raise ValueError("no")
    return 1


@rabbitry.remote(num_cpus=0, max_concurrency=2)
class Gate:
    def __init__(self) -> None:
        self.opened = threading.Event()

    def open(self) -> None:
        self.opened.set()

    def passed(self) -> int:
        self.opened.wait(TIMEOUT)
        return 1


def test_a_callback_is_told_that_an_object_is_there_and_not_what_it_is() -> None:
    told: queue.Queue[Any] = queue.Queue()
    for ref in (make.remote(), make.remote(fails=True), rabbitry.put(1)):
        ref._on_ready(told.put)
        assert told.get(timeout=TIMEOUT) is None
    gate = Gate.remote()
    waiting = gate.passed.remote()
    end = waiting._on_ready(told.put)
    end()
    assert isinstance(told.get(timeout=TIMEOUT), RabbitrySystemError)
    rabbitry.get(gate.open.remote(), timeout=TIMEOUT)
    assert rabbitry.get(waiting, timeout=TIMEOUT) == 1
    end()
    assert told.empty(), "once"


def test_a_callback_gets_what_an_object_is_or_why_it_is_not_there() -> None:
    told: queue.Queue[Any] = queue.Queue()
    for ref in (make.remote(), rabbitry.put(1)):
        ref._on_completed(told.put)
        assert told.get(timeout=TIMEOUT) == 1
    make.remote(fails=True)._on_completed(told.put)
    assert isinstance(told.get(timeout=TIMEOUT), ValueError)


def test_a_coroutine_waits_for_an_object_without_reading_it() -> None:
    async def wait(ref: Any) -> Any:
        return await asyncio.wait_for(ref._ready(), TIMEOUT)

    for ref in (make.remote(), make.remote(fails=True)):
        assert asyncio.run(wait(ref)) == ref


def test_a_handle_knows_the_state_of_its_actor() -> None:
    gate = Gate.remote()
    rabbitry.get(gate.open.remote(), timeout=TIMEOUT)
    assert gate._get_local_state() == 2
    rabbitry.kill(gate)
    assert gate._get_local_state() == 4


def _reversed(send: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a call: its positional arguments the other way round, its keywords back to the caller."""
    return lambda args, kwargs: (send(args[::-1], {"last": "sent"}), kwargs)


def test_what_decorates_the_calls_of_a_function_goes_around_them_where_they_are_written() -> None:
    def function(*args: Any, last: str = "") -> tuple[Any, ...]:
        return (*args, last)

    function.__ray_invocation_decorator__ = _reversed  # type: ignore[attr-defined]
    remote = rabbitry.remote(function)

    ref, kwargs = remote.remote(1, 2, last="written")
    other, _ = remote.options(name="other").remote(3, 4)

    assert kwargs == {"last": "written"}
    assert rabbitry.get([ref, other]) == [(2, 1, "sent"), (4, 3, "sent")]


def test_what_decorates_the_calls_of_a_method_travels_with_the_handle() -> None:
    class Decorated:
        def method(self, *args: Any, last: str = "") -> tuple[Any, ...]:
            return (*args, last)

        method.__ray_invocation_decorator__ = _reversed  # type: ignore[attr-defined]

    @rabbitry.remote
    def by_a_task(actor: Any) -> Any:
        ref, kwargs = actor.method.remote(3, 4, last="written")
        return rabbitry.get(ref), kwargs

    actor: Any = rabbitry.remote(Decorated).remote()
    ref, kwargs = actor.method.remote(1, 2, last="written")

    assert kwargs == {"last": "written"}
    assert rabbitry.get(ref) == (2, 1, "sent")
    assert rabbitry.get(actor.method.options(name="other").remote(5, 6)[0]) == (6, 5, "sent")
    assert rabbitry.get(by_a_task.remote(actor)) == ((4, 3, "sent"), {"last": "written"})
