"""Messages that arrive twice, and tasks that arrive in another order: a meddler between the driver and its broker.

RabbitMQ itself makes such duplicates: a publisher whose connection breaks before the confirm sends the message again,
and neither copy is marked as redelivered.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import warren
from tests.chaos.ledger import Ledger
from tests.chaos.stage import Stage
from tests.chaos.workload import Counter, Echo, Workload
from warren import current
from warren_broker.queues import names

SUBMISSIONS = 150
HELD_BACK = 12  # messages at most
HOLD_SECONDS = 0.2
CALLS = 100


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


@pytest.fixture
def meddler(stage: Stage) -> Iterator[Meddler]:
    """The driver's publisher, from here on."""
    client = current.client()
    genuine = client.publisher
    meddler = Meddler(genuine, stage.random)
    client.publisher = meddler  # type: ignore[assignment]
    try:
        yield meddler
    finally:
        meddler.end()
        client.publisher = genuine


@pytest.mark.in_every_run
def test_doubled_and_reordered_messages_do_no_harm(meddler: Meddler, workload: Workload):
    workload.submit(SUBMISSIONS)
    meddler.end()
    workload.finish()
    assert meddler.doubled > 10, "nothing was doubled"


@pytest.mark.in_every_run
def test_a_call_that_arrives_twice_runs_once(meddler: Meddler, ledger: Ledger):
    echo, counter = Echo.remote(ledger.path), Counter.remote()
    for number in range(CALLS):
        key = f"call-{number}"
        ledger.add(key, echo.say.remote(key, number), number, runs=1)
        ledger.add(f"count-{number}", counter.increment.remote(), number + 1)
        if number % 10 == 0:
            warren.wait([echo.pid.remote()], timeout=5)  # so that it is not all one message
    ledger.check()
    assert warren.get(counter.increment.remote(), timeout=20) == CALLS + 1
    assert meddler.doubled > 5, "nothing was doubled"
