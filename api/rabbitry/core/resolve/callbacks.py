"""Callbacks on objects: run once the object is here, on a thread that lives while there is something to wait for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from rabbitry.core.lives.references import References
from rabbitry.core.resolve.values import Values
from rabbitry.exceptions import RabbitrySystemError
from rabbitry_broker.errors import RabbitryBrokerError

RESOLVER_IDLE_SECONDS = 5.0  # without a callback to wait for, then its thread ends
RESOLVER_RETRY_SECONDS = 0.2
LOOK_SECONDS = 1.0  # a wait of its thread, after which it begins another one

log = logging.getLogger("rabbitry")


class Waits(Protocol):
    """Waits for objects; see `Inbox`."""

    def wait(self, done: Callable[[], bool], wanted: Callable[[], list[bytes]], deadline: float | None) -> bool:
        """Wait until `done()` or `deadline`; True if done."""

    def subscribe(self, object_ids: list[bytes], deadline: float | None = None) -> None:
        """Ask to be told of objects that nobody tells us of anyway."""


class Callbacks:
    """Owns the resolver thread. Any thread may call anything.

    Args:
        references: its lock guards the callbacks.
        values: has the callbacks, and finds those that are due.
        inbox: waits for objects.
        send_waiting: sends what waits in the outbox: it may make what is waited for.
    """

    def __init__(
        self, references: References, values: Values, inbox: Waits, *, send_waiting: Callable[[], None]
    ) -> None:
        self._references = references
        self._values = values
        self._inbox = inbox
        self._send_waiting = send_waiting
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._came = threading.Event()
        self._closed = False

    def when_ready(self, object_id: bytes, callback: Callable[[], None]) -> None:
        """Run `callback` once the object is here: on the resolver thread, or at once on this one if it is here."""
        with self._references.lock:
            here = object_id in self._values.records or self._closed
            if not here:
                self._values.callbacks.setdefault(object_id, []).append(callback)
        if here:
            run(callback)
            return
        self._inbox.subscribe([object_id])
        with self._lock:
            self._came.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._resolve, name="rabbitry-resolver", daemon=True)
                self._thread.start()

    def _resolve(self) -> None:
        """Body of the resolver thread: wait while callbacks are outstanding, end when idle for a while.

        Callbacks run here, while this thread does not lead: they may wait for other objects.
        """
        due, callbacks = self._values.due, self._values.callbacks
        told = False
        while True:
            while due:
                run(due.popleft())
            if self._closed:
                return
            if callbacks:
                try:
                    self._send_waiting()
                    self._inbox.wait(lambda: bool(due) or not callbacks, self._awaited, time.monotonic() + LOOK_SECONDS)
                    told = False
                except (RabbitryBrokerError, RabbitrySystemError) as error:
                    if not self._closed:
                        # Not each time: it is tried again several times a second.
                        log.log(logging.DEBUG if told else logging.WARNING, "callbacks on objects wait: %s", error)
                        told = True
                        time.sleep(RESOLVER_RETRY_SECONDS)
                continue
            self._came.clear()
            if callbacks or due or self._came.wait(RESOLVER_IDLE_SECONDS):
                continue
            with self._lock:
                if not callbacks and not due:
                    self._thread = None
                    return

    def _awaited(self) -> list[bytes]:
        with self._references.lock:
            return list(self._values.callbacks)

    def close(self) -> None:
        """The session ends: callbacks run and find out. To be called before the inbox is closed."""
        with self._references.lock:
            self._closed = True
            for callbacks in self._values.callbacks.values():
                self._values.due.extend(callbacks)
            self._values.callbacks.clear()
        self._came.set()


def run(callback: Callable[[], None]) -> None:
    """Run a ready callback, wherever the completion was noticed."""
    try:
        callback()
    except Exception:
        log.exception("a callback on a ready object failed")
