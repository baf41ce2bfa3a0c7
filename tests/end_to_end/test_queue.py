"""`rabbitry.util.queue`, on both engines. That it does as Ray's is shown by `tests/oracle/snippets/queues.py`."""

from __future__ import annotations

import asyncio
import pickle
import queue as standard

import pytest

import rabbitry
from rabbitry.exceptions import ActorDiedError
from rabbitry.util.queue import Empty, Full, Queue

pytestmark = pytest.mark.usefixtures("session")
TIMEOUT = 30


@rabbitry.remote
def put_all(queue, items):
    for item in items:
        queue.put(item)


@rabbitry.remote
def take(queue, count):
    return [queue.get(timeout=TIMEOUT) for _ in range(count)]


@rabbitry.remote
class Holder:
    def __init__(self, queue):
        self.queue = queue

    async def put(self, item):
        await self.queue.put_async(item)

    async def get(self):
        return await self.queue.get_async()


def test_items_come_out_in_order():
    queue = Queue()
    for item in (1, "two", None, [3]):
        queue.put(item)
    assert len(queue) == queue.size() == queue.qsize() == 4
    assert [queue.get() for _ in range(4)] == [1, "two", None, [3]]
    assert queue.empty()
    assert not queue.full()


def test_an_empty_and_a_full_queue_say_so():
    queue = Queue(maxsize=1)
    with pytest.raises(Empty) as empty:
        queue.get_nowait()
    assert type(empty.value) is Empty
    assert isinstance(empty.value, standard.Empty)
    with pytest.raises(Empty):
        queue.get(timeout=0.01)
    queue.put(1, timeout=0)
    assert queue.full()
    for action in (
        queue.put_nowait,
        lambda item: queue.put(item, block=False),
        lambda item: queue.put(item, timeout=0),
    ):
        with pytest.raises(Full) as full:
            action(2)
        assert type(full.value) is Full
        assert isinstance(full.value, standard.Full)
    assert queue.get(timeout=0) == 1
    with pytest.raises(ValueError, match="negative"):
        queue.get(timeout=-1)


def test_a_batch_goes_in_and_out_whole():
    queue = Queue(maxsize=3)
    queue.put_nowait_batch(item for item in (1, 2))
    with pytest.raises(Full):
        queue.put_nowait_batch([3, 4])
    with pytest.raises(Empty):
        queue.get_nowait_batch(3)
    assert queue.get_nowait_batch(2) == [1, 2]
    for wrong, error in (("2", TypeError), (-1, ValueError)):
        with pytest.raises(error):
            queue.get_nowait_batch(wrong)


def test_tasks_and_actors_share_a_queue():
    queue = Queue(maxsize=2)
    putting = put_all.remote(queue, list(range(20)))
    assert rabbitry.get(take.remote(queue, 20), timeout=TIMEOUT) == list(range(20))
    rabbitry.get(putting, timeout=TIMEOUT)
    holder = Holder.remote(queue)
    got = holder.get.remote()
    rabbitry.get(holder.put.remote("x"), timeout=TIMEOUT)
    assert rabbitry.get(got, timeout=TIMEOUT) == "x"


def test_copies_are_the_same_queue():
    queue = Queue(maxsize=5)
    copy = pickle.loads(pickle.dumps(queue))
    copy.put(1)
    assert (queue.get(), copy.maxsize) == (1, 5)
    queue.put({"inside": queue})
    queue.get()["inside"].put(2)
    assert queue.get() == 2


def test_refs_inside_of_items_stay_refs():
    queue = Queue()
    ref = rabbitry.put("value")
    queue.put([ref])
    del ref
    assert rabbitry.get(queue.get()[0], timeout=TIMEOUT) == "value"


def test_a_getter_that_was_cancelled_takes_nothing():
    queue = Queue()

    async def give_up_then_put():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(queue.get_async(), 0.2)
        await queue.put_async("kept")
        return await queue.get_async(timeout=TIMEOUT)

    assert asyncio.run(give_up_then_put()) == "kept"


def test_what_a_getter_took_before_its_cancelling_reached_it_comes_back_in_order(monkeypatch):
    queue = Queue(maxsize=2)
    monkeypatch.setattr("rabbitry.util.queue.cancel", lambda ref: None)  # comes too late

    async def give_up():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(queue.get_async(), 0.2)

    asyncio.run(give_up())
    for item in ("first", "second"):
        queue.put(item, timeout=TIMEOUT)
    assert [queue.get(timeout=TIMEOUT) for _ in range(2)] == ["first", "second"]
    with pytest.raises(Empty):
        queue.get(timeout=0.05)


def test_async_variants_raise_the_same():
    queue = Queue(maxsize=1)

    async def main():
        with pytest.raises(Empty):
            await queue.get_async(block=False)
        await queue.put_async(1)
        with pytest.raises(Full):
            await queue.put_async(2, timeout=0.01)
        with pytest.raises(ValueError, match="negative"):
            await queue.put_async(2, timeout=-1)

    asyncio.run(main())


@pytest.mark.parametrize("force", [True, False])
def test_shutdown(force):
    queue = Queue(actor_options={"name": f"queue-{force}"})
    copy = pickle.loads(pickle.dumps(queue))
    assert rabbitry.get_actor(f"queue-{force}") == queue.actor
    queue.shutdown(force=force)
    queue.shutdown(force=force)
    assert queue.actor is None
    with pytest.raises(ValueError):
        rabbitry.get_actor(f"queue-{force}")
    with pytest.raises(ActorDiedError):
        copy.size()


def test_the_actor_ends_with_the_last_copy():
    queue = Queue(actor_options={"name": "short-lived"})
    queue.put(1)
    rabbitry.get(take.remote(queue, 1), timeout=TIMEOUT)
    del queue

    from tests.end_to_end.waiting import wait_until

    def is_gone():
        try:
            rabbitry.get_actor("short-lived")
        except ValueError:
            return True
        return False

    wait_until(is_gone)
