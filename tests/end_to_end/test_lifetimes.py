"""Objects live as long as somebody holds a ref on them, and no longer: on both engines, whoever holds it."""

from __future__ import annotations

import copy
import gc
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

import rabbitry
from rabbitry import current
from rabbitry.exceptions import ObjectFreedError, ObjectLostError, OwnerDiedError, TaskCancelledError
from tests.end_to_end.inspection import assert_kept, objects_kept, wait_until

BIG = 200_000  # items of a float array: 1.6 MB


@pytest.fixture(autouse=True)
def nothing_is_left(session: str) -> Iterator[None]:
    """No test leaves an object behind."""
    before = objects_kept()
    yield
    gc.collect()
    wait_until(lambda: not objects_kept() - before, 30, objects_kept)


def big(value: float = 1.0) -> Any:
    return numpy.full(BIG, value)


@rabbitry.remote
def identity(value: Any) -> Any:
    return value


@rabbitry.remote
def nothing(*values: Any) -> None:
    return None


@rabbitry.remote
def put_some(count: int, large: bool) -> list[Any]:
    return [rabbitry.put(big(at) if large else at) for at in range(count)]


@rabbitry.remote
def make_big() -> Any:
    return big()


@rabbitry.remote
def nest() -> dict[str, Any]:
    return {"refs": [nothing.remote(1), rabbitry.put(2), rabbitry.put([rabbitry.put(3)])]}


@rabbitry.remote
def stream(count: int, pause: float = 0.0) -> Iterator[Any]:
    for at in range(count):
        time.sleep(pause)
        yield big(at)


@rabbitry.remote
class Keeper:
    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def keep(self, name: str, value: Any) -> None:
        self.kept[name] = value

    def give(self, name: str) -> Any:
        return self.kept[name]

    def drop(self, name: str) -> None:
        del self.kept[name]

    def read(self, name: str) -> Any:
        return rabbitry.get(self.kept[name][0])

    def pid(self) -> int:
        return os.getpid()


# -- puts and results ------------------------------------------------------------------------------------------------


def test_a_dropped_put_goes() -> None:
    refs = [rabbitry.put(1), rabbitry.put(big()), rabbitry.put(b"x" * 300_000)]
    assert rabbitry.get(refs[0]) == 1
    del refs


def test_an_object_lives_as_long_as_the_object_that_holds_it() -> None:
    outer = rabbitry.put([rabbitry.put(1), rabbitry.put(big())])
    inner = rabbitry.get(outer)
    assert rabbitry.get(inner[0]) == 1
    del outer
    assert rabbitry.get(inner[1]).sum() == BIG


def test_views_stay_valid_when_the_object_is_gone() -> None:
    ref = rabbitry.put(big(2))
    array = rabbitry.get(ref)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    del ref
    assert_kept()
    assert array.sum() == 2 * BIG


def test_fire_and_forget_leaves_nothing() -> None:
    for _ in range(50):
        nothing.remote(rabbitry.put(5), [rabbitry.put(6)], big())
        make_big.remote()
        nest.remote()


def test_arguments_are_held_until_the_task_has_run() -> None:
    @rabbitry.remote
    def later(first: Any, rest: list[Any]) -> Any:
        time.sleep(0.3)
        return first.sum() + rabbitry.get(rest[0]).sum()

    results = [later.remote(rabbitry.put(big()), [rabbitry.put(big(2))]) for _ in range(3)]
    gc.collect()
    assert rabbitry.get(results) == [3 * BIG] * 3


@pytest.mark.parametrize("large", [False, True])
def test_refs_that_a_task_returns_outlive_its_process(large: bool) -> None:
    refs = rabbitry.get(put_some.remote(5, large))
    values = rabbitry.get(refs)
    assert [float(value[0]) if large else value for value in values] == [0, 1, 2, 3, 4]
    del refs, values


def test_results_that_nobody_reads_take_what_they_hold_along() -> None:
    refs = [nest.remote() for _ in range(20)] + [put_some.remote(3, True) for _ in range(5)]
    rabbitry.wait(refs, num_returns=len(refs))
    del refs


def test_refs_nested_in_results_of_results_are_readable() -> None:
    refs = rabbitry.get(nest.remote())["refs"]
    assert rabbitry.get(refs[0]) is None
    assert rabbitry.get(refs[1]) == 2
    assert rabbitry.get(rabbitry.get(refs[2])[0]) == 3


def test_several_results_are_held_one_by_one() -> None:
    first, second = identity.options(num_returns=2).remote((big(), [rabbitry.put(1)]))
    (inner,) = rabbitry.get(second)
    del second
    assert rabbitry.get(inner) == 1
    del inner
    assert rabbitry.get(first).sum() == BIG


