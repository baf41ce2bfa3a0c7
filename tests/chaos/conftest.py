"""Fixtures of the chaos suite: a seed that is printed, servers of its own, a stage and a ledger.

| environment | means |
|---|---|
| `RABBITRY_CHAOS_SEED` | the seed; else a random one, which every test prints |
| `RABBITRY_CHAOS_LONG` | `1` for the long form (`make chaos`): more work, more faults |

`pytest -m chaos tests/chaos` runs all scenarios in their short form; `make test` those that are marked `in_every_run`.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.across_workers import say_at_the_end
from tests.chaos.ledger import Ledger
from tests.chaos.leftovers import assert_nothing_left
from tests.chaos.stage import Stage
from tests.chaos.workload import Workload
from tests.servers import RabbitMQServer, RedisServer

LONG = os.environ.get("RABBITRY_CHAOS_LONG") == "1"
SHORT_TIMEOUT = 120  # seconds for one scenario of the short form; each takes less than 10 on an idle machine
LONG_TIMEOUT = 600  # seconds for one scenario of the long form


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here, and give the long form the time it needs; what is `in_every_run` is in `make test` too."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.chaos)
            item.add_marker(pytest.mark.timeout(LONG_TIMEOUT if LONG else SHORT_TIMEOUT))


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of this run."""
    given = os.environ.get("RABBITRY_CHAOS_SEED")
    seed = int(given) if given else random.SystemRandom().randrange(1_000_000)
    say_at_the_end("chaos", f"RABBITRY_CHAOS_SEED={seed}")  # each test prints it
    return seed


@pytest.fixture(scope="session")
def servers(session_directory: Path) -> Iterator[tuple[RabbitMQServer, RedisServer]]:
    """A broker and a store to be killed at will; tests leave them running."""
    rabbitmq = RabbitMQServer(session_directory / "chaos-rabbitmq")
    redis = RedisServer(session_directory / "chaos-redis", appendonly=True, appendfsync="always")
    try:
        rabbitmq.start()
        redis.start()
        yield rabbitmq, redis
    finally:
        rabbitmq.kill()
        redis.kill()


@pytest.fixture
def stage(servers: tuple[RabbitMQServer, RedisServer], seed: int, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A fresh cluster of two nodes with a driver; its nodes' logs are printed for a test that fails."""
    print(f"RABBITRY_CHAOS_SEED={seed}")
    rabbitmq, redis = servers
    rabbitmq.start()
    redis.start()
    stage = Stage(rabbitmq, redis, seed)
    failed = request.session.testsfailed
    try:
        stage.start()
        yield stage
        if not (call_failed(request) or stage.forged):
            assert_nothing_left(stage)
    finally:
        if request.session.testsfailed > failed or sys.exc_info()[0] is not None or call_failed(request):
            print(stage.logs())
        stage.stop()


@pytest.fixture
def ledger(session_directory: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    directory = Path(tempfile.mkdtemp(prefix="ledger-", dir=session_directory))
    yield Ledger(directory)
    shutil.rmtree(directory)


@pytest.fixture
def workload(stage: Stage, ledger: Ledger) -> Workload:
    """A workload of all kinds on the stage."""
    return Workload(ledger, stage.random)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Remember on the test whether its call failed."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call":
        item.stash[_FAILED] = report.failed


_FAILED = pytest.StashKey[bool]()


def call_failed(request: pytest.FixtureRequest) -> bool:
    """True if the test itself has failed."""
    return bool(request.node.stash.get(_FAILED, False))
