"""A first-in-first-out queue that any number of tasks, actors and drivers share; it lives in an actor."""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import Iterable
from typing import Any, NoReturn

from rabbitry.actor import kill
from rabbitry.arguments import MAX_COUNT, seconds, whole, wrong_type
from rabbitry.calls import cancel, get, wait
from rabbitry.decorator import remote
from rabbitry.object_ref import ObjectRef

MAX_WAITING = 100_000
"""Calls that may wait at a queue at once: should getters take up all of them, no putter would get through."""


class Empty(queue.Empty):
    """There is nothing (or not enough) in the queue."""


class Full(queue.Full):
    """There is no room in the queue."""


class Queue:
    """A queue like `queue.Queue`, for the whole cluster.

    It may be passed to tasks and actors, and pickled; all copies are the same queue. Its actor ends with the last copy,
    or by `shutdown`. What is put is pickled; a ref is replaced by its value, unless it is inside of something.

    Args:
        maxsize: items it takes; 0 or less for any number.
        actor_options: options of its actor, as in `Class.options(...)`; a `name`, for example.

    Raises:
        TypeError: `maxsize` is no int, or `actor_options` no dict.
        ValueError: an unknown option or a bad value.

    Attributes:
        maxsize: as given.
        actor: a handle on the actor; None after `shutdown`.
    """

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        self.maxsize = maxsize = whole("maxsize", maxsize, least=-MAX_COUNT, expected="an int")
        if actor_options is not None and not isinstance(actor_options, dict):
            raise wrong_type("actor_options", actor_options, "a dict of options, or None")
        options = {"max_concurrency": MAX_WAITING, **(actor_options or {})}
        self.actor: Any = remote(_QueueActor).options(**options).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        """Return the number of items."""
        return int(get(self.actor.qsize.remote()))

    def qsize(self) -> int:
        """Return the number of items."""
        return self.size()

    def empty(self) -> bool:
        """True if there are no items."""
        return bool(get(self.actor.empty.remote()))

    def full(self) -> bool:
        """True if there are `maxsize` items."""
        return bool(get(self.actor.full.remote()))

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item; wait for room if there is none.

        Args:
            item: anything that can be pickled.
            block: wait for room. If not, `timeout` means nothing.
            timeout: seconds to wait for room; None for ever.

        Raises:
            Full: there is no room (in time).
            ValueError: `timeout` is negative.
        """
        _result(self._put(item, block, timeout))

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the first item out and return it; wait for one if there is none.

        Args:
            block: wait for an item. If not, `timeout` means nothing.
            timeout: seconds to wait; None for ever.

        Raises:
            Empty: there is no item (in time).
            ValueError: `timeout` is negative.
        """
        return _result(self._get(block, timeout), self.actor)

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item, without blocking the event loop; see `put`."""
        await _result_async(self._put(item, block, timeout))

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the first item, without blocking the event loop; see `get`."""
        return await _result_async(self._get(block, timeout), self.actor)

    def _put(self, item: Any, block: bool, timeout: float | None) -> ObjectRef[Any]:
        actor = self.actor
        ref: ObjectRef[Any] = (
            actor.put.remote(item, seconds("timeout", timeout)) if block else actor.put_nowait.remote(item)
        )
        return ref

    def _get(self, block: bool, timeout: float | None) -> ObjectRef[Any]:
        actor = self.actor
        ref: ObjectRef[Any] = actor.get.remote(seconds("timeout", timeout)) if block else actor.get_nowait.remote()
        return ref

    def put_nowait(self, item: Any) -> None:
        """Add an item if there is room.

        Raises:
            Full: there is none.
        """
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """Take the first item if there is one.

        Raises:
            Empty: there is none.
        """
        return self.get(block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add all items in their order, or none.

        Raises:
            Full: there is not room for all.
            TypeError: `items` is no iterable.
        """
        if not isinstance(items, Iterable):
            raise wrong_type("items", items, "an iterable of items")
        _result(self.actor.put_nowait_batch.remote(list(items)))

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take exactly `num_items` items, or none.

        Raises:
            Empty: there are not so many.
            TypeError: `num_items` is no int.
            ValueError: it is negative.
        """
        num_items = whole("num_items", num_items, least=0, expected="an int of 0 or more")
        items: list[Any] = _result(self.actor.get_nowait_batch.remote(num_items))
        return items

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """End the queue's actor; what is in the queue is lost, who waits at it gets an ActorDiedError.

        Args:
            force: at once. Else the actor finishes what was asked of it before.
            grace_period_s: seconds that it has for that.
        """
        grace = seconds("grace_period_s", grace_period_s)
        if self.actor is None:
            return
        actor, self.actor = self.actor, None
        if not force:
            wait([actor.__ray_terminate__.remote()], timeout=grace)
        kill(actor)  # in any case: from now on the actor counts as dead, and its name is free


def _result(ref: ObjectRef[Any], taken_of: Any = None) -> Any:
    try:
        return get(ref)
    except (Empty, Full) as error:
        _raise(error)
    except KeyboardInterrupt:
        _give_up(ref, taken_of)
        raise


async def _result_async(ref: ObjectRef[Any], taken_of: Any = None) -> Any:
    try:
        return await ref
    except (Empty, Full) as error:
        _raise(error)
    except asyncio.CancelledError:
        _give_up(ref, taken_of)
        raise


def _give_up(ref: ObjectRef[Any], taken_of: Any) -> None:
    """Cancel a call, which would else stay at the queue and take an item that nobody gets.

    Args:
        ref: result of the call.
        taken_of: the actor whose item that is: it gets back what the call took before the cancelling reached it.
    """
    cancel(ref)
    if taken_of is not None:
        taken_of.put_back.remote(ref)  # fails with the call, if that was cancelled


def _raise(error: Empty | Full) -> NoReturn:
    """Raise the plain exception: it is an answer, and no failure of a task."""
    cause = getattr(error, "cause", error)
    raise type(cause)(*cause.args) from None


class _Items(asyncio.Queue[Any]):
    """A queue that also takes an item back: to its front, whatever its size."""

    def _init(self, maxsize: int) -> None:
        self.items: deque[Any] = deque()

    def _get(self) -> Any:
        return self.items.popleft()

    def _put(self, item: Any) -> None:
        self.items.append(item)

    def qsize(self) -> int:
        return len(self.items)

    def empty(self) -> bool:
        return not self.items

    def put_back(self, item: Any) -> None:
        if self.items:
            self.items.appendleft(item)
        else:
            self.put_nowait(item)  # somebody may wait for it


class _QueueActor:
    """What holds the items. Its methods may be called through `Queue.actor`."""

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._queue = _Items(maxsize)

    def qsize(self) -> int:
        return self._queue.qsize()

    def empty(self) -> bool:
        return self._queue.empty()

    def full(self) -> bool:
        return self._queue.full()

    async def put(self, item: Any, timeout: float | None = None) -> None:
        try:
            # First without waiting: a time-out of 0 would else be over before it looked.
            self._queue.put_nowait(item)
        except asyncio.QueueFull:
            try:
                await asyncio.wait_for(self._queue.put(item), timeout)
            except asyncio.TimeoutError:
                raise Full(f"no room in the queue within {timeout} s") from None

    async def get(self, timeout: float | None = None) -> Any:
        try:
            return self._queue.get_nowait()
        except asyncio.QueueEmpty:
            try:
                return await asyncio.wait_for(self._queue.get(), timeout)
            except asyncio.TimeoutError:
                raise Empty(f"no item in the queue within {timeout} s") from None

    def put_back(self, item: Any) -> None:
        self._queue.put_back(item)

    def put_nowait(self, item: Any) -> None:
        self.put_nowait_batch([item])

    def put_nowait_batch(self, items: list[Any]) -> None:
        if self._maxsize > 0 and len(items) + self._queue.qsize() > self._maxsize:
            raise Full(
                f"{len(items)} items do not fit into a queue of {self._maxsize} with {self._queue.qsize()} in it"
            )
        for item in items:
            self._queue.put_nowait(item)

    def get_nowait(self) -> Any:
        return self.get_nowait_batch(1)[0]

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        if num_items > self._queue.qsize():
            raise Empty(f"{num_items} items are not in a queue of {self._queue.qsize()}")
        return [self._queue.get_nowait() for _ in range(num_items)]