def test_a_task_of_a_task_is_readable_by_the_driver() -> None:
    @rabbitry.remote
    def slow() -> str:
        time.sleep(0.5)
        return "inner"

    @rabbitry.remote
    def starts_one() -> list[Any]:
        return [slow.remote()]

    (inner,) = rabbitry.get(starts_one.remote())
    assert rabbitry.get(inner, timeout=20) == "inner"


def test_large_arguments_go_with_their_task() -> None:
    assert rabbitry.get(identity.remote(b"y" * 500_000)) == b"y" * 500_000
    assert rabbitry.get(nothing.remote([rabbitry.put(n) for n in range(200)], "z" * 200_000)) is None


# -- actors ----------------------------------------------------------------------------------------------------------


def test_an_actor_keeps_what_its_state_refers_to() -> None:
    keeper = Keeper.remote()
    ref = rabbitry.put(big(3))
    rabbitry.get(keeper.keep.remote("a", [ref]))
    del ref
    gc.collect()
    time.sleep(1.0)  # long enough for the driver to let go
    assert rabbitry.get(keeper.read.remote("a")).sum() == 3 * BIG
    del keeper


def test_an_object_that_comes_back_to_its_owner_is_its_again() -> None:
    keeper = Keeper.remote()
    ref = rabbitry.put(big(4))
    rabbitry.get(keeper.keep.remote("a", [ref]))
    del ref
    gc.collect()
    time.sleep(1.0)
    (back,) = rabbitry.get(keeper.give.remote("a"))
    rabbitry.get(keeper.drop.remote("a"))
    time.sleep(1.0)
    assert rabbitry.get(back).sum() == 4 * BIG
    del keeper, back


def test_what_a_killed_actor_held_goes() -> None:
    keeper = Keeper.remote()
    rabbitry.get(keeper.keep.remote("a", [rabbitry.put(big())]))
    rabbitry.get(keeper.keep.remote("b", rabbitry.get(put_some.remote(3, True))))
    rabbitry.kill(keeper)
    del keeper


# -- streams ---------------------------------------------------------------------------------------------------------


def test_items_that_come_early_are_kept_for_the_reader() -> None:
    items = stream.remote(10)
    rabbitry.get(items.completed(), timeout=20)
    assert [rabbitry.get(item)[0] for item in items] == list(range(10))
    del items


def test_a_dropped_generator_stops_its_producer(tmp_path: Any) -> None:
    log = tmp_path / "made"
    log.touch()

    @rabbitry.remote
    def count() -> Iterator[int]:
        for at in range(10_000):
            with log.open("a") as file:
                file.write(".")
            time.sleep(0.01)
            yield at

    items = count.remote()
    assert rabbitry.get(next(items)) == 0
    del items
    gc.collect()

    def stands_still() -> bool:
        before = log.stat().st_size
        time.sleep(0.3)
        return before == log.stat().st_size

    wait_until(stands_still)
    assert log.stat().st_size < 5_000


def test_a_dropped_generator_of_an_actor_stops_its_producer() -> None:
    @rabbitry.remote
    class Producer:
        def __init__(self) -> None:
            self.made = 0

        def produce(self) -> Iterator[int]:
            for at in range(10_000):
                self.made = at
                time.sleep(0.005)
                yield at

        def count(self) -> int:
            return self.made

    producer = Producer.remote()
    items = producer.produce.remote()
    assert rabbitry.get(next(items)) == 0
    del items
    assert rabbitry.get(producer.count.remote(), timeout=30) < 5_000
    del producer


def test_backpressure_pauses_the_producer(tmp_path: Any) -> None:
    log = tmp_path / "made"
    log.write_text("")

    @rabbitry.remote(_generator_backpressure_num_objects=3)
    def produce() -> Iterator[Any]:
        for at in range(20):
            with log.open("a") as file:
                file.write(".")
            yield big(at)

    items = produce.remote()
    assert rabbitry.get(next(items))[0] == 0
    time.sleep(0.5)
    assert len(log.read_text()) <= 5
    assert [rabbitry.get(item)[0] for item in items] == list(range(1, 20))
    del items


def test_backpressure_and_a_dropped_generator() -> None:
    items = stream.options(_generator_backpressure_num_objects=2).remote(1000)
    next(items)
    del items
    gc.collect()
    # A mark that tells the producer stays for a minute.
    wait_until(lambda: set(objects_kept()) <= {"n"}, 20, objects_kept)
    client = current.client()
    for key in client.store.call(b"KEYS", client.keys.prefix + b"n:*"):
        client.store.call(b"DEL", key)


