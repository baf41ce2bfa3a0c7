"""A small event loop whose state other threads may share, under one lock.

HOT PATH (watched by `benchmarks/`, workloads `async_*`): the agent dispatches tens of thousands of events a second.

Why not asyncio: not for its speed (2.2 us of processor for a pipe that becomes readable, against 1.8 us here; 0.4 of
both are the reading and writing itself), but for its threads. What hangs on an asyncio loop may be touched by the
loop's thread alone, so another thread that publishes would have to hand its message over and wake that one: 40 us until
it runs, and more on a busy machine, against 0.2 us for a lock that is free. Here a thread that publishes takes
`Loop.lock`, writes the socket itself and goes on. And `import asyncio` costs 25 ms more, in every process.

The rules:

- The loop blocks in the poller *without* the lock and dispatches *with* it. Whoever holds the lock may touch whatever
  hangs on the loop (handlers, timers, pika connections), in any thread.
- A handler is called with READ and WRITE as hints. It must cope with a socket that is not ready after all (EAGAIN):
  when a handler starts to ask for WRITE, it is called with WRITE at once, since sockets nearly always are writable,
  and only what could not be written waits for the poller.

The interface is also the one that pika documents as `AbstractSelectorIOLoop` (hence `start`, `add_callback`,
`remove_timeout`), so a Loop can be passed as `custom_ioloop` to `pika.SelectConnection`; pika is not imported here.
"""

from __future__ import annotations

import heapq
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

Handler = Callable[[int, int], object]
Callback = Callable[[], object]

logger = logging.getLogger("rabbitry.loop")

_HAS_EPOLL: Final = hasattr(select, "epoll")
_READ: Final = select.POLLIN
_WRITE: Final = select.POLLOUT
_TROUBLE: Final = select.POLLERR | select.POLLHUP
_INVALID: Final = select.POLLNVAL
_BOTH: Final = _READ | _WRITE

# Cancelled timers stay in the heap until they are due; it is rebuilt when they are so many, and more than half.
_CANCELLED_KEPT: Final = 256


class Timer:
    """A handle on a delayed call; see `Loop.call_later`."""

    __slots__ = ("callback", "order", "when")

    def __init__(self, when: float, order: int, callback: Callback) -> None:
        self.when = when
        self.order = order
        self.callback: Callback | None = callback

    def __lt__(self, other: Timer) -> bool:
        if self.when == other.when:
            return self.order < other.order
        return self.when < other.when


class _Watch:
    """A watched descriptor: what is asked for (`wanted`) and what the poller was told (`told`; 0: nothing)."""

    __slots__ = ("handler", "since", "told", "wanted")

    def __init__(self, handler: Handler, wanted: int, since: int) -> None:
        self.handler = handler
        self.wanted = wanted
        self.told = 0
        self.since = since


