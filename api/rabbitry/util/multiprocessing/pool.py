"""`Pool`: its processes, and how chunks of work get to them.

A chunk goes to the process that has the fewest. So that none waits on a busy process while another is idle, a process
has few chunks at a time: as many as take about `AHEAD_SECONDS`, by the time that those before took, and one if they
take longer. Work is handed out by whoever waits for its results; for jobs that may have nobody who waits, by the client
as it notices that a chunk is done.
"""

from __future__ import annotations

import itertools
import math
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NoReturn

from rabbitry import current, environment
from rabbitry.actor import kill
from rabbitry.arguments import whole, wrong_type
from rabbitry.calls import get, wait
from rabbitry.cluster import cluster_resources
from rabbitry.decorator import remote
from rabbitry.session import init, is_initialized
from rabbitry.util.multiprocessing.results import (
    AsyncResult,
    CallbackThread,
    Chunk,
    IMapIterator,
    Job,
    UnorderedIMapIterator,
)
from rabbitry.util.multiprocessing.worker import SentFunction, Worker

CHUNKS_A_PROCESS: Final = 4
"""Into how many chunks `map` divides its work for each process."""
AHEAD_SECONDS: Final = 0.03
MAX_AHEAD: Final = 16  # chunks a process
FIRST_AHEAD: Final = 2  # as long as it is not known how long a chunk takes
END_SECONDS: Final = 5.0  # that processes have to end by themselves


