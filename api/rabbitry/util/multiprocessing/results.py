"""What a pool's calls return: results that come later, and iterators over them."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rabbitry import current
from rabbitry.arguments import patience
from rabbitry.calls import get, wait
from rabbitry.exceptions import ActorUnavailableError, load_task_error
from rabbitry.object_ref import ObjectRef
from rabbitry.util.multiprocessing.worker import Reply, SentFunction
from rabbitry.util.original_error import original_error
from rabbitry_broker import records

if TYPE_CHECKING:
    from rabbitry.util.multiprocessing.pool import Pool

CALLBACK_IDLE_SECONDS = 5.0

log = logging.getLogger("rabbitry")


class Chunk:
    """Calls that are sent together."""

    __slots__ = ("calls", "failure", "index", "is_done", "job", "ref", "sent_at")

    def __init__(self, job: Job, index: int, calls: Sequence[Any]) -> None:
        self.job = job
        self.index = index
        self.calls = calls
        self.ref: ObjectRef[Reply] | None = None
        self.sent_at = 0.0
        self.is_done = False
        self.failure: Exception | None = None  # why it could not be sent

    def is_here(self, known: Mapping[bytes, Any]) -> bool:
        """True if the result is among the known ones."""
        return self.ref is not None and self.ref._id in known

    def wait(self) -> None:
        """Wait until the result is there."""
        if self.ref is not None:
            wait([self.ref])

    def lost_its_process(self) -> bool:
        """True if it is done, and failed since its process died, or had died, and is being restarted."""
        record = None if self.ref is None else current.client().inbox.values.get(self.ref._id)
        if record is None or record[0] != records.ERROR_TAG:
            return False
        return isinstance(load_task_error(record[1:]), ActorUnavailableError)

    def outcomes(self) -> list[tuple[Any, BaseException | None]]:
        """Return (result, None) or (None, exception) for each call of a chunk that is done."""
        if self.failure is not None:
            return [(None, self.failure)]
        assert self.ref is not None
        try:
            results, failures = get(self.ref)
        except Exception as error:  # noqa: BLE001  the process died, or a result could not be pickled
            return [(None, original_error(error))]
        errors = {at: original_error(load_task_error(record)) for at, record in failures.items()}
        return [(result, errors.get(at)) for at, result in enumerate(results)]


class Job:
    """One call of a pool's method. The pool's lock guards `waiting`, `under_way` and what `sent` and `done` change.

    Attributes:
        pool: where it runs.
        function: what its chunks call.
        how: "apply", "map" or "starmap".
        waiting: chunks that no process has.
        under_way: chunks that processes have, by their refs.
        mean: seconds that a chunk takes; None if not known yet.
        unattended: nobody may be waiting for it, so that the client must hand out its chunks.
        has_callbacks: somebody wants to be called when it is complete.
    """

    function: SentFunction
    how: str

    def __init__(self, pool: Pool, *, unattended: bool = False) -> None:
        self.pool = pool
        self.waiting: deque[Chunk] = deque()
        self.under_way: dict[ObjectRef[Reply], Chunk] = {}
        self.mean: float | None = None
        self.unattended = unattended
        self.has_callbacks = False
        self._last_done = 0.0
        self._added = 0
        self._all_added = False

    def begin(self, function: SentFunction, how: str) -> None:
        """Say what its chunks call."""
        self.function = function
        self.how = how

    def add(self, chunks: Sequence[Sequence[Any]]) -> list[Chunk]:
        """Let chunks wait for a process."""
        added = [Chunk(self, self._added + at, calls) for at, calls in enumerate(chunks)]
        self._added += len(added)
        self.waiting.extend(added)
        return added

    def all_added(self) -> None:
        """There are no more chunks to come."""
        self._all_added = True

    def sent(self, chunk: Chunk) -> None:
        """A process has the chunk."""
        assert chunk.ref is not None
        chunk.sent_at = time.monotonic()
        self.under_way[chunk.ref] = chunk

    def done(self, chunk: Chunk) -> bool:
        """The chunk's result is there; False if that was known."""
        if chunk.is_done:
            return False
        assert chunk.ref is not None
        chunk.is_done = True
        del self.under_way[chunk.ref]
        now = time.monotonic()
        # Those before it at the same process count for themselves.
        took = now - max(chunk.sent_at, self._last_done)
        self._last_done = now
        took *= len(self.pool._processes)
        self.mean = took if self.mean is None else 0.7 * self.mean + 0.3 * took
        return True

    def is_complete(self) -> bool:
        """True if all chunks are done."""
        return self._all_added and not self.waiting and not self.under_way

    def attend(self, timeout: float | None) -> bool:
        """Wait until one more chunk is done; False if none was in time."""
        with self.pool._state_lock:
            under_way = dict(self.under_way)
        if not under_way:
            # Another thread noted the last one: what waits is for us to hand out.
            self.pool.hand_out(self)
            return True
        ready, _ = wait(list(under_way), num_returns=1, timeout=timeout)
        if ready and len(under_way) > 1:
            ready, _ = wait(list(under_way), num_returns=len(under_way), timeout=0)
        for ref in ready:
            self.pool.chunk_done(under_way[ref])
        return bool(ready)

    def finish(self) -> None:
        """Wait until all is done that was added."""
        while self.under_way or self.waiting:
            self.attend(None)