def test_a_retried_producer_does_not_repeat_items(tmp_path: Any) -> None:
    flag = tmp_path / "failed"

    @rabbitry.remote(max_retries=3, retry_exceptions=True)
    def produce() -> Iterator[int]:
        for at in range(6):
            if at == 3 and not flag.exists():
                flag.touch()
                raise RuntimeError("once")
            yield at

    assert [rabbitry.get(item) for item in produce.remote()] == [0, 1, 2, 3, 4, 5]


def test_a_producer_that_is_killed_and_retried_does_not_repeat_items(tmp_path: Any) -> None:
    flag = tmp_path / "killed"

    @rabbitry.remote(max_retries=3)
    def produce() -> Iterator[Any]:
        for at in range(6):
            if at == 3 and not flag.exists():
                flag.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield big(at)

    assert [rabbitry.get(item)[0] for item in produce.remote()] == [0, 1, 2, 3, 4, 5]


def test_a_producer_that_dies_for_good_says_so_in_one_item_more() -> None:
    @rabbitry.remote(max_retries=0)
    def produce() -> Iterator[int]:
        yield 1
        yield 2
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)

    items = list(produce.remote())
    assert rabbitry.get(items[:2]) == [1, 2]
    assert len(items) == 3
    with pytest.raises(rabbitry.exceptions.WorkerCrashedError):
        rabbitry.get(items[2])


def test_streams_can_be_read_asynchronously() -> None:
    import asyncio

    async def read() -> list[float]:
        return [(await item)[0] async for item in stream.remote(5)]

    assert asyncio.run(read()) == [0, 1, 2, 3, 4]


def test_more_streams_than_a_loop_has_threads_are_read_at_a_time() -> None:
    import asyncio

    @rabbitry.remote
    class Producer:
        def __init__(self) -> None:
            self.gate = asyncio.Event()

        async def produce(self, number: int) -> AsyncIterator[int]:
            if number < 50:
                await self.gate.wait()
            yield number

        async def open(self) -> None:
            self.gate.set()

    producer = Producer.options(max_concurrency=60).remote()

    async def read() -> list[int]:
        streams = [producer.produce.options(num_returns="streaming").remote(number) for number in range(51)]
        waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
        assert await (await waiting.pop()) == 50
        await producer.open.remote()
        return [await (await each) for each in waiting]

    assert asyncio.run(asyncio.wait_for(read(), 60)) == list(range(50))


