"""Refs that come one by one: the results of streaming tasks.

Item number i of a stream is the object with index i of its task; the object with index 0 is written last and holds how
many there were. A producer that is retried writes the same ids again, so nobody sees an item twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from warren.exceptions import GetTimeoutError
from warren.object_ref import ObjectRef, made_here
from warren_broker.ids import object_id
from warren_broker.records import ERROR_TAG

if TYPE_CHECKING:
    from warren.client import Client


class ObjectRefGenerator:
    """Iterator, also asynchronous, over the refs of a streaming task's results.

    `next()` blocks until the next ref exists (its value may be an error, which `get` raises). Dropping the generator
    stops the producer and deletes what was not read.
    """

    def __init__(self, client: Client, task_id: bytes, *, backpressure: int = 0) -> None:
        self._client = client
        self._task_id = task_id
        self._backpressure = backpressure
        self._next = 1
        self._end_ref: ObjectRef[Any] = made_here(object_id(task_id, 0), client.references)
        self._item: ObjectRef[Any] | None = self._expect()
        self._count: int | None = None

    @property
    def _generator_ref(self) -> ObjectRef[Any]:
        return self._end_ref

    def _expect(self) -> ObjectRef[Any]:
        return made_here(object_id(self._task_id, self._next), self._client.references)

    def _end(self) -> int | None:
        """How many items there are, once that is known. An error as the end means: the item before it holds it."""
        if self._count is None:
            record = self._client.inbox.values.get(self._end_ref._id)
            if record is not None:
                if record[0] == ERROR_TAG:
                    self._count = self._next - 1 if not self._item_is_here() else self._next
                else:
                    self._count = self._client.load(self._end_ref._id, record)
        return self._count

    def _item_is_here(self) -> bool:
        return self._item is not None and self._item._id in self._client.inbox.values

    def _next_is_here(self) -> bool:
        return self._item_is_here() or self._end() is not None

    def _wanted(self) -> list[bytes]:
        wanted = [self._end_ref._id]
        if self._item is not None:
            wanted.append(self._item._id)
        return wanted

    def is_finished(self) -> bool:
        """True once every ref was handed out and the task has ended."""
        end = self._end()
        return end is not None and self._next > end

    def next_ready(self) -> bool:
        """True if `next()` would not block."""
        if not self._next_is_here():
            self._client.outbox.flush()
            self._client.inbox.drain()
        return self._next_is_here()

    def completed(self) -> ObjectRef[Any]:
        """Return a ref that is ready when the task has ended."""
        return self._end_ref

    def _advance(self, timeout: float | None) -> ObjectRef[Any]:
        client = self._client
        if not self._next_is_here():
            client.outbox.flush()
            hooks = client.block_hooks
            if hooks is not None:
                hooks[0]()
            try:
                if not client.inbox.wait(self._next_is_here, self._wanted, timeout):
                    raise GetTimeoutError(f"no item came from the generator within {timeout} s")
            finally:
                if hooks is not None:
                    hooks[1]()
        end = self._end()
        if end is not None and self._next > end:
            raise StopIteration
        item = self._item
        assert item is not None
        if not self._item_is_here() and end is not None:
            # The end was noticed before the item's own completion: the key has it.
            client.inbox.wait(self._item_is_here, self._wanted, None)
        self._next += 1
        self._item = self._expect() if end is None or self._next <= end else None
        if self._backpressure:
            client.store.call(b"INCR", self._consumed_key())
        return item

    def _consumed_key(self) -> bytes:
        return consumed_key(self._client.keys.prefix, self._client.store.tag(self._task_id[:12]), self._task_id)

    def __iter__(self) -> Iterator[ObjectRef[Any]]:
        return self

    def __next__(self) -> ObjectRef[Any]:
        return self._advance(None)

    def _next_sync(self, timeout_s: float | None = None) -> ObjectRef[Any]:
        """Return the next ref, or the nil ref after `timeout_s` seconds."""
        try:
            return self._advance(timeout_s)
        except GetTimeoutError:
            return ObjectRef.nil()

    def __aiter__(self) -> AsyncIterator[ObjectRef[Any]]:
        return self

    async def __anext__(self) -> ObjectRef[Any]:
        loop = asyncio.get_running_loop()

        def step() -> ObjectRef[Any] | None:
            try:
                return self._advance(None)
            except StopIteration:
                return None

        if self._next_is_here():
            item = step()
        else:
            item = await loop.run_in_executor(None, step)
        if item is None:
            raise StopAsyncIteration
        return item

    def send(self, value: Any) -> Any:
        """Not supported, as in Ray."""
        raise NotImplementedError("a generator of refs takes no values")

    def throw(self, value: Any) -> Any:
        """Not supported, as in Ray."""
        raise NotImplementedError("a generator of refs takes no exceptions")

    def close(self) -> None:
        """Not supported, as in Ray: drop the generator instead."""
        raise NotImplementedError("drop the generator to end it")

    async def asend(self, value: Any) -> Any:
        """Not supported, as in Ray."""
        raise NotImplementedError("a generator of refs takes no values")

    async def athrow(self, value: Any) -> Any:
        """Not supported, as in Ray."""
        raise NotImplementedError("a generator of refs takes no exceptions")

    async def aclose(self) -> None:
        """Not supported, as in Ray: drop the generator instead."""
        raise NotImplementedError("drop the generator to end it")

    def __reduce__(self) -> Any:
        raise TypeError("an ObjectRefGenerator cannot be pickled: pass the refs it yields")

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self._task_id.hex()})"

    def __del__(self) -> None:
        client = getattr(self, "_client", None)
        if client is not None and not client._closed:
            client.abandon_stream(self._task_id, self._next, ended=self._count is not None)


def consumed_key(prefix: bytes, tag: bytes, task_id: bytes) -> bytes:
    """The key that counts how many items of a stream were read (only with backpressure)."""
    return b"%sn%s:%s" % (prefix, tag, task_id[12:])


class DynamicObjectRefGenerator:
    """The value of a `num_returns="dynamic"` task: an iterable of refs, with a length."""

    def __init__(self, refs: list[ObjectRef[Any]]) -> None:
        self._refs = refs

    def __iter__(self) -> Iterator[ObjectRef[Any]]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)

    def __repr__(self) -> str:
        return f"DynamicObjectRefGenerator({len(self._refs)} refs)"