class AsyncResult(Job):
    """A result of a pool that comes later; like `multiprocessing.pool.AsyncResult`.

    Args:
        pool: where it is computed.
        callback: called with the result.
        error_callback: called with the exception instead; its `underlying`, as in Ray, is that itself.
        single: the result is that of one call, no list.
        unattended: nobody may be waiting for it.
    """

    def __init__(
        self,
        pool: Pool,
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
        *,
        single: bool = False,
        unattended: bool = False,
    ) -> None:
        has_callbacks = callback is not None or error_callback is not None
        super().__init__(pool, unattended=unattended or has_callbacks)
        self.has_callbacks = has_callbacks
        self._callback = callback
        self._error_callback = error_callback
        self._single = single
        self._chunks: list[Chunk] = []
        self._outcome: tuple[Any, BaseException | None] | None = None
        self._outcome_lock = threading.Lock()
        self._called = threading.Event()

    def finish(self) -> None:
        """Wait until all is done, and callbacks were called."""
        self.wait()

    def add(self, chunks: Sequence[Sequence[Any]]) -> list[Chunk]:
        """Let chunks wait for a process."""
        self._chunks = super().add(chunks)
        if not chunks and self.has_callbacks:
            self.all_added()
            self.pool._callbacks.put(self)
        return self._chunks

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the result is there, and callbacks were called, or for `timeout` seconds."""
        timeout = patience("timeout", timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.is_complete():
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self.attend(left):
                return
        if self.has_callbacks:
            self._called.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def ready(self) -> bool:
        """True if the result is there."""
        self.wait(0)
        return self.is_complete() and (not self.has_callbacks or self._called.is_set())

    def successful(self) -> bool:
        """True if no call failed.

        Raises:
            ValueError: the result is not there yet.
        """
        if not self.ready():
            raise ValueError(f"{self!r} is not ready")
        return self._settled()[1] is None

    def get(self, timeout: float | None = None) -> Any:
        """Return the result; wait for it.

        Args:
            timeout: seconds to wait; None for ever.

        Raises:
            TimeoutError: it is not there in time (`multiprocessing.TimeoutError`).
            Exception: what the call raised; with several, the first one in their order.
        """
        self.wait(timeout)
        if not self.ready():
            raise multiprocessing.TimeoutError
        value, error = self._settled()
        if error is not None:
            raise error
        return value

    def _settled(self) -> tuple[Any, BaseException | None]:
        with self._outcome_lock:
            if self._outcome is None:
                outcomes = [outcome for chunk in self._chunks for outcome in chunk.outcomes()]
                self._chunks = []
                error = next((error for _, error in outcomes if error is not None), None)
                values = [value for value, _ in outcomes]
                self._outcome = (values[0] if self._single else values) if error is None else None, error
            return self._outcome

    def call_back(self) -> None:
        """Call the callback that is due."""
        try:
            value, error = self._settled()
            if error is None and self._callback is not None:
                self._callback(value)
            elif error is not None and self._error_callback is not None:
                with contextlib.suppress(AttributeError):
                    error.underlying = error  # type: ignore[attr-defined]  # Ray hands over a wrapper of that name
                self._error_callback(error)
        finally:
            self._called.set()


class IMapIterator(Job):
    """Results of `imap`, in order.

    Args:
        pool: where they are computed.
        chunks: gives the arguments, chunk by chunk.
    """

    def __init__(self, pool: Pool, chunks: Iterator[list[Any]]) -> None:
        super().__init__(pool)
        self._source = chunks
        self._ordered: deque[Chunk] = deque()
        self._outcomes: deque[tuple[Any, BaseException | None]] = deque()
        self._lock = threading.RLock()

    def fill(self) -> None:
        """Read as much of the iterable as there is room for, and send it."""
        missing = self.pool.room(self) - len(self.under_way) - len(self.waiting)
        while missing > 0 and not self._all_added:
            missing -= 1
            calls = next(self._source, None)
            with self.pool._state_lock:
                if calls is None:
                    self.all_added()
                else:
                    self._ordered.extend(self.add([calls]))
        if self.waiting:
            self.pool.hand_out(self)

    def __iter__(self) -> IMapIterator:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result.

        Args:
            timeout: seconds to wait for it; None for ever.

        Raises:
            StopIteration: there are no more.
            TimeoutError: it is not there in time (`multiprocessing.TimeoutError`).
            Exception: what the call raised.
        """
        timeout = patience("timeout", timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            while not self._outcomes:
                self.fill()
                if not self._ordered:
                    raise StopIteration
                chunk = self._next_done()
                if chunk is not None:
                    self._ordered.remove(chunk)
                    self._outcomes.extend(chunk.outcomes())
                    continue
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not self.attend(left):
                    raise multiprocessing.TimeoutError
            value, error = self._outcomes.popleft()
        if error is not None:
            raise error
        return value

    def _next_done(self) -> Chunk | None:
        """Return the chunk whose results come next, if it is done."""
        return self._ordered[0] if self._ordered[0].is_done else None


class UnorderedIMapIterator(IMapIterator):
    """Results of `imap_unordered`, as they become ready."""

    def _next_done(self) -> Chunk | None:
        return next((chunk for chunk in self._ordered if chunk.is_done), None)


class CallbackThread:
    """The thread on which a pool calls callbacks: there while there are some to call, and a little longer."""

    def __init__(self) -> None:
        self._due: queue.SimpleQueue[AsyncResult] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def put(self, job: Any) -> None:
        """Have a job's callback called. Any thread."""
        with self._lock:
            self._due.put(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="rabbitry-pool-callbacks", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        current.start_none_here()
        while True:
            try:
                job = self._due.get(timeout=CALLBACK_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._due.empty():
                        self._thread = None
                        return
                continue
            try:
                job.call_back()
            except Exception:
                log.exception("a callback of a pool failed")
