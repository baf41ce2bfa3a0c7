"""Refs that come one by one: the results of streaming tasks.

Item number i of a stream is the object with index i of its task; the object with index 0 is written last and holds how
many there were. A producer that is retried writes the same ids again, so nobody sees an item twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from warren.exceptions import GetTimeoutError
from warren.object_ref import ObjectRef, made_here
from warren_broker.ids import object_id
from warren_broker.messages import Completion
from warren_broker.records import ERROR_TAG, count_in

if TYPE_CHECKING:
    from warren.client import Client
    from warren.streams import Stream


class ObjectRefGenerator:
    """Iterator, also asynchronous, over the refs of a streaming task's results.

    `next()` blocks until the next ref exists (its value may be an error, which `get` raises). Dropping the generator
    stops the producer and deletes what was not read.
    """

    def __init__(self, client: Client, task_id: bytes, stream: Stream, *, backpressure: int = 0) -> None:
        self._client = client
        self._task_id = task_id
        self._stream = stream
        self._backpressure = stream.counted = backpressure > 0
        self._end_ref: ObjectRef[Any] = made_here(object_id(task_id, 0), client.references)
        self._count: int | None = None  # of all items, once it is known

    @property
    def _generator_ref(self) -> ObjectRef[Any]:
        return self._end_ref

    def _item_id(self) -> bytes:
        return object_id(self._task_id, self._stream.next)

    def _item_is_here(self) -> bool:
        return self._item_id() in self._client.inbox.values

    def _next_is_here(self) -> bool:
        return self._item_is_here() or self._end_ref._id in self._client.inbox.values

    def _wanted(self) -> list[bytes]:
        return [self._end_ref._id, self._item_id()]

    def _is_past_end(self) -> bool:
        """True if every item was handed out. Only to be asked when the end record is here and the next item is not."""
        if self._count is None:
            client, end = self._client, self._end_ref._id
            record = client.inbox.values[end]
            if record[0] == ERROR_TAG:
                # It broke down where it could not say so in an item of its own: one more item tells of it.
                self._count = self._stream.next
                key = self._item_id()
                client.store.put_records([(key, record)])
                client.inbox.accept(Completion(b"", 0, 0.0, [key, record]))
            else:
                self._count = count_in(record)
        return self._stream.next > self._count

    def is_finished(self) -> bool:
        """True once every ref was handed out and the task has ended."""
        return not self._item_is_here() and self._end_ref._id in self._client.inbox.values and self._is_past_end()

    def next_ready(self) -> bool:
        """True if `next()` would not block."""
        if not self._next_is_here():
            self._client.outbox.flush()
            self._client.inbox.drain()
        return self._next_is_here()

    def completed(self) -> ObjectRef[Any]:
        """Return a ref that is ready when the task has ended; its value is None."""
        return self._end_ref

    def _advance(self, timeout: float | None) -> ObjectRef[Any]:
        client = self._client
        self._wait(self._next_is_here, timeout)
        if not self._item_is_here():
            if self._is_past_end():
                self._finish()
                raise StopIteration
            # The end was noticed before the item's own completion, which may be lost: the key has it.
            self._wait(self._item_is_here, timeout)
        stream, references = self._stream, client.references
        with references.lock:
            item: ObjectRef[Any] = made_here(self._item_id(), references)
            stream.next += 1
        if self._backpressure and not stream.ended:
            client.store.call(b"INCR", client.keys.consumed(self._task_id))
        return item

    def _wait(self, done: Callable[[], bool], timeout: float | None) -> None:
        if done():
            return
        client = self._client
        client.outbox.flush()
        hooks = client.block_hooks
        if hooks is not None:
            hooks[0]()
        try:
            if not client.inbox.wait(done, self._wanted, timeout):
                raise GetTimeoutError(f"no item came from the generator within {timeout} s")
        finally:
            if hooks is not None:
                hooks[1]()

    def _finish(self) -> None:
        """Everything was read: the stream needs no more keeping."""
        if self._task_id in self._client.streams:
            self._stream.ended = True
            self._client.abandon_stream(self._task_id)
            self._client.kick()

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
            client.abandon_stream(self._task_id)


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
