"""Tasks that run for longer than RabbitMQ waits for an acknowledgement: an agent takes them into custody."""

from __future__ import annotations

import time

import rabbitry
from tests.chaos.conftest import LONG
from tests.chaos.ledger import Ledger
from tests.chaos.stage import Stage
from tests.chaos.workload import long

TIMEOUT_MS = 10_000 if LONG else 6_500
TASK_SECONDS = 60.0 if LONG else 9.0


def test_tasks_outlast_the_consumer_timeout(stage: Stage, ledger: Ledger):
    # Channels read both when they are opened: those of the nodes are closed, and open anew.
    stage.rabbitmq.evaluate(
        f"application:set_env(rabbit, consumer_timeout, {TIMEOUT_MS}), "
        "application:set_env(rabbit, channel_tick_interval, 1000)."
    )
    stage.close_connections()
    time.sleep(3)
    for number in range(4):
        key = f"long-{number}"
        ledger.add(key, long.options(max_retries=0).remote(ledger.path, key, TASK_SECONDS), TASK_SECONDS, runs=1)
    started = time.monotonic()
    ledger.check(timeout=TASK_SECONDS + 30)
    assert all(count == 1 for count in ledger.effects().values())
    seconds = time.monotonic() - started
    print(f"4 tasks of {TASK_SECONDS:g} s under a consumer_timeout of {TIMEOUT_MS / 1000:g} s took {seconds:.0f} s")
    assert "PRECONDITION_FAILED" not in stage.logs(), "a channel was closed for a delivery that was held too long"
    assert rabbitry.is_initialized()
