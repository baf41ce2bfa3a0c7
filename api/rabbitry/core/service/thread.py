"""The one background thread of a client.

A client without work in hand starts none: executors are forked by the hundred, and most never submit anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from rabbitry.core.service.doorbell import Doorbell
from rabbitry.core.service.steps import Steps

SERVICE_SECONDS = 0.05  # between two rounds while there is something to watch
SERVICE_RETRY_SECONDS = 0.05
SERVICE_IDLE_SECONDS = 0.4  # an actor whose last handle goes is gone within a second
EXECUTOR_IDLE_SECONDS = 1.6
SEND_DELAY_SECONDS = 0.001
TIDY_DELAY_SECONDS = 0.02  # what nobody waits for: fifty scripts a second at most let go of results, whatever the rate
JOIN_SECONDS = 2.0


def always() -> bool:
    """Return True: a step of every round."""
    return True


class Step:
    """One thing that the service does in a round, if there is reason to.

    Attributes:
        name: what the log calls it.
        run: does it; what it raises keeps no other step from its turn.
        when: tells whether there is reason to.
        every: seconds from one time to the next, at least; 0 for each round.
        at: when it is due next (monotonic).
    """

    __slots__ = ("at", "every", "name", "run", "when")

    def __init__(
        self,
        name: str,
        run: Callable[[], object],
        *,
        when: Callable[[], object] = always,
        every: float = 0.0,
        at: float = 0.0,
    ) -> None:
        self.name = name
        self.run = run
        self.when = when
        self.every = every
        self.at = at


class ServiceThread:
    """Runs the steps of a client's service. `start` and `close` may be called by any thread.

    Args:
        doorbell: wakes it.
        at_once: tells whether something is to be done soon.
        in_flight: tells whether something is to be watched.
        executor: an executor that waits looks less and less often: a thousand blocked ones must not keep a machine
            busy.
    """

    def __init__(
        self,
        doorbell: Doorbell,
        *,
        at_once: Callable[[], object],
        in_flight: Callable[[], object],
        executor: bool,
    ) -> None:
        self._doorbell = doorbell
        self._at_once = at_once
        self._in_flight = in_flight
        self._executor = executor
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._runner = Steps("background work of this process", lambda: self._closed)
        self.steps: Sequence[Step] = ()
        doorbell.start = self.start

    @property
    def running(self) -> bool:
        """True once it was started."""
        return self._thread is not None

    def start(self) -> None:
        """Start the thread if it does not run yet."""
        with self._start_lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._serve, name="rabbitry-client", daemon=True)
                self._thread.start()
                self._doorbell.start = None

    def _serve(self) -> None:
        doorbell = self._doorbell
        pause = SERVICE_SECONDS
        while not self._closed:
            pause = self.next_pause(pause)
            doorbell.wait(pause)
            if self._closed:
                return
            if doorbell.is_rung():
                doorbell.let_gather(SEND_DELAY_SECONDS, TIDY_DELAY_SECONDS)
                doorbell.answer()
            if not self.run_once():
                time.sleep(SERVICE_RETRY_SECONDS)

    def next_pause(self, pause: float) -> float:
        """Return how long to wait for the doorbell, after a wait of `pause` seconds."""
        at_once = self._doorbell.is_rung() or self._at_once()
        if self._executor:
            return SERVICE_SECONDS if at_once else min(2 * pause, EXECUTOR_IDLE_SECONDS)
        return SERVICE_SECONDS if at_once or self._in_flight() else SERVICE_IDLE_SECONDS

    def run_once(self) -> bool:
        """Run one round; False if a step failed (it was told, and comes again)."""
        good = True
        for step in self.steps:
            if step.every:
                now = time.monotonic()
                if now < step.at or not step.when():
                    continue
                step.at = now + step.every
            elif not step.when():
                continue
            good &= self._runner.run(step.name, step.run)
        return good

    def stop(self) -> None:
        """Have the thread end after its step, and start none any more."""
        self._closed = True
        self._doorbell.ring()

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self.stop()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(JOIN_SECONDS)
