"""Messages that arrive twice, and tasks that arrive in another order: a meddler between the driver and its broker.

RabbitMQ itself makes such duplicates: a publisher whose connection breaks before the confirm sends the message again,
and neither copy is marked as redelivered.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import rabbitry
from tests.chaos.ledger import Ledger
from tests.chaos.meddler import Meddler, meddling
from tests.chaos.stage import Stage
from tests.chaos.workload import Counter, Echo, Workload

SUBMISSIONS = 150
CALLS = 100


@pytest.fixture
def meddler(stage: Stage) -> Iterator[Meddler]:
    """The driver's publisher, from here on."""
    with meddling(stage.random) as meddler:
        yield meddler


@pytest.mark.in_every_run
def test_doubled_and_reordered_messages_do_no_harm(meddler: Meddler, workload: Workload):
    for _ in range(10):  # a busy machine has more tasks in each message
        workload.submit(SUBMISSIONS)
        if meddler.doubled > 10:
            break
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
        if number % 4 == 0:
            rabbitry.wait([echo.pid.remote()], timeout=5)  # so that it is not all one message
    ledger.check()
    assert rabbitry.get(counter.increment.remote(), timeout=20) == CALLS + 1
    assert meddler.doubled > 5, "nothing was doubled"