class Loop:
    """An event loop over epoll (Linux) or poll.

    One thread calls `run`; every other method may be called by any thread. Handlers, timers and callbacks run on the
    loop's thread with `lock` held. One that raises is logged with its traceback, and the loop goes on.

    Attributes:
        lock: guards all that hangs on the loop; reentrant.
        running: True while a thread is in `run`.
        rest: seconds that `run` lets events gather after each round; 0 for none. For a loop whose events nobody waits
            for as a rule: its thread wakes up once for many. Callbacks, timers and what must be written cut it short.

    Example:
        >>> loop = Loop()
        >>> _ = loop.call_later(0.001, loop.stop)
        >>> loop.run()
        >>> loop.close()
    """

    READ: Final = _READ
    WRITE: Final = _WRITE
    ERROR: Final = _TROUBLE

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._poller: Any = select.epoll() if _HAS_EPOLL else select.poll()
        self._watches: dict[int, _Watch] = {}
        self._changed: dict[int, None] = {}
        self._timers: list[Timer] = []
        self._timers_made = 0
        self._timers_cancelled = 0
        self._callbacks: deque[Callback] = deque()
        self._round = 0
        self._deferring = False
        self._asleep = False
        self._stopping = False
        self._closed = False
        self._thread: int | None = None
        self.running = False
        self.rest = 0.0
        self._restless = 0  # threads that wait for events
        self._resting = False
        self._wake_lock = threading.Lock()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._poller.register(self._wake_reader, _READ)
        self._rested = select.poll()
        self._rested.register(self._wake_reader, _READ)

    # -- running

    def run(self) -> None:
        """Dispatch until `stop` is called (before or after)."""
        self.running = True
        try:
            while not self._stopping:
                self.run_once(None)
                if self.rest:
                    self._rest()
        finally:
            self.running = self._stopping = False
            self._thread = None

    start = run

    def stop(self) -> None:
        """Make `run` return after what it is dispatching. Any thread may call it."""
        self._stopping = True
        self._wake()

    def _rest(self) -> None:
        """Sleep for `rest` seconds, unless there is something to do or somebody waits."""
        with self.lock:
            seconds = self.rest
            if self._timers:
                seconds = min(seconds, self._timers[0].when - time.monotonic())
            if seconds <= 0 or self._restless or any(each.wanted & _WRITE for each in self._watches.values()):
                return
            self._resting = self._asleep = True  # and look for callbacks after that, as in `run_once`
        try:
            if not (self._callbacks or self._stopping):
                self._rested.poll(seconds * 1000)
        finally:
            self._resting = self._asleep = False

    @contextmanager
    def no_rest(self) -> Iterator[None]:
        """While this runs, a thread waits for what the loop does: events are dispatched as they come. Hold the lock."""
        self._restless += 1
        if self._resting:
            self._wake()
        try:
            yield
        finally:
            self._restless -= 1

    def run_once(self, timeout: float | None = 0.0) -> None:
        """Wait for something to happen, and dispatch it.

        Args:
            timeout: seconds to wait at most; None for as long as it takes.
        """
        self._thread = threading.get_ident()
        with self.lock:
            self._round += 1
            if self._changed:
                self._settle()
            timers = self._timers
            while timers and timers[0].callback is None:
                heapq.heappop(timers)
                self._timers_cancelled -= 1
            if timers:
                left = max(0.0, timers[0].when - time.monotonic())
                timeout = left if timeout is None else min(left, timeout)
            # The order matters: a thread that adds a callback looks at `_asleep` after adding, we look for callbacks
            # after setting it. So either we see the callback or it wakes us.
            self._asleep = True
            if self._callbacks or self._stopping:
                timeout = 0.0
        try:
            if _HAS_EPOLL:
                events = self._poller.poll(timeout)
            else:
                events = self._poller.poll(None if timeout is None else int(timeout * 1000 + 0.999))
        finally:
            self._asleep = False
        with self.lock:
            self._deferring = True
            try:
                if events:
                    self._dispatch(events)
                if self._timers:
                    self._run_timers()
                if self._callbacks:
                    self._run_callbacks()
            finally:
                self._deferring = False

    def _dispatch(self, events: list[tuple[int, int]]) -> None:
        watches = self._watches
        this_round = self._round
        for fd, mask in events:
            watch = watches.get(fd)
            # Skip what was added since the poller was asked: the event may be that of an earlier file with the same
            # number. A genuine one is reported again in the next round.
            if watch is None or watch.since == this_round:
                if fd == self._wake_reader:
                    self._drain_wakes()
                continue
            wanted = watch.wanted
            if mask & _TROUBLE:
                mask |= _BOTH
            elif mask & _INVALID:
                logger.error("file descriptor %d was closed while the loop watched it", fd)
                self.remove_handler(fd)
                continue
            mask &= wanted
            if mask:
                try:
                    watch.handler(fd, mask)
                except Exception:
                    logger.exception("handler %r of file descriptor %d failed", watch.handler, fd)

    def _run_timers(self) -> None:
        now = time.monotonic()
        timers = self._timers
        due: list[Timer] = []
        while timers and timers[0].when <= now:
            due.append(heapq.heappop(timers))
        for timer in due:
            callback, timer.callback = timer.callback, None
            if callback is None:
                self._timers_cancelled -= 1
            else:
                self._run_callback(callback)

    def _run_callbacks(self) -> None:
        # Only those that are here now: one that adds itself again must not starve the sockets.
        callbacks = self._callbacks
        for _ in range(len(callbacks)):
            self._run_callback(callbacks.popleft())

    def _run_callback(self, callback: Callback) -> None:
        try:
            callback()
        except Exception:
            logger.exception("callback %r failed", callback)

    def is_current_thread(self) -> bool:
        """True if the calling thread is the one that runs the loop."""
        return self._thread == threading.get_ident()

    # -- callbacks and timers

    def add_callback(self, callback: Callback) -> None:
        """Run `callback` on the loop's thread, soon. Needs no lock; never blocks; safe in a signal handler."""
        self._callbacks.append(callback)
        if self._asleep:
            self._wake()

    def call_later(self, delay: float, callback: Callback) -> Timer:
        """Run `callback` on the loop's thread after `delay` seconds.

        Returns:
            A handle for `remove_timeout`.
        """
        with self.lock:
            self._timers_made += 1
            timer = Timer(time.monotonic() + delay, self._timers_made, callback)
            heapq.heappush(self._timers, timer)
            if self._asleep and self._timers[0] is timer:
                self._wake()
        return timer

    def remove_timeout(self, timer: Timer) -> None:
        """Cancel a delayed call. Nothing happens if it has run or was cancelled."""
        with self.lock:
            if timer.callback is None:
                return
            timer.callback = None
            self._timers_cancelled += 1
            if self._timers_cancelled > _CANCELLED_KEPT and self._timers_cancelled * 2 > len(self._timers):
                self._timers[:] = [kept for kept in self._timers if kept.callback is not None]
                heapq.heapify(self._timers)
                self._timers_cancelled = 0

    # -- descriptors

    def add_handler(self, fd: int, handler: Handler, events: int) -> None:
        """Call `handler(fd, events)` whenever `fd` is ready for any of `events`.

        Args:
            fd: the descriptor; one handler each.
            handler: called on the loop's thread with those of READ and WRITE that are ready. A broken or hung-up
                descriptor counts as ready for all that was asked.
            events: READ, WRITE, both or 0 (none for now). ERROR may be added and changes nothing.

        Raises:
            ValueError: `fd` has a handler.
        """
        with self.lock:
            if fd in self._watches:
                raise ValueError(f"file descriptor {fd} has a handler: update_handler() changes its events")
            watch = _Watch(handler, events & _BOTH, self._round)
            self._watches[fd] = watch
            try:
                self._tell(fd, watch)
            except BaseException:
                del self._watches[fd]
                raise

    def update_handler(self, fd: int, events: int) -> None:
        """Change the events that the handler of `fd` is called for; 0 pauses it.

        Raises:
            KeyError: `fd` has no handler.
        """
        with self.lock:
            watch = self._watches[fd]
            watch.wanted = events & _BOTH
            if watch.wanted != watch.told:
                if self._deferring:
                    # Settled before the loop sleeps: mostly the handler has then written what it had and wants what
                    # it wanted before, and two system calls and a wake-up are saved.
                    self._changed[fd] = None
                else:
                    self._tell(fd, watch)

    def remove_handler(self, fd: int) -> None:
        """Stop watching `fd`. Call it before closing; nothing happens if it has no handler."""
        with self.lock:
            watch = self._watches.pop(fd, None)
            self._changed.pop(fd, None)
            if watch is not None and watch.told:
                # Errors mean that it was closed first, or the loop was: the poller has forgotten it already.
                with suppress(OSError, KeyError, ValueError):
                    self._poller.unregister(fd)

    def write_inline(self, action: Callback) -> None:
        """Run `action`, and let handlers that it makes ask for WRITE do so at once, in the calling thread.

        This is how other threads send through something that lives on the loop without waking its thread. What the
        socket did not take waits for the loop as usual.
        """
        with self.lock:
            if self._deferring:
                action()  # On the loop's thread, or nested: settled by whoever defers.
                return
            # Only what `action` changes: the rest awaits the loop's own thread.
            earlier, self._changed = self._changed, {}
            self._deferring = True
            try:
                action()
            finally:
                self._deferring = False
                if self._changed:
                    self._settle()
                self._changed = earlier

    def _settle(self) -> None:
        """Bring the poller up to date, after letting those write that began to ask for it."""
        self._deferring = True
        try:
            for fd in list(self._changed):
                watch = self._watches.get(fd)
                if watch is not None and watch.wanted & _WRITE & ~watch.told:
                    try:
                        watch.handler(fd, _WRITE)
                    except Exception:
                        logger.exception("handler %r of file descriptor %d failed", watch.handler, fd)
        finally:
            self._deferring = False
        self._settle_masks()

    def _settle_masks(self) -> None:
        changed, self._changed = self._changed, {}
        for fd in changed:
            watch = self._watches.get(fd)
            if watch is not None and watch.wanted != watch.told:
                self._tell(fd, watch)

    def _tell(self, fd: int, watch: _Watch) -> None:
        if not watch.told:
            if watch.wanted:
                self._poller.register(fd, watch.wanted)
        elif watch.wanted:
            self._poller.modify(fd, watch.wanted)
        else:
            # Not a mask of 0: a hung-up descriptor would be reported over and over.
            self._poller.unregister(fd)
        watch.told = watch.wanted
        if (not _HAS_EPOLL and self._asleep) or (self._resting and watch.wanted & _WRITE):
            self._wake()  # poll() looks at its set only when called.

    # -- waking and closing

    def _wake(self) -> None:
        with self._wake_lock:
            if self._closed:
                return
            # Before the write, never after it: whoever then sees False and does not wake, relies on this write.
            self._asleep = False
            with suppress(BlockingIOError):  # The pipe is full of wakes.
                os.write(self._wake_writer, b"\0")

    def _drain_wakes(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._wake_reader, 4096)

    def close(self) -> None:
        """Let go of the poller. Call it after `run` has returned; the watched descriptors stay open."""
        with self.lock, self._wake_lock:
            if self._closed:
                return
            self._closed = True
            self._watches.clear()
            self._changed.clear()
            self._timers.clear()
            self._callbacks.clear()
            if _HAS_EPOLL:
                self._poller.close()
            os.close(self._wake_reader)
            os.close(self._wake_writer)
