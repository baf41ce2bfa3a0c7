"""A meddler between the driver and its broker: messages go out twice, and tasks in another order."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rabbitry import current
from rabbitry_broker import queue_names as names

HELD_BACK = 12  # messages at most
HOLD_SECONDS = 0.2


class Meddler:
    """Stands in for a publisher: sends every message once or twice, and tasks in any order.

    Args:
        publisher: sends what is let through.
        random_source: decides.
    """

    def __init__(self, publisher: Any, random_source: random.Random) -> None:
        self._publisher = publisher
        self._random = random_source
        self._held: list[tuple[str, bytes, dict[str, Any]]] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.doubled = 0
        self._thread = threading.Thread(target=self._run, name="meddler")
        self._thread.start()

    def publish(self, queue: str, body: bytes, **options: Any) -> None:
        """Send a message at once, or some time; calls to an actor keep their order, which RabbitMQ keeps too."""
        if self._random.random() < 0.5:
            self.doubled += 1
            self._pass_on(queue, body, {key: value for key, value in options.items() if key == "priority"})
        self._pass_on(queue, body, options)

    def _pass_on(self, queue: str, body: bytes, options: dict[str, Any]) -> None:
        if names.is_exclusive(queue) or self._ended.is_set():
            self._publisher.publish(queue, body, **options)
            return
        with self._lock:
            self._held.append((queue, body, options))
        if len(self._held) >= HELD_BACK:
            self._let_go()

    def _let_go(self) -> None:
        with self._lock:
            held, self._held = self._held, []
        self._random.shuffle(held)
        for queue, body, options in held:
            self._publisher.publish(queue, body, **options)

    def _run(self) -> None:
        while not self._ended.wait(HOLD_SECONDS):
            self._let_go()

    def end(self) -> None:
        """Let everything through."""
        self._ended.set()
        self._thread.join()
        self._let_go()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._publisher, name)


@contextmanager
def meddling(random_source: random.Random) -> Iterator[Meddler]:
    """Put a meddler into the place of the driver's publisher."""
    outbox: Any = current.client().outbox
    genuine = outbox._publisher
    meddler = outbox._publisher = Meddler(genuine, random_source)
    try:
        yield meddler
    finally:
        meddler.end()
        outbox._publisher = genuine
