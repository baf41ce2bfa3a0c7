"""Who has the common queue of a class of resources: one job that is there at a time, until it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rabbitry_broker import queue_names as names
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.store import ObjectStore
from tests.conftest import Engine

QUEUE = names.task_queue("CPU=1")


@pytest.fixture
def store(engine: Engine) -> Iterator[ObjectStore]:
    opened = ObjectStore(engine.endpoint, Signer(engine.secrets))
    yield opened
    opened.close()


def begin(store: ObjectStore, *jobs: bytes) -> None:
    for job in jobs:
        store.begin_job(job, b"record")


def test_the_first_that_asks_has_it_until_it_ends(store: ObjectStore) -> None:
    begin(store, b"1111", b"2222", b"3333")
    assert store.claim_queue(QUEUE, b"1111")
    assert store.claim_queue(QUEUE, b"1111")
    assert not store.claim_queue(QUEUE, b"2222")
    assert store.claim_queue(names.task_queue("CPU=2"), b"2222")
    store.end_job(b"1111")
    assert store.claim_queue(QUEUE, b"3333")
    assert not store.claim_queue(QUEUE, b"2222")


def test_a_job_that_is_not_there_has_none_and_keeps_none_from_others(store: ObjectStore) -> None:
    begin(store, b"1111")
    assert not store.claim_queue(QUEUE, b"gone")
    store.call(b"HSET", store.keys.claims, QUEUE, b"gone")
    assert store.claim_queue(QUEUE, b"1111")


def test_ended_jobs_leave_no_claims(store: ObjectStore) -> None:
    begin(store, b"1111", b"2222")
    for number in range(5):
        assert store.claim_queue(names.task_queue(f"CPU={number}"), b"1111")
    assert store.claim_queue(QUEUE.replace("1", "7"), b"2222")
    store.end_job(b"1111")
    assert store.call(b"HVALS", store.keys.claims) == [b"2222"]
    store.end_job(b"2222")
    assert not store.call(b"EXISTS", store.keys.claims)