def test_an_item_is_there_although_its_producer_then_blocks_its_loop(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    @rabbitry.remote
    class Producer:
        async def produce(self) -> AsyncIterator[int]:
            yield 1
            while not gate.exists():
                time.sleep(0.01)
            yield 2

    items = Producer.remote().produce.options(num_returns="streaming").remote()
    assert rabbitry.get(next(items)) == 1
    gate.touch()
    assert [rabbitry.get(each) for each in items] == [2]


def test_awaited_values_come_whatever_they_are_made_of() -> None:
    import asyncio

    async def read() -> None:
        none, small, large = identity.remote(None), identity.remote(1), identity.remote(big())
        holding = identity.remote([rabbitry.put(2)])
        for _ in range(2):  # the second time they are here
            assert await none is None
            assert await small == 1
            assert (await large).sum() == BIG
            assert await (await holding)[0] == 2
            with pytest.raises(ZeroDivisionError):
                await failed
            assert (await asyncio.gather(small, failed, return_exceptions=True))[0] == 1

    @rabbitry.remote
    def fail() -> None:
        raise ZeroDivisionError

    failed = fail.remote()
    asyncio.run(read())


@pytest.mark.filterwarnings("ignore:num_returns='dynamic':DeprecationWarning")
def test_dynamic_results_go_with_the_value_that_lists_them() -> None:
    ref = stream.options(num_returns="dynamic").remote(4)
    refs = list(rabbitry.get(ref))
    del ref
    assert [value[0] for value in rabbitry.get(refs)] == [0, 1, 2, 3]
    unread = stream.options(num_returns="dynamic").remote(4)
    rabbitry.get(unread)
    del refs, unread


# -- refs that travel in other ways ----------------------------------------------------------------------------------


def test_a_ref_made_from_hex_holds_the_object() -> None:
    @rabbitry.remote
    class Reader:
        def __init__(self, text: str) -> None:
            self.ref = rabbitry.ObjectRef.from_hex(text)

        def read(self) -> Any:
            return rabbitry.get(self.ref)

    ref = rabbitry.put(big(5))
    reader = Reader.remote(ref.hex())
    assert rabbitry.get(reader.read.remote()).sum() == 5 * BIG
    del ref
    gc.collect()
    time.sleep(1.0)
    assert rabbitry.get(reader.read.remote()).sum() == 5 * BIG
    del reader


def test_copies_of_refs_are_the_same_ref() -> None:
    ref = rabbitry.put(1)
    assert copy.copy(ref) is ref
    assert copy.deepcopy([ref])[0] is ref


def test_a_small_put_is_found_by_its_hex_at_once() -> None:
    @rabbitry.remote
    def read(text: str) -> Any:
        return rabbitry.get(rabbitry.ObjectRef.from_hex(text))

    ref = rabbitry.put("small")
    assert rabbitry.get(read.remote(ref.hex()), timeout=10) == "small"
    del ref


# -- free ------------------------------------------------------------------------------------------------------------


def test_what_was_freed_cannot_be_read() -> None:
    refs = [rabbitry.put(1), rabbitry.put(big()), make_big.remote(), rabbitry.put([rabbitry.put(big())])]
    rabbitry.wait(refs, num_returns=4)
    rabbitry.free(refs)
    for ref in refs:
        with pytest.raises(ObjectFreedError):
            rabbitry.get(ref)
    with pytest.raises(ObjectFreedError):
        rabbitry.get(identity.remote(refs[0]))
    # What a freed list held goes when this process has noticed that it has no handle on it either.
    wait_until(lambda: objects_kept()["file"] == objects_kept()["x"] == 0, 20, objects_kept)
    del refs, ref


# -- cancelled and failed tasks --------------------------------------------------------------------------------------


def test_cancelled_tasks_let_go_of_their_arguments() -> None:
    @rabbitry.remote
    def sleep(value: Any) -> None:
        time.sleep(60)

    refs = [sleep.remote(rabbitry.put(big())) for _ in range(4)]
    time.sleep(0.3)
    for ref in refs:
        rabbitry.cancel(ref)
    for ref in refs:
        with pytest.raises(TaskCancelledError):
            rabbitry.get(ref, timeout=20)
    del refs, ref


def test_tasks_that_fail_let_go_of_their_arguments_and_half_made_results() -> None:
    @rabbitry.remote(num_returns=2, max_retries=1, retry_exceptions=[ValueError])
    def fail(value: Any, refs: list[Any]) -> Any:
        class Unpicklable:
            def __reduce__(self) -> Any:
                raise ValueError("not this one")

        return [rabbitry.put(big()), big()], Unpicklable()

    for _ in range(3):
        first, second = fail.remote(rabbitry.put(big()), [rabbitry.put(1)])
        with pytest.raises(ValueError, match="not this one"):
            rabbitry.get(second)
        assert rabbitry.get(first)[1].sum() == BIG
        del first, second


def test_results_of_a_process_that_dies_are_undone() -> None:
    @rabbitry.remote(max_retries=2)
    def die(value: Any) -> Any:
        refs = [rabbitry.put(big()) for _ in range(3)] + [nothing.remote(value)]
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
        return refs

    for _ in range(3):
        with pytest.raises(rabbitry.exceptions.WorkerCrashedError):
            rabbitry.get(die.remote(rabbitry.put(big())))


# -- owners that die -------------------------------------------------------------------------------------------------


def test_objects_of_a_dead_owner_stay_with_who_holds_them() -> None:
    @rabbitry.remote
    class Maker:
        def make(self) -> list[Any]:
            return [rabbitry.put(big(7)), rabbitry.put("small"), rabbitry.put([rabbitry.put(big(8))])]

        def pid(self) -> int:
            return os.getpid()

    maker = Maker.remote()
    refs = rabbitry.get(maker.make.remote())
    os.kill(rabbitry.get(maker.pid.remote()), signal.SIGKILL)
    del maker
    time.sleep(2.5)
    assert rabbitry.get(refs[0]).sum() == 7 * BIG
    assert rabbitry.get(refs[1]) == "small"
    assert rabbitry.get(rabbitry.get(refs[2])[0]).sum() == 8 * BIG
    del refs


def test_a_result_whose_owner_died_says_so() -> None:
    @rabbitry.remote
    def sleep() -> None:
        time.sleep(6)

    @rabbitry.remote
    class Starter:
        def start(self) -> list[Any]:
            return [sleep.remote()]

        def pid(self) -> int:
            return os.getpid()

    starter = Starter.remote()
    (waited,) = rabbitry.get(starter.start.remote())
    os.kill(rabbitry.get(starter.pid.remote()), signal.SIGKILL)
    with pytest.raises(OwnerDiedError):
        rabbitry.get(waited, timeout=30)
    with pytest.raises(OwnerDiedError):
        rabbitry.get(identity.remote(waited), timeout=30)
    assert issubclass(OwnerDiedError, ObjectLostError)
    del waited, starter
