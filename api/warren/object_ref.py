"""`ObjectRef`: the handle on a value that exists or will."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from warren import current
from warren_broker.ids import CLIENT_BYTES, OBJECT_BYTES, TASK_BYTES
from warren_broker.serialization import note_ref, register_ref_class

if TYPE_CHECKING:
    from warren.ids import JobID, TaskID
    from warren.references import References

T = TypeVar("T")


class ObjectRef(Generic[T]):
    """A handle on an object: the result of a task or actor call, or a value that was put.

    Handles are hashable, compare by id, and may be passed to tasks, stored in objects and awaited. The object lives
    as long as a handle does, in any process.

    Args:
        id: the 28 bytes of the object id.

    Raises:
        TypeError: `id` is not bytes.
        ValueError: it is not 28 bytes long.
    """

    __slots__ = ("__weakref__", "_call_site", "_id", "_references")

    def __init__(self, id: bytes) -> None:
        if not isinstance(id, bytes):
            raise TypeError(f"an object id is bytes, got {id!r}; use ObjectRef.from_hex for text")
        if len(id) != OBJECT_BYTES:
            raise ValueError(f"an object id has {OBJECT_BYTES} bytes, got {id!r}; use ObjectRef.from_hex for text")
        self._id = id
        self._references: References | None = None
        client = current.peek()
        if client is not None:
            client.adopt(self)

    def __del__(self) -> None:
        # Any thread, any instruction: nothing but this append is safe here.
        try:
            references = self._references
        except AttributeError:
            return
        if references is not None:
            references.dropped.append(self._id)

    @classmethod
    def from_hex(cls, text: str) -> ObjectRef[Any]:
        """Return a handle on the object of this id, written in hexadecimal.

        Such a handle finds the object as long as something else keeps it alive, or it was made with
        `lifetime="detached"`.
        """
        return cls(bytes.fromhex(text))

    @classmethod
    def nil(cls) -> ObjectRef[Any]:
        """Return the handle that stands for no object (all bytes 0xff)."""
        return _bare(b"\xff" * OBJECT_BYTES)

    @classmethod
    def from_random(cls) -> ObjectRef[Any]:
        """Return a handle with a random id; no object belongs to it."""
        import os

        return _bare(os.urandom(OBJECT_BYTES))

    def hex(self) -> str:
        """Return the id in hexadecimal. `from_hex` finds the object anywhere, as long as a handle on it lives."""
        self._sent_out()
        return self._id.hex()

    def binary(self) -> bytes:
        """Return the 28 bytes of the id."""
        self._sent_out()
        return self._id

    def _sent_out(self) -> None:
        """The id may leave this process: what it names must be findable there."""
        client = current.peek()
        if client is not None and self._references is client.references:
            client.lifetimes.sent_out()

    def is_nil(self) -> bool:
        """True for `ObjectRef.nil()`."""
        return self._id == b"\xff" * OBJECT_BYTES

    @staticmethod
    def size() -> int:
        """Return the length of an id, 28 bytes."""
        return OBJECT_BYTES

    def task_id(self) -> TaskID:
        """Return the id of the task (or put) that made the object."""
        from warren.ids import TaskID

        return TaskID(self._id[:TASK_BYTES])

    def job_id(self) -> JobID:
        """Return the id of the job that made the object."""
        from warren.ids import JobID

        return JobID(self._id[TASK_BYTES - 4 : TASK_BYTES])

    def owner_address(self) -> bytes:
        """Return the id of the client that owns the object."""
        return self._id[:CLIENT_BYTES]

    def call_site(self) -> str:
        """Return where the object was made; warren does not record it, so an empty text."""
        return ""

    def __bytes__(self) -> bytes:
        return self._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __eq__(self, other: object) -> bool:
        return type(other) is ObjectRef and self._id == other._id

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __repr__(self) -> str:
        return f"ObjectRef({self._id.hex()})"

    def __reduce__(self) -> tuple[Callable[[bytes], ObjectRef[Any]], tuple[bytes]]:
        if not note_ref(self._id):
            # By cloudpickle.dumps, or in a function's closure: nobody can watch where it goes.
            client = current.peek()
            if client is not None and self._references is client.references:
                client.lifetimes.keep_for_ever(self._id)
        return ObjectRef, (self._id,)

    def __copy__(self) -> ObjectRef[T]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ObjectRef[T]:
        return self

    def future(self) -> concurrent.futures.Future[T]:
        """Return a `concurrent.futures.Future` of the value. Cancelling it does not cancel the task."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        client = current.client()

        def settle() -> None:
            if future.cancelled():
                return
            try:
                value = client.get_one(self, None)
            except BaseException as error:
                outcome: BaseException | None = error
            else:
                outcome = None
            try:
                if outcome is not None:
                    future.set_exception(outcome)
                else:
                    future.set_result(value)
            except concurrent.futures.InvalidStateError:
                return  # cancelled in between: nobody waits

        client.on_ready(self, settle)
        return future

    def as_future(self) -> asyncio.Future[T]:
        """Return an `asyncio.Future` of the value, on the running loop."""
        return asyncio.wrap_future(self.future())

    def __await__(self) -> Generator[Any, None, T]:
        return self.as_future().__await__()

    def _on_completed(self, callback: Callable[[Any], None]) -> None:
        """Call `callback(value or exception)` on an internal thread when the object is there."""

        def deliver(future: concurrent.futures.Future[T]) -> None:
            error = future.exception()
            callback(error if error is not None else future.result())

        self.future().add_done_callback(deliver)


register_ref_class(ObjectRef)


def _bare(id: bytes) -> ObjectRef[Any]:
    """Return a handle that counts for nothing."""
    ref: ObjectRef[Any] = ObjectRef.__new__(ObjectRef)
    ref._id = id
    ref._references = None
    return ref


def made_here(id: bytes, references: References) -> ObjectRef[Any]:
    """Return the first handle of an object that this client just made. HOT PATH."""
    ref: ObjectRef[Any] = ObjectRef.__new__(ObjectRef)
    ref._id = id
    ref._references = references
    references.counts[id] = 1
    return ref
