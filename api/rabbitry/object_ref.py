"""`ObjectRef`: the handle on a value that exists or will."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from rabbitry.arguments import shown, wrong_type
from rabbitry.hidden_frames import of_errors_of_tasks
from rabbitry.ref_hints import refuse_use_as_value
from rabbitry_broker.errors import without_frames
from rabbitry_broker.ids import CLIENT_BYTES, OBJECT_BYTES, TASK_BYTES
from rabbitry_broker.pickling import note_ref, register_ref_class

if TYPE_CHECKING:
    from rabbitry.ids import JobID, TaskID
    from rabbitry.typed_calls import Unknown

T_co = TypeVar("T_co", covariant=True)

__tracebackhide__ = of_errors_of_tasks


class Handles(Protocol):
    """Counts the handles of one client; see `rabbitry.core.lives.references`."""

    @property
    def counts(self) -> dict[bytes, int]:
        """Handles on each object."""

    @property
    def dropped(self) -> deque[bytes]:
        """Handles that are gone and not yet counted."""


class Home(Protocol):
    """What handles need of this process's client."""

    @property
    def references(self) -> Handles:
        """Counts its handles."""

    def adopt(self, ref: ObjectRef[Any]) -> None:
        """Count a handle that came from elsewhere."""

    def sent_out(self) -> None:
        """A ref's id left this process."""

    def keep_for_ever(self, key: bytes) -> None:
        """A ref left this process by ways that nobody can watch."""

    def get_one(self, ref: ObjectRef[Any], timeout: float | None) -> Any:
        """Return the value of `ref`."""

    def on_ready(self, ref: ObjectRef[Any], callback: Callable[[], None]) -> None:
        """Run `callback` once `ref` is resolved."""

    def is_resolved(self, ref: ObjectRef[Any]) -> bool:
        """True if the record of `ref` is here."""

    def is_at_hand(self, ref: ObjectRef[Any]) -> bool:
        """True if the value of `ref` can be read without asking anybody."""


class _Process:
    """This process's client as handles see it. `rabbitry.current`, which sets both, knows handles, not the reverse."""

    home: Home | None = None
    start: Callable[[], Home]  # returns the client, after starting a session if need be


process = _Process()


