"""Refs that come one by one: the results of streaming tasks.

Item number i of a stream is the object with index i of its task; the object with index 0 is written last and holds how
many there were. A producer that is retried writes the same ids again, so nobody sees an item twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any, Generic, NamedTuple, Protocol

from rabbitry.arguments import seconds
from rabbitry.exceptions import GetTimeoutError, ObjectRefStreamEndOfStreamError, store_error
from rabbitry.hidden_frames import of_errors_of_tasks
from rabbitry.object_ref import Handles, ObjectRef, made_here
from rabbitry.outages import raise_public
from rabbitry.typed_calls import R
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import TASK_BYTES, object_id
from rabbitry_broker.records import ERROR, ERROR_TAG, count_in

__tracebackhide__ = of_errors_of_tasks


class Items(Protocol):
    """What has come of one stream; see `rabbitry.core.resolve.streams.Stream`."""

    next: int  # number of the item to hand out next
    ended: bool  # the task has ended
    counted: bool  # the producer asks how many items were read


class StreamReader(Protocol):
    """What a generator needs of its client; see `rabbitry.core.resolve.reading`."""

    @property
    def references(self) -> Handles:
        """Counts the handles on items."""

    @property
    def values(self) -> dict[bytes, bytes]:
        """The records of resolved objects."""

    def wait(self, done: Callable[[], bool], wanted: Callable[[], list[bytes]], timeout: float | None) -> bool:
        """Send what waits, then wait until `done()`; False after `timeout` seconds."""

    def when_ready(self, key: bytes, callback: Callable[[], None]) -> None:
        """Call `callback` once an object is here, on another thread, or at once if it is here."""

    def look(self) -> None:
        """Take what has come, without waiting."""

    def hand_out(self, stream: Any, key: bytes) -> ObjectRef[Any]:
        """Return a handle on the next item, and count it."""

    def count_read(self, task_id: bytes) -> None:
        """Tell the producer that one more item was read."""

    def fill(self, key: bytes, record: bytes) -> None:
        """Store a record as an item that the producer could not send."""

    def finish(self, task_id: bytes, stream: Any) -> None:
        """Everything was read: the stream needs no more keeping."""

    def abandon(self, task_id: bytes) -> None:
        """The generator was dropped. Called by `__del__`: only appends."""


class StreamingGeneratorStats(NamedTuple):
    """What a streaming task's generator is sent after each item: `stats = yield item`.

    Attributes:
        object_creation_dur_s: seconds that it took to store the item.
    """

    object_creation_dur_s: float


class _Arrivals:
    """Wakes coroutines that wait for a stream's next item. It knows no generator, which may be dropped meanwhile."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._watched = b""  # the item of which we are told, b"" for none
        self._end_watched = False

    async def wait(self, reader: StreamReader, key: bytes, end: ObjectRef[Any], here: Callable[[], bool]) -> None:
        """Wait until an item or the end may be here."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            if not self._end_watched:
                self._end_watched = True
                end._on_ready(lambda _: self._wake())  # holds the end's ref, not the generator
            if self._watched != key:
                self._watched = key
                reader.when_ready(key, self._wake)
            if not here():  # it may have come before we waited, by a callback of somebody who waited before
                await future
        finally:
            with suppress(ValueError):  # it was woken
                self._waiting.remove(future)

    def _wake(self) -> None:
        self._watched = b""
        # Each is woken once: the last item and the end come together, and each wake-up of a loop is a system call.
        while self._waiting:
            try:
                future = self._waiting.popleft()
            except IndexError:
                return  # it ended its wait just now
            with suppress(RuntimeError):  # its loop was closed, and it with it
                future.get_loop().call_soon_threadsafe(_settle, future)


class _Ahead:
    """Answers refs on items that were looked at ahead and will never come. It knows no generator, either.

    Attributes:
        count: of all items, once it is known.
        ids: of what was looked at and not handed out.
    """

    def __init__(self, reader: StreamReader, end: ObjectRef[Any]) -> None:
        self.count: int | None = None
        self.ids: dict[bytes, None] = {}
        self._reader = reader
        self._end = end
        self._end_watched = False

    def watch(self, ids: list[bytes]) -> None:
        """These are looked at."""
        self.ids.update(dict.fromkeys(ids))
        if not self._end_watched:
            self._end_watched = True
            self._end._on_ready(lambda _: self._fill())  # holds the end's ref, not the generator

    def _fill(self) -> None:
        self._end_watched = False  # whoever looks at more from now on has it answered at once
        record = self._reader.values.get(self._end._id)
        if record is None:
            return  # the session has ended
        if record[0] != ERROR_TAG:
            self.count = count_in(record)
            record = ERROR + store_error(ObjectRefStreamEndOfStreamError("The stream has no further item."))
        for key in list(self.ids):
            number = int.from_bytes(key[TASK_BYTES:], "little")
            if key not in self._reader.values and (self.count is None or number > self.count):
                self._reader.fill(key, record)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class ObjectRefGenerator(Generic[R]):
    """Iterator, also asynchronous, over the refs of a streaming task's results.

    `next()` blocks until the next ref exists (its value may be an error, which `get` raises). Dropping the generator
    stops the producer and deletes what was not read.
    """

    def __init__(self, reader: StreamReader, task_id: bytes, stream: Items) -> None:
        self._reader = reader
        self._task_id = task_id
        self._stream = stream
        self._end_ref: ObjectRef[Any] = made_here(object_id(task_id, 0), reader.references)
        self._ahead = _Ahead(reader, self._end_ref)
        self._peeked: list[ObjectRef[Any]] = []  # refs on items from the next one on, which keep these
        self._arrivals = _Arrivals()

    @property
    def _generator_ref(self) -> ObjectRef[Any]:
        return self._end_ref

    def _item_id(self) -> bytes:
        return object_id(self._task_id, self._stream.next)

    def _item_is_here(self) -> bool:
        # What stands behind the end is an answer to whoever looked ahead, and no item.
        behind_end = self._ahead.count is not None and self._stream.next > self._ahead.count
        return not behind_end and self._item_id() in self._reader.values

    def _next_is_here(self) -> bool:
        return self._item_is_here() or self._end_ref._id in self._reader.values

    def _wanted(self) -> list[bytes]:
        return [self._end_ref._id, self._item_id()]

    def _is_past_end(self) -> bool:
        """True if every item was handed out. Only to be asked when the end record is here and the next item is not."""
        if self._ahead.count is None:
            record = self._reader.values[self._end_ref._id]
            if record[0] == ERROR_TAG:
                # It broke down where it could not say so in an item of its own: one more item tells of it.
                self._ahead.count = self._stream.next
                self._reader.fill(self._item_id(), record)
            else:
                self._ahead.count = count_in(record)
        return self._stream.next > self._ahead.count

    def is_finished(self) -> bool:
        """True once every ref was handed out and the task has ended."""
        return not self._item_is_here() and self._end_ref._id in self._reader.values and self._is_past_end()

    def _stream_exhausted(self) -> bool:
        """True once every ref was handed out and the end is known here; nobody is asked. For Ray's libraries."""
        return self.is_finished()

    def next_ready(self) -> bool:
        """True if `next()` would return a ref at once; False also when there are no more."""
        if not self._next_is_here():
            self._reader.look()
        return self._next_is_here() and not self.is_finished()

    def completed(self) -> ObjectRef[Any]:
        """Return a ref that is ready when the task has ended; its value is None."""
        return self._end_ref

    def _advance(self, timeout: float | None) -> ObjectRef[R]:
        self._wait(self._next_is_here, timeout)
        if not self._item_is_here():
            if self._is_past_end():
                self._reader.finish(self._task_id, self._stream)
                raise StopIteration
            # The end was noticed before the item's own completion, which may be lost: the key has it.
            self._wait(self._item_is_here, timeout)
        item = self._reader.hand_out(self._stream, self._item_id())
        self._handed_out(1)
        if self._stream.counted and not self._stream.ended:
            self._reader.count_read(self._task_id)
        return item

    def _get_next_ref_n(self, num_refs: int) -> list[ObjectRef[R]]:
        """Return refs on the next items without handing these out; for Ray's libraries.

        An item that will never come is an error: the task's, or ObjectRefStreamEndOfStreamError behind the end.

        Raises:
            ValueError: not a positive number.
        """
        if num_refs <= 0:
            raise ValueError(f"num_refs must be positive, got {num_refs}")
        while len(self._peeked) < num_refs:
            key = object_id(self._task_id, self._stream.next + len(self._peeked))
            self._peeked.append(made_here(key, self._reader.references))
        self._ahead.watch([ref._id for ref in self._peeked])
        return self._peeked[:num_refs]

    def _handed_out(self, count: int) -> None:
        for ref in self._peeked[:count]:
            self._ahead.ids.pop(ref._id, None)
        del self._peeked[:count]

    def _consume_next_ref_n(self, num_refs: int) -> None:
        """Pass over the next items, which must be there; for Ray's libraries.

        Raises:
            ValueError: not a positive number, or one of them is not there yet.
        """
        if num_refs <= 0:
            raise ValueError(f"num_refs must be positive, got {num_refs}")
        ids = [object_id(self._task_id, self._stream.next + number) for number in range(num_refs)]
        if any(key not in self._reader.values for key in ids):
            self._reader.look()
        if any(key not in self._reader.values for key in ids):
            raise ValueError(f"not all of the next {num_refs} items are there: wait for the last one first")
        for key in ids:
            self._reader.hand_out(self._stream, key)
            if self._stream.counted and not self._stream.ended:
                self._reader.count_read(self._task_id)
        self._handed_out(num_refs)

    def _wait(self, done: Callable[[], bool], timeout: float | None) -> None:
        if done():
            return
        try:
            here = self._reader.wait(done, self._wanted, timeout)
        except RabbitryBrokerError as error:
            raise_public(error)
        if not here:
            raise GetTimeoutError(f"no item came from the generator within {timeout} s")

    def __iter__(self) -> Iterator[ObjectRef[R]]:
        return self

    def __next__(self) -> ObjectRef[R]:
        return self._advance(None)

    def _next_sync(self, timeout_s: float | None = None) -> ObjectRef[R]:
        """Return the next ref, or the nil ref after `timeout_s` seconds; -1 is for ever."""
        timeout = None if timeout_s == -1 else seconds("timeout_s", timeout_s)
        try:
            return self._advance(timeout)
        except GetTimeoutError:
            return ObjectRef.nil()

    def __aiter__(self) -> AsyncIterator[ObjectRef[R]]:
        return self

    async def __anext__(self) -> ObjectRef[R]:
        # No thread waits for us: a loop has few to lend, and others wait for items that come sooner.
        while not self._next_is_here():
            await self._arrival(self._next_is_here)
        while not self._item_is_here() and not self._is_past_end():
            # The end was noticed before the item's own completion.
            await self._arrival(self._item_is_here)
        try:
            return self._advance(None)
        except StopIteration:
            raise StopAsyncIteration from None

    async def _arrival(self, done: Callable[[], bool]) -> None:
        await self._arrivals.wait(self._reader, self._item_id(), self._end_ref, done)
        if not done():
            with suppress(GetTimeoutError):
                self._wait(done, 0.0)  # if the session has ended, it says so

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
        reader = getattr(self, "_reader", None)
        if reader is not None:
            reader.abandon(self._task_id)


class DynamicObjectRefGenerator(Generic[R]):
    """The value of a `num_returns="dynamic"` task: refs to be iterated over once, each of which it lets go of then.

    Its length is how many are left.
    """

    def __init__(self, refs: list[ObjectRef[R]]) -> None:
        self._refs = deque(refs)

    def __iter__(self) -> Iterator[ObjectRef[R]]:
        while self._refs:
            yield self._refs.popleft()

    def __len__(self) -> int:
        return len(self._refs)

    def __repr__(self) -> str:
        return f"DynamicObjectRefGenerator({len(self._refs)} refs)"
