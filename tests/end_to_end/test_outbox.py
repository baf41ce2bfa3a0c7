"""What was submitted and could not be sent is kept: a full Redis, or a server that is away, lose no task."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

import rabbitry
from rabbitry import current
from rabbitry.exceptions import RabbitrySystemError
from rabbitry_broker.errors import BrokerError
from rabbitry_broker.shared_memory import ObjectStoreFull

TASKS = 30


@rabbitry.remote
def triple(value):
    return 3 * value


@rabbitry.remote
def add(left, right):
    return left + right


@rabbitry.remote(num_cpus=0)
class Log:
    def __init__(self):
        self.seen = []

    def append(self, value):
        self.seen.append(value)
        return list(self.seen)


class Refusing:
    """Stands in for a method: refuses some times in a row, and then does what it is asked to."""

    def __init__(self, method, error, times):
        self.method, self.error, self.times, self.refused = method, error, times, 0

    def __call__(self, *args, **kwargs):
        if self.refused < self.times:
            self.refused += 1
            raise self.error
        return self.method(*args, **kwargs)


def get_patiently(refs):
    """Get results; a broker that is away is told to whoever waits, and the tasks are kept."""
    for _ in range(5):
        with suppress(RabbitrySystemError):
            return rabbitry.get(refs, timeout=20)
    raise AssertionError("still refused")


@pytest.fixture
def busy(session, tmp_path):
    """A client with something in flight: what it submits waits for the service thread."""
    over = tmp_path / "over"

    @rabbitry.remote(num_cpus=0)
    def wait():
        while not over.exists():
            time.sleep(0.02)

    ref = wait.remote()
    yield current.client()
    over.touch()
    rabbitry.get(ref, timeout=20)


def test_tasks_that_could_not_be_published_are_sent_later(busy, monkeypatch):
    refuse = Refusing(busy.publisher.publish, BrokerError("RabbitMQ is away"), 3)
    monkeypatch.setattr(busy.publisher, "publish", refuse)
    refs = [triple.remote(number) for number in range(TASKS)]
    assert get_patiently(refs) == [3 * number for number in range(TASKS)]
    assert refuse.refused == 3


def test_tasks_that_could_not_be_parked_are_sent_later(busy, monkeypatch):
    refuse = Refusing(busy.store.park, ObjectStoreFull(0, 0, "Redis"), 3)
    monkeypatch.setattr(busy.store, "park", refuse)
    refs = [add.remote(triple.remote(number), triple.remote(1)) for number in range(TASKS)]
    assert rabbitry.get(refs, timeout=20) == [3 * number + 3 for number in range(TASKS)]
    assert refuse.refused == 3


def test_calls_that_could_not_be_sent_keep_their_order(busy, monkeypatch):
    log = Log.remote()
    assert rabbitry.get(log.append.remote(-1), timeout=20) == [-1]
    refuse = Refusing(busy.publisher.publish, BrokerError("RabbitMQ is away"), 2)
    monkeypatch.setattr(busy.publisher, "publish", refuse)
    refs = [log.append.remote(number) for number in range(TASKS)]
    assert get_patiently(refs)[-1] == [-1, *range(TASKS)]
    assert refuse.refused == 2


def test_who_submits_is_told_only_if_the_own_task_was_not_taken(session, monkeypatch):
    client = current.client()
    assert rabbitry.get(triple.remote(1), timeout=20) == 3
    monkeypatch.setattr(client.publisher, "publish", Refusing(client.publisher.publish, BrokerError("away"), 1))
    with pytest.raises(RabbitrySystemError):  # an idle client sends at once
        triple.remote(2)
    assert client.outbox.waiting == 0 and client.in_flight == 0
    assert rabbitry.get(triple.remote(3), timeout=20) == 9