class ObjectRef(Generic[T_co]):
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
            raise TypeError(f"an object id is bytes, got {shown(id)}; use ObjectRef.from_hex for text")
        if len(id) != OBJECT_BYTES:
            raise ValueError(f"an object id has {OBJECT_BYTES} bytes, got {shown(id)}; use ObjectRef.from_hex for text")
        self._id = id
        self._references: Handles | None = None
        client = process.home
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

        Raises:
            TypeError: `text` is no text.
            ValueError: it is not the id of an object in hexadecimal.
        """
        if not isinstance(text, str):
            raise wrong_type("the id", text, "text")
        try:
            data = bytes.fromhex(text)
        except ValueError:
            raise ValueError(f"{shown(text)} is no object id: it has {2 * OBJECT_BYTES} hexadecimal digits.") from None
        return cls(data)

    @classmethod
    def from_binary(cls, data: bytes) -> ObjectRef[Any]:
        """Return a handle on the object with the id `data`; the same as `ObjectRef(data)`."""
        return cls(data)

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
        client = process.home
        if client is not None and self._references is client.references:
            client.sent_out()

    def _unknown_here(self) -> str:
        """Return what is wrong with using this ref: its session was shut down."""
        return (
            f"{self!r} belongs to a session that was shut down, and its value went with that. Refs are good for the "
            "session in which they were made: make the object again."
        )

    def is_nil(self) -> bool:
        """True for `ObjectRef.nil()`."""
        return self._id == b"\xff" * OBJECT_BYTES

    @staticmethod
    def size() -> int:
        """Return the length of an id, 28 bytes."""
        return OBJECT_BYTES

    def task_id(self) -> TaskID:
        """Return the id of the task (or put) that made the object."""
        from rabbitry.ids import TaskID

        return TaskID(self._id[:TASK_BYTES])

    def job_id(self) -> JobID:
        """Return the id of the job that made the object."""
        from rabbitry.ids import JobID

        return JobID(self._id[TASK_BYTES - 4 : TASK_BYTES])

    def owner_address(self) -> bytes:
        """Return the id of the client that owns the object."""
        return self._id[:CLIENT_BYTES]

    def call_site(self) -> str:
        """Return where the object was made; rabbitry does not record it, so an empty text."""
        return ""

    def tensor_transport(self) -> None:
        """Return None: values travel by the object store alone."""
        return

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

    if TYPE_CHECKING:

        def __iter__(self: ObjectRef[Unknown]) -> Iterator[ObjectRef[Any]]:
            """What a function without types returns may be a generator: to checkers ObjectRef[Any] has items, too."""

    def _repr_html_(self) -> str:
        from rabbitry.notebook import table

        client = process.home
        if client is None or self._references is not client.references:
            state = "of no session that runs"
        else:
            # What is known without asking: a notebook shows refs in passing.
            state = "ready" if client.is_resolved(self) else "not known to be ready"
        return table("ObjectRef", [("id", self._id.hex()), ("task", self._id[:TASK_BYTES].hex()), ("state", state)])

    def __reduce__(self) -> tuple[Callable[[bytes], ObjectRef[Any]], tuple[bytes]]:
        client = process.home
        if not note_ref(self._id):
            # By cloudpickle.dumps, or in a function's closure: nobody can watch where it goes.
            if client is not None and self._references is client.references:
                client.keep_for_ever(self._id)
        elif client is not None and self._references is not client.references and self._references is not None:
            raise ValueError(self._unknown_here())
        return ObjectRef, (self._id,)

    def __copy__(self) -> ObjectRef[T_co]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ObjectRef[T_co]:
        return self

    def future(self) -> concurrent.futures.Future[T_co]:
        """Return a `concurrent.futures.Future` of the value. Cancelling it does not cancel the task."""
        future: concurrent.futures.Future[T_co] = concurrent.futures.Future()
        client = process.start()

        def settle() -> None:
            if future.cancelled():
                return
            try:
                value = client.get_one(self, None)
            except BaseException as error:
                outcome: BaseException | None = without_frames(error)
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

    def as_future(self) -> asyncio.Future[T_co]:
        """Return an `asyncio.Future` of the value, on the running loop."""
        return asyncio.wrap_future(self.future())

    def __await__(self) -> Generator[Any, None, T_co]:  # HOT PATH of Ray Serve
        client = process.start()
        if client.is_resolved(self):
            yield  # others have their turn, as with whatever is waited for
        else:
            yield from self._ready().__await__()
        if client.is_at_hand(self):
            try:
                return client.get_one(self, None)  # type: ignore[no-any-return]
            except BaseException as error:
                raise without_frames(error)  # noqa: B904
        # It may have to be fetched: not by the loop's thread.
        reading = asyncio.get_running_loop().run_in_executor(None, client.get_one, self, None)
        value: T_co = yield from reading.__await__()
        return value

    def _on_completed(self, callback: Callable[[Any], None]) -> None:
        """Call `callback(value or exception)` on an internal thread when the object is there; for Ray's libraries.

        When the session ends before, it is not called: who waits in the background (Serve's long polls) takes what it
        gets for an answer, and has nothing left to do.
        """
        client = process.start()

        def settle() -> None:
            if not client.is_resolved(self):
                return
            try:
                outcome = client.get_one(self, None)
            except BaseException as error:
                outcome = without_frames(error)
            callback(outcome)

        client.on_ready(self, settle)

    def _on_ready(self, py_callback: Callable[[BaseException | None], None]) -> Callable[[], None]:
        """Call `py_callback(None)` when the object is there, without reading it; for Ray's libraries.

        On an internal thread, or at once on this one if the object is there. The ref stays alive until then.

        Returns:
            A function that ends the wait: the callback gets a RabbitrySystemError, as it does when the session ends.
        """
        client = process.start()
        waiting = [py_callback]

        def settle(reason: str = "") -> None:
            try:
                callback = waiting.pop()
            except IndexError:
                return  # it was called before
            if not reason and client.is_resolved(self):
                callback(None)
                return
            from rabbitry.exceptions import RabbitrySystemError

            callback(RabbitrySystemError(reason or f"The session ended before {self!r} was there."))

        client.on_ready(self, settle)
        return lambda: settle("The wait was cancelled.")

    async def _ready(self) -> ObjectRef[T_co]:
        """Wait until the object is there, without reading it; return this ref."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def settle(error: BaseException | None) -> None:
            if not future.done():
                future.set_result(None) if error is None else future.set_exception(error)

        def tell(error: BaseException | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, error)

        take_back = self._on_ready(tell)
        try:
            await future
        finally:
            take_back()
        return self


refuse_use_as_value(ObjectRef)
register_ref_class(ObjectRef)


def _bare(id: bytes) -> ObjectRef[Any]:
    """Return a handle that counts for nothing."""
    ref: ObjectRef[Any] = ObjectRef.__new__(ObjectRef)
    ref._id = id
    ref._references = None
    return ref


def made_here(id: bytes, references: Handles) -> ObjectRef[Any]:
    """Return the first handle of an object that this client just made. HOT PATH."""
    ref: ObjectRef[Any] = ObjectRef.__new__(ObjectRef)
    ref._id = id
    ref._references = references
    references.counts[id] = 1
    return ref