class _Process:
    """One process of the pool; its handle keeps the actor alive."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.chunks: deque[Chunk] = deque()  # that it has, in the order in which it comes to them
        self.given = 0  # chunks that it ever got


class Pool:
    """Processes of the cluster that run calls of functions; the interface is that of `multiprocessing.Pool`.

    Each process is an actor, which by default takes up no CPU of the cluster. A process that dies is replaced; what it
    was at fails. Any thread may use a pool.

    Args:
        processes: how many; default: the CPUs of the cluster. Without a session, one with so many CPUs is started.
        initializer: called in each process before anything else.
        initargs: its arguments.
        maxtasksperchild: chunks after which a process is replaced by a fresh one; None for never.
        context: accepted and ignored.
        ray_address: address for `init`, if there is no session.
        ray_remote_args: options of the actors, as in `Class.options(...)`.

    Raises:
        ValueError: `processes` or `maxtasksperchild` is below 1, or there are more processes than CPUs.
        ActorDiedError: the initializer failed.

    Example:
        >>> with Pool(2) as pool:  # doctest: +SKIP
        ...     pool.map(abs, [-1, 2, -3])
        [1, 2, 3]
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] | None = None,
        maxtasksperchild: int | None = None,
        context: Any = None,
        ray_address: str | None = None,
        ray_remote_args: dict[str, Any] | None = None,
    ) -> None:
        expected = "an int of 1 or more, or None"
        if processes is not None:
            processes = whole("processes", processes, least=1, expected=expected)
        if maxtasksperchild is not None:
            maxtasksperchild = whole("maxtasksperchild", maxtasksperchild, least=1, expected=expected)
        if ray_remote_args is not None and not isinstance(ray_remote_args, dict):
            raise wrong_type("ray_remote_args", ray_remote_args, "a dict of options, or None")
        if context is not None:
            warnings.warn("the context of a pool is ignored: its processes are actors of the cluster", stacklevel=2)
        self._state_lock = threading.RLock()
        self._closed = False
        self._terminated = False
        self._jobs: set[Job] = set()  # whose work must be done before `join` returns
        self._callbacks = CallbackThread()
        self._max_chunks = maxtasksperchild
        options = {"num_cpus": 0, "max_restarts": -1, **(ray_remote_args or {})}
        self._class = remote(Worker).options(**options)
        self._initial = (initializer, tuple(initargs or ()))
        count = _connect(processes, ray_address)
        self._processes = [self._start() for _ in range(count)]
        get([process.actor.__ray_ready__.remote() for process in self._processes])

    def _start(self) -> _Process:
        return _Process(self._class.remote(*self._initial))

    # -- calls -------------------------------------------------------------------------------------------------------

    def apply(
        self, func: Callable[..., Any], args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call `func(*args, **kwargs)` in a process of the pool and return its result.

        Raises:
            ValueError: the pool was closed.
            Exception: what `func` raised.
        """
        return self.apply_async(func, args, kwargs).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
    ) -> AsyncResult:
        """As `apply`, but return at once.

        Args:
            func: what to call.
            args: its arguments.
            kwargs: its keyword arguments.
            callback: called with the result, on a thread of the pool.
            error_callback: called with the exception instead, if there is one.

        Raises:
            ValueError: the pool was closed.
        """
        calls = [(tuple(args or ()), dict(kwargs or {}))]
        return self._send(func, [calls], "apply", AsyncResult(self, callback, error_callback, single=True))

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """Return `[func(x) for x in iterable]`, computed in parallel.

        Args:
            func: what to call.
            iterable: what to call it with; all of it is read first.
            chunksize: how many calls are sent together; default: for 4 chunks a process.

        Raises:
            ValueError: the pool was closed, or `chunksize` is below 1.
            Exception: what `func` raised first, in the order of `iterable`. The other calls are made all the same.
        """
        return self._map(func, iterable, chunksize, "map").get()  # type: ignore[no-any-return]

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
    ) -> AsyncResult:
        """As `map`, but return at once; callbacks as in `apply_async`."""
        return self._map(func, iterable, chunksize, "map", callback, error_callback, unattended=True)

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """Return `[func(*x) for x in iterable]`, computed in parallel; see `map`."""
        return self._map(func, iterable, chunksize, "starmap").get()  # type: ignore[no-any-return]

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
    ) -> AsyncResult:
        """As `starmap`, but return at once; callbacks as in `apply_async`."""
        if callable(chunksize):
            # Ray has no chunksize here, so that the callbacks stand in its place.
            chunksize, callback, error_callback = None, chunksize, callback
        return self._map(func, iterable, chunksize, "starmap", callback, error_callback, unattended=True)

    def imap(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1) -> IMapIterator:
        """Return an iterator over `func(x) for x in iterable`, in order.

        The iterable is read while results are taken, a little ahead; it may be endless. Where a call failed, the
        iterator raises its exception, and goes on after that.

        Raises:
            ValueError: the pool was closed, or `chunksize` is below 1.
        """
        return self._imap(func, iterable, chunksize, IMapIterator)

    def imap_unordered(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1) -> IMapIterator:
        """As `imap`, but give results as they become ready."""
        return self._imap(func, iterable, chunksize, UnorderedIMapIterator)

    def _map(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        how: str,
        callback: Callable[[list[Any]], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
        *,
        unattended: bool = False,
    ) -> AsyncResult:
        self._check_running()
        items = list(iterable)
        if chunksize is None:
            chunksize = math.ceil(len(items) / (len(self._processes) * CHUNKS_A_PROCESS)) or 1
        _check_chunksize(chunksize)
        chunks = [items[at : at + chunksize] for at in range(0, len(items), chunksize)]
        job = AsyncResult(self, callback, error_callback, unattended=unattended)
        return self._send(func, chunks, how, job)

    def _send(self, func: Callable[..., Any], chunks: list[list[Any]], how: str, job: AsyncResult) -> AsyncResult:
        self._check_running()
        job.begin(SentFunction(func), how)
        with self._state_lock:
            job.add(chunks)
            job.all_added()
            if chunks:
                self._jobs.add(job)
        self.hand_out(job)
        return job

    def _imap(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int, kind: type[IMapIterator]
    ) -> IMapIterator:
        self._check_running()
        _check_chunksize(chunksize)
        source = iter(iterable)
        job = kind(self, iter(lambda: list(itertools.islice(source, chunksize)), []))
        job.begin(SentFunction(func), "map")
        job.fill()
        return job

    # -- handing out -------------------------------------------------------------------------------------------------

    def ahead(self, job: Job) -> int:
        """Return how many chunks of a job may be with a process."""
        if job.mean is None:
            return FIRST_AHEAD
        return max(1, min(MAX_AHEAD, int(AHEAD_SECONDS / max(job.mean, 1e-6))))

    def room(self, job: Job) -> int:
        """Return how many chunks of a job may be under way."""
        return self.ahead(job) * len(self._processes)

    def hand_out(self, job: Job) -> None:
        """Give chunks of a job that wait to processes, as far as these have room. Any thread."""
        with self._state_lock:
            self._look_for_ends(job)
            ahead = self.ahead(job)
            while job.waiting:
                process = min(self._processes, key=lambda each: len(each.chunks))
                # Who waits for this job alone must not find it waiting for another.
                if len(process.chunks) >= ahead and job.under_way:
                    break
                self._give(process, job.waiting.popleft())
        current.client().outbox.flush()

    def _give(self, process: _Process, chunk: Chunk) -> None:
        job, function = chunk.job, chunk.job.function
        try:
            chunk.ref = process.actor.run.remote(function.digest, function.payload, job.how, chunk.calls)
        except Exception as error:  # noqa: BLE001  arguments that cannot be pickled: the failure of these calls
            chunk.failure = error
            chunk.is_done = True
            self._note_complete(job)
            return
        finally:
            chunk.calls = ()
        process.chunks.append(chunk)
        process.given += 1
        job.sent(chunk)
        if self._max_chunks is not None and process.given >= self._max_chunks:
            # The old one ends with its handle, when the chunks are done that it has.
            self._processes[self._processes.index(process)] = self._start()
        if job.unattended:
            current.client().on_ready(chunk.ref, lambda: self.chunk_done(chunk))

    def chunk_done(self, chunk: Chunk) -> None:
        """A chunk's result is there. Any thread; told twice, the second counts for nothing."""
        with self._state_lock:
            self._note(chunk)
            for process in self._processes:
                # Not only when more work comes: chunks lead back to the pool, and it would not end with its last user.
                while process.chunks and process.chunks[0].is_done:
                    process.chunks.popleft()
        if chunk.job.waiting:
            self.hand_out(chunk.job)

    def _note(self, chunk: Chunk) -> None:
        if not chunk.job.done(chunk):
            return
        if chunk.lost_its_process():
            # Calls to it fail until it has been restarted; work that comes now goes to another one at once. The old
            # one ends with its handle.
            for at, process in enumerate(self._processes):
                if chunk in process.chunks and not self._terminated:
                    self._processes[at] = self._start()
        self._note_complete(chunk.job)

    def _note_complete(self, job: Job) -> None:
        if job.is_complete():
            self._jobs.discard(job)
            if job.has_callbacks:
                self._callbacks.put(job)

    def _look_for_ends(self, job: Job) -> None:
        """Note what is done that nobody waited for, so that `job` finds the processes free that are."""
        inbox = current.client().inbox
        if any(process.chunks and process.chunks[0].job is not job for process in self._processes):
            inbox.drain()
        for process in self._processes:
            chunks = process.chunks
            while chunks and (chunks[0].is_done or chunks[0].is_here(inbox.values)):
                self._note(chunks[0])
                chunks.popleft()

    # -- ends --------------------------------------------------------------------------------------------------------

    def _check_running(self) -> None:
        if self._closed:
            raise ValueError("Pool not running: it was closed")

    def close(self) -> None:
        """Take no more work. What was sent is done."""
        self._closed = True

    def terminate(self) -> None:
        """End the processes at once; what they have not done fails with ActorDiedError."""
        self._closed = True
        with self._state_lock:
            if self._terminated:
                return
            self._terminated = True
            for process in self._processes:
                kill(process.actor)

    def join(self) -> None:
        """Wait until all work is done and the processes have ended; `close` or `terminate` comes first.

        Raises:
            ValueError: the pool is running.
        """
        if not self._closed:
            raise ValueError("Pool is still running: call close() or terminate() first")
        for job in list(self._jobs):
            job.finish()
        with self._state_lock:
            if self._terminated:
                return
            self._terminated = True
        for process in self._processes:
            for chunk in process.chunks:  # of iterators that nobody went through
                chunk.wait()
        actors = [process.actor for process in self._processes]
        wait([actor.__ray_terminate__.remote() for actor in actors], num_returns=len(actors), timeout=END_SECONDS)
        for actor in actors:
            kill(actor)

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.terminate()

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError("a pool cannot be pickled; make one where it is used")

    def __repr__(self) -> str:
        state = "terminated" if self._terminated else "closed" if self._closed else "running"
        return f"<rabbitry.util.multiprocessing.Pool state={state} processes={len(self._processes)}>"


def _check_chunksize(chunksize: int) -> None:
    whole("chunksize", chunksize, least=1, expected="an int of 1 or more")


def _connect(processes: int | None, address: str | None) -> int:
    """Start a session if there is none; return how many processes the pool has."""
    if not is_initialized():
        address = address or environment.text(environment.ADDRESS) or None
        # What init() would start anyway, but as large as the pool.
        init(address) if address else init(num_cpus=processes)
    cpus = int(cluster_resources().get("CPU", 0))
    if processes is None:
        return max(1, cpus)
    if processes > cpus:
        raise ValueError(f"a pool of {processes} processes does not fit into a cluster with {cpus} CPUs")
    return processes
