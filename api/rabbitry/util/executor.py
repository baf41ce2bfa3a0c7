"""A `concurrent.futures.Executor` whose calls are tasks of the cluster.

Every submission is one task. So that a future can be cancelled until its task is sent, and no more than `max_workers`
run at once, few tasks are under way at a time; the rest waits here. Without a limit it is as many as the cluster has
CPUs for, and of short ones so many that the CPUs do not run out of work.

A task's end is noticed by the client and settled by whoever waits in `result`, or else by the executor's thread, which
also calls the callbacks. Futures are set without the executor's lock: a callback may take a lock that another thread
holds while it submits.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import itertools
import queue
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

from rabbitry import current
from rabbitry.arguments import patience, whole
from rabbitry.calls import cancel, get, wait
from rabbitry.cluster import cluster_resources
from rabbitry.exceptions import RabbitryError
from rabbitry.object_ref import ObjectRef
from rabbitry.options import TaskOptions
from rabbitry.remote_function import RemoteFunction
from rabbitry.util.original_error import original_error

T = TypeVar("T")

AHEAD_SECONDS: Final = 0.05
"""Without `max_workers`, tasks of so much run time for each CPU are under way at most."""
MAX_UNDER_WAY: Final = 5000
IDLE_SECONDS: Final = 5.0  # without work, then the thread ends until there is some
REMEMBERED: Final = 32  # functions that were submitted last

_open: weakref.WeakSet[Executor] = weakref.WeakSet()


class _Item:
    """One submission."""

    __slots__ = ("args", "function", "future", "kwargs", "ref", "settled")

    def __init__(
        self, function: RemoteFunction, args: tuple[Any, ...], kwargs: dict[str, Any], future: Future[Any]
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.future = future
        self.ref: ObjectRef[Any] | None = None
        self.settled = False


class Future(concurrent.futures.Future[T]):
    """What `Executor.submit` returns. Waiting for it inside a task lends the task's CPU to others."""

    _executor: Executor | None = None
    _item: _Item | None = None

    def result(self, timeout: float | None = None) -> T:
        """Return what the call returned; wait for it.

        Args:
            timeout: seconds to wait; None for ever.

        Raises:
            TimeoutError: it is not there in time.
            CancelledError: the future was cancelled.
            Exception: what the call raised, with the task's failure as its `__cause__`.
        """
        return super().result(self._wait(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, None if it did not; as `result` otherwise."""
        return super().exception(self._wait(timeout))

    def _wait(self, timeout: float | None) -> float | None:
        """Help the executor until the call is done; return what is left of the time."""
        timeout = patience("timeout", timeout)
        if self._executor is None or self._item is None or self.done():
            return timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        self._executor._attend(self._item, deadline)
        return None if deadline is None else max(0.0, deadline - time.monotonic())


class Executor(concurrent.futures.Executor):
    """Run calls as tasks, behind the interface of `concurrent.futures.ProcessPoolExecutor`.

    A worker that dies fails the one call that it ran (after the retries of the task), with WorkerCrashedError.

    Args:
        max_workers: how many calls run at once; None for as many as the cluster has room for.
        remote_options: options of the tasks, as in `f.options(...)`: `num_cpus=2`, `max_retries=0`.

    Raises:
        ValueError: `max_workers` is below 1, or an option is unknown or bad.

    Example:
        >>> with Executor() as executor:  # doctest: +SKIP
        ...     list(executor.map(pow, [2, 3], [5, 2]))
        [32, 9]
    """

    def __init__(self, max_workers: int | None = None, **remote_options: Any) -> None:
        if max_workers is not None:
            max_workers = whole("max_workers", max_workers, least=1, expected="an int of 1 or more, or None")
        self._max_workers = max_workers
        self._options = TaskOptions.from_kwargs(**remote_options)
        self._apply = RemoteFunction(_apply, self._options)
        self._functions: OrderedDict[int, tuple[Callable[..., Any], RemoteFunction | None]] = OrderedDict()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[_Item] = deque()
        self._refused: deque[tuple[_Item, Exception]] = deque()  # not sent, and their futures do not know yet
        self._under_way: dict[ObjectRef[Any], _Item] = {}
        self._unsettled = 0  # items that wait, are under way, or whose future is just being set
        self._is_shut_down = False
        self._ended: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._cpus = 0.0
        self._cpus_at = 0.0

    # -- submitting --------------------------------------------------------------------------------------------------

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run `fn(*args, **kwargs)` as a task; a ref among the arguments is replaced by its value.

        Raises:
            RuntimeError: the executor was shut down.
        """
        with self._lock:
            future: Future[T] = self._submit(*self._task(fn, args), kwargs)
        self._fail_refused()
        return future

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """Return an iterator over `fn(*each)` for what `zip(*iterables)` gives, in order; all is submitted at once.

        Args:
            fn: what to call.
            iterables: its arguments.
            timeout: seconds from now on by which a result must be there when it is asked for.
            chunksize: how many calls make up one task.

        Raises:
            ValueError: `chunksize` is below 1.
            RuntimeError: the executor was shut down.
            TimeoutError: by the iterator: a result is not there in time.
            Exception: by the iterator: what a call raised. What has not begun then is cancelled.
        """
        chunksize = whole("chunksize", chunksize, least=1, expected="an int of 1 or more")
        timeout = patience("timeout", timeout)
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)

        def call_each(calls: list[tuple[Any, ...]]) -> list[T]:
            return [fn(*each) for each in calls]

        calls = zip(*iterables)  # noqa: B905  as long as the shortest, like the standard library's
        chunks = iter(lambda: list(itertools.islice(calls, chunksize)), [])
        with self._lock:
            self._functions[id(call_each)] = call_each, None  # known: there are several calls of it
        return itertools.chain.from_iterable(super().map(call_each, chunks, timeout=timeout))

    def _task(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> tuple[RemoteFunction, tuple[Any, ...]]:
        """Return the remote function and its arguments for a call.

        What is submitted again and again becomes a remote function, which is pickled once. The first time it travels as
        an argument: a lambda that is made for each call would else leave one function after the other in the store.
        """
        if isinstance(fn, RemoteFunction):
            return fn, args
        if not hasattr(fn, "__code__"):
            return self._apply, (fn, *args)
        known = self._functions.get(id(fn))
        if known is None:
            self._functions[id(fn)] = fn, None
            if len(self._functions) > REMEMBERED:
                self._functions.popitem(last=False)
            return self._apply, (fn, *args)
        function = known[1]
        if function is None:
            function = RemoteFunction(fn, self._options)
            self._functions[id(fn)] = fn, function
        self._functions.move_to_end(id(fn))
        return function, args

    def _submit(self, function: RemoteFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()
        item = _Item(function, args, kwargs, future)
        future._executor, future._item = self, item
        if not self._unsettled:
            self._begin()
        self._unsettled += 1
        self._waiting.append(item)
        self._send()
        return future

    def _begin(self) -> None:
        """There is something to do: have a session, and what is needed to come to an end with it."""
        current.client()
        _open.add(self)
        # Registered again and again: it must run before the session's own, and those run that were registered last.
        atexit.unregister(_finish_all)
        atexit.register(_finish_all)

    # -- under way ---------------------------------------------------------------------------------------------------

    def _limit(self) -> int:
        """Return how many tasks may be under way."""
        if self._max_workers is not None:
            return self._max_workers
        now = time.monotonic()
        if now >= self._cpus_at:
            self._cpus = cluster_resources().get("CPU", 1.0)
            self._cpus_at = now + 5.0
        each = self._options.num_cpus
        # One more than can run, so that an executor that is done finds work.
        slots = self._cpus / max(1.0 if each is None else each, 1 / 16) + 1
        plan = self._waiting[0].function._plan if self._waiting else None
        if plan is not None and plan.mean is not None:
            slots = max(slots, AHEAD_SECONDS * self._cpus / max(plan.mean, 1e-6))
        return max(1, min(MAX_UNDER_WAY, int(slots)))

    def _send(self) -> None:
        """Make tasks of what waits, as many as may be under way. With the lock."""
        try:
            limit = self._limit() if self._waiting else 0
        except RabbitryError as error:  # the session has ended
            while self._waiting:
                item = self._waiting.popleft()
                if item.future.set_running_or_notify_cancel():
                    self._refused.append((item, error))
                else:
                    self._forget(item)
            return
        while self._waiting and len(self._under_way) < limit:
            item = self._waiting.popleft()
            if not item.future.set_running_or_notify_cancel():
                self._forget(item)
                continue
            try:
                ref = item.function.remote(*item.args, **item.kwargs)
            except Exception as error:  # noqa: BLE001  arguments that do not fit, or cannot be pickled: the call's failure
                self._refused.append((item, error))
                continue
            item.ref = ref
            item.args, item.kwargs = (), {}
            self._under_way[ref] = item
            self._ensure_thread()
            current.client().on_ready(ref, lambda item=item: self._ended.put(item))  # type: ignore[misc]

    def _fail_refused(self) -> None:
        """Set the futures of what could not be sent. Without the lock."""
        while True:
            try:
                item, error = self._refused.popleft()
            except IndexError:
                return
            item.future.set_exception(error)
            with self._lock:
                self._forget(item)

    def _forget(self, item: _Item) -> None:
        item.settled = True
        self._unsettled -= 1
        self._changed.notify_all()

    def _settle(self, item: _Item) -> None:
        """A task has ended: set its future, and send what waits for its place. Any thread; the second time nothing."""
        with self._lock:
            if item.settled or item.ref is None:
                return
            item.settled = True
            ref = item.ref
            del self._under_way[ref]
            self._send()
        self._fail_refused()
        client = current.peek()
        if self._waiting and client is not None:
            client.outbox.flush()
        try:
            value = get(ref)
        except Exception as error:  # noqa: BLE001  whatever the call raised is its outcome
            item.future.set_exception(original_error(error))
        else:
            item.future.set_result(value)
        item.ref = None
        with self._lock:
            self._unsettled -= 1
            self._changed.notify_all()

    def _attend(self, item: _Item, deadline: float | None) -> None:
        """Wait until `item` is done, or what it waits for; settle what is ready."""
        while not item.future.done():
            with self._lock:
                ref = item.ref
                others = list(self._under_way)
            if ref is not None and ref not in others:
                return  # another thread is about to set the future
            refs = [ref] if ref is not None else others
            if not refs:
                return
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready, _ = wait(refs, num_returns=1, timeout=left)
            if not ready:
                return
            self._settle_ready(ready)

    def _settle_ready(self, refs: list[ObjectRef[Any]]) -> None:
        for ref in refs:
            item = self._under_way.get(ref)
            if item is not None:
                self._settle(item)

    def _ensure_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="rabbitry-executor", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        """Body of the thread: settle what nobody waits for."""
        current.start_none_here()
        while True:
            try:
                item = self._ended.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                item = None
            if item is not None:
                self._settle(item)
                continue
            with self._lock:
                if not self._unsettled:
                    self._thread = None
                    return

    # -- the end -----------------------------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls.

        Args:
            wait: return when all futures are done. Else they are done in the background, as long as the session lives.
            cancel_futures: cancel those whose task was not sent yet.
        """
        dropped: list[_Item] = []
        with self._lock:
            self._is_shut_down = True
            if cancel_futures:
                dropped, self._waiting = list(self._waiting), deque()
        for item in dropped:
            item.future.cancel()
            item.future.set_running_or_notify_cancel()
            with self._lock:
                self._forget(item)
        if wait:
            self._finish()

    def interrupt(self) -> None:
        """Cancel the tasks that were sent; those that run get a KeyboardInterrupt (see `rabbitry.cancel`).

        Their futures fail with TaskCancelledError.
        """
        with self._lock:
            refs = list(self._under_way)
        for ref in refs:
            cancel(ref)

    def _finish(self) -> None:
        while True:
            with self._lock:
                refs = list(self._under_way)
            if not refs:
                break
            self._settle_ready(wait(refs, num_returns=1)[0])
        with self._lock:
            self._changed.wait_for(lambda: not self._unsettled)
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._ended.put(None)
            thread.join()
        _open.discard(self)


def _apply(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return fn(*args, **kwargs)


def _finish_all() -> None:
    """The program ends: what was submitted is done first, as with the standard library's executors."""
    for executor in list(_open):
        if current.peek() is not None:
            executor.shutdown()
