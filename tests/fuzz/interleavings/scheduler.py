"""A deterministic scheduler: of the threads of a test one runs at a time; a seed decides which, at each instruction.

Threads are real ones that pass a baton. They may be switched at each operation of the locks, conditions and events
made here, at each call that waits, and at each bytecode instruction of the modules that are *watched*. Time is
virtual: it passes when all threads wait, up to the first that waits for a time. So a wake-up that got lost shows
itself at once: as time that passed although there was work, or as a deadlock, with the stacks of all threads.

Half of the seeds give orders in which each switch is chance. The other half are those of PCT (Burckhardt and others,
"A randomized scheduler with probabilistic guarantees of finding bugs", 2010): threads have priorities, and now and then
the one that runs becomes the last of all, so that others get far while it stands at one instruction.

    scheduler = Scheduler(seed, watched=(resolve,))
    scheduler.spawn(reader, "reader")
    scheduler.run()                      # raises what a thread raised; Deadlock if none can go on
    assert scheduler.now < 1

`Scheduler.threading` and `Scheduler.time` stand in for the modules of those names in the watched modules.
"""

from __future__ import annotations

import random
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any

STEPS_MAX = 200_000
"""Switches after which a test counts as running in circles."""

DEMOTIONS = 0.1
"""Share of the switches at which the running thread becomes the last, in orders by priority."""

REAL_SECONDS = 20.0
"""That a thread may take between two switches: longer means that it waits for a lock that is not the scheduler's."""


class Deadlock(AssertionError):
    """No thread can go on, or they do for ever."""


class _End(BaseException):
    """Raised in threads when the test is over."""


class _Thread:
    def __init__(self, scheduler: Scheduler, target: Callable[[], Any], name: str, daemon: bool) -> None:
        self.name = name
        self.daemon = daemon
        self.priority = scheduler.new_priority()
        self.ended = False
        self.ready: Callable[[], bool] | None = None  # what it waits for
        self.deadline: float | None = None
        self.baton = threading.Semaphore(0)
        self.error: BaseException | None = None
        self._scheduler = scheduler
        self._target = target
        self.real = threading.Thread(target=self._run, name=name, daemon=True)
        self.real.start()

    def _run(self) -> None:
        self.baton.acquire()
        try:
            if not self._scheduler.over:
                sys.settrace(self._scheduler.trace)
                self._target()
        except _End:
            pass
        except BaseException as error:
            self.error = error
        finally:
            sys.settrace(None)
            self.ended = True
            self._scheduler.next_after(self)

    def runnable(self, now: float) -> bool:
        if self.ended:
            return False
        if self.ready is None:
            return True
        return self.ready() or (self.deadline is not None and now >= self.deadline)


class Scheduler:
    """Runs threads in an order that a seed decides.

    Args:
        seed: of the order.
        watched: modules in whose code threads may be switched at each instruction.
        share: of the instructions at which another thread may get its turn; None for one that the seed decides.

    Attributes:
        now: virtual seconds.
        over: the test has ended, well or not.
    """

    def __init__(self, seed: int, watched: tuple[ModuleType, ...] = (), *, share: float | None = None) -> None:
        self.now = 0.0
        self.over = False
        self._chance = random.Random(seed)
        self._share = self._chance.choice([0.03, 0.1, 0.3]) if share is None else share
        self._by_priority = self._chance.random() < 0.5
        self._files = frozenset(module.__file__ for module in watched)
        self._threads: list[_Thread] = []
        self._current: _Thread | None = None
        self._finished = threading.Event()
        self._failure: BaseException | None = None
        self._steps = 0
        self.threading = SimpleNamespace(
            Lock=lambda: Lock(self),
            RLock=lambda: Lock(self, reentrant=True),
            Condition=lambda lock=None: Condition(self, lock),
            Event=lambda: Event(self),
            Thread=lambda **options: Thread(self, **options),
            current_thread=lambda: self._current,
            get_ident=lambda: id(self._current),
        )
        self.time = SimpleNamespace(monotonic=lambda: self.now, time=lambda: self.now, sleep=self.sleep)

    def new_priority(self) -> float:
        """Return the priority of a new thread."""
        return self._chance.random()

    def spawn(self, target: Callable[[], Any], name: str = "", *, daemon: bool = False) -> _Thread:
        """Add a thread. The test is over when all that are no daemons have ended."""
        thread = _Thread(self, target, name or f"thread-{len(self._threads)}", daemon)
        self._threads.append(thread)
        return thread

    def run(self) -> None:
        """Run all threads to their end.

        Raises:
            Deadlock: they cannot go on.
            BaseException: what a thread raised.
        """
        self._pass_on(None)
        steps = self._steps
        while not self._finished.wait(REAL_SECONDS):
            if self._steps != steps:  # the machine has much else to do
                steps = self._steps
                continue
            self._fail(Deadlock(f"a thread waits for something that is not the scheduler's:\n{self.stacks()}"))
        self.over = True
        for thread in self._threads:
            thread.ready = None
            thread.baton.release()
        for thread in self._threads:
            thread.real.join(REAL_SECONDS)
        errors = [thread.error for thread in self._threads if thread.error is not None]
        if errors:
            raise errors[0]
        if self._failure is not None:
            raise self._failure

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        """What `sys.settrace` takes: follows frames of the watched modules."""
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes = True
        return self._instruction

    def _instruction(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "opcode" and self._chance.random() < self._share:
            self.switch()
        return self._instruction

    def switch(self) -> None:
        """Let chance decide which thread goes on."""
        self.block(None)

    def block(self, ready: Callable[[], bool] | None, timeout: float | None = None) -> bool:
        """Have the calling thread wait until `ready()`, or for a virtual time; True if it is ready."""
        thread = self._current
        if self.over or thread is None or thread.real is not threading.current_thread():
            if self.over and thread is not None and threading.current_thread() is not threading.main_thread():
                raise _End
            return ready is None or ready()  # the test itself, before or after the run
        tracing = sys.gettrace()
        sys.settrace(None)
        if self._chance.random() < DEMOTIONS:
            thread.priority = min(each.priority for each in self._threads) - 1
        thread.ready, thread.deadline = ready, None if timeout is None else self.now + timeout
        self._pass_on(thread)
        thread.ready = None
        sys.settrace(tracing)
        if self.over:
            raise _End
        return ready is None or ready()

    def sleep(self, seconds: float) -> None:
        """Stand in for `time.sleep`."""
        self.block(lambda: False, max(0.0, seconds))

    def next_after(self, thread: _Thread) -> None:
        """A thread has ended."""
        if thread.error is not None or all(each.ended or each.daemon for each in self._threads):
            self.over = True
            self._finished.set()
        elif not self.over:
            self._pass_on(thread)

    def _pass_on(self, thread: _Thread | None) -> None:
        self._steps += 1
        if self._steps > STEPS_MAX:
            self._fail(Deadlock(f"no end after {STEPS_MAX} switches, {self.now:g} s:\n{self.stacks()}"))
            return
        chosen = self._choose()
        if chosen is None:
            self._fail(Deadlock(f"no thread can go on after {self.now:g} s:\n{self.stacks()}"))
            if thread is not None and not thread.ended:
                thread.baton.acquire()
            return
        self._current = chosen
        if chosen is thread:
            return
        chosen.baton.release()
        if thread is not None and not thread.ended:
            thread.baton.acquire()

    def _choose(self) -> _Thread | None:
        while True:
            runnable = [thread for thread in self._threads if thread.runnable(self.now)]
            if runnable and self._by_priority:
                return max(runnable, key=lambda thread: thread.priority)
            if runnable:
                return self._chance.choice(runnable)
            deadlines = [each.deadline for each in self._threads if not each.ended and each.deadline is not None]
            if not deadlines:
                return None
            self.now = max(self.now, min(deadlines))

    def _fail(self, failure: BaseException) -> None:
        self._failure = self._failure or failure
        self.over = True
        self._finished.set()

    def stacks(self) -> str:
        """Return where all threads are."""
        frames = sys._current_frames()
        parts = []
        for thread in self._threads:
            frame = frames.get(thread.real.ident or 0)
            if frame is not None and not thread.ended:
                lines = "".join(traceback.format_stack(frame)[-8:-2])
                parts.append(f"thread {thread.name}:\n{lines}")
        return "\n".join(parts)


class Lock:
    """Stands in for `threading.Lock` and `RLock`."""

    def __init__(self, scheduler: Scheduler, *, reentrant: bool = False) -> None:
        self._scheduler = scheduler
        self._reentrant = reentrant
        self._owner: object = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """See `threading.Lock.acquire`."""
        scheduler = self._scheduler
        scheduler.switch()
        me = scheduler._current
        if self._owner is not None and not (self._reentrant and self._owner is me):
            if not blocking:
                return False
            if not scheduler.block(lambda: self._owner is None, None if timeout < 0 else timeout):
                return False
        self._owner = me if me is not None else self
        self._depth += 1
        return True

    def release(self) -> None:
        """See `threading.Lock.release`."""
        if self._owner is None:
            raise RuntimeError("release of a lock that is free")
        self._depth -= 1
        if not self._depth:
            self._owner = None
        self._scheduler.switch()

    def locked(self) -> bool:
        """See `threading.Lock.locked`."""
        return self._owner is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        if not self._scheduler.over or self._owner is not None:
            self.release()


class Condition:
    """Stands in for `threading.Condition`."""

    def __init__(self, scheduler: Scheduler, lock: Lock | None = None) -> None:
        self._scheduler = scheduler
        self._lock = lock or Lock(scheduler, reentrant=True)
        self._waiting: list[list[bool]] = []
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def wait(self, timeout: float | None = None) -> bool:
        """See `threading.Condition.wait`."""
        told = [False]
        self._waiting.append(told)
        self._lock.release()
        try:
            return self._scheduler.block(lambda: told[0], timeout)
        finally:
            if told in self._waiting:
                self._waiting.remove(told)
            self._lock.acquire()

    def notify(self, n: int = 1) -> None:
        """See `threading.Condition.notify`."""
        for told in self._waiting[:n]:
            told[0] = True
            self._waiting.remove(told)

    def notify_all(self) -> None:
        """See `threading.Condition.notify_all`."""
        self.notify(len(self._waiting))

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.__exit__()


class Event:
    """Stands in for `threading.Event`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._set = False

    def is_set(self) -> bool:
        """See `threading.Event.is_set`."""
        return self._set

    def set(self) -> None:
        """See `threading.Event.set`."""
        self._set = True
        self._scheduler.switch()

    def clear(self) -> None:
        """See `threading.Event.clear`."""
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        """See `threading.Event.wait`."""
        return self._scheduler.block(self.is_set, timeout)


class Thread:
    """Stands in for `threading.Thread`."""

    def __init__(
        self, scheduler: Scheduler, *, target: Callable[..., Any], name: str = "", daemon: bool = False, args: Any = ()
    ) -> None:
        self._scheduler = scheduler
        self._target = lambda: target(*args)
        self._name, self._daemon = name, daemon
        self._thread: _Thread | None = None

    def start(self) -> None:
        """See `threading.Thread.start`."""
        self._thread = self._scheduler.spawn(self._target, self._name, daemon=self._daemon)
        self._scheduler.switch()

    def is_alive(self) -> bool:
        """See `threading.Thread.is_alive`."""
        return self._thread is not None and not self._thread.ended

    def join(self, timeout: float | None = None) -> None:
        """See `threading.Thread.join`."""
        self._scheduler.block(lambda: not self.is_alive(), timeout)
