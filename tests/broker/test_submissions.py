"""Records of jobs: changed in one step, whoever else changes them; and those of drivers that left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from rabbitry_broker.messages import encode
from rabbitry_broker.signing import Signer
from rabbitry_broker.store import announcements
from rabbitry_broker.store.store import ObjectStore
from rabbitry_broker.store.submissions import Submissions
from rabbitry_broker.submissions import Status, Submission
from tests.conftest import Engine


@pytest.fixture
def store(engine: Engine) -> Iterator[ObjectStore]:
    opened = ObjectStore(engine.endpoint, Signer(engine.secrets))
    yield opened
    opened.close()


@pytest.fixture
def jobs(store: ObjectStore) -> Submissions:
    return Submissions(store)


def test_a_name_is_taken_once(jobs: Submissions) -> None:
    assert jobs.add(Submission("a", "true"))
    assert not jobs.add(Submission("a", "false"))
    found = jobs.get("a")
    assert found is not None
    assert found.entrypoint == "true"
    assert jobs.get("b") is None
    assert jobs.known(["a", "b"]) == {"a"}
    assert jobs.known([]) == set()
    assert set(jobs.all()) == {"a"}


def test_of_many_that_change_a_record_nobody_loses_a_change(jobs: Submissions) -> None:
    jobs.add(Submission("a", "true"))

    def count() -> None:
        for _ in range(20):
            jobs.change("a", lambda now: replace(now, attempt=now.attempt + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = jobs.get("a")
    assert found is not None
    assert found.attempt == 80


def test_only_what_has_ended_is_removed(jobs: Submissions) -> None:
    jobs.add(Submission("a", "true"))
    assert jobs.remove("b") is None
    running = jobs.remove("a")
    assert running is not None
    assert not running.status.is_final
    jobs.change("a", lambda now: now.moved(Status.FAILED, "over"))
    assert jobs.remove("a") is not None
    assert jobs.get("a") is None


def test_a_forgery_is_put_aside(jobs: Submissions, store: ObjectStore) -> None:
    store.call(b"HSET", store.keys.submissions, b"a", b"forged", b"b", b"")
    jobs.add(Submission("c", "true"))
    assert set(jobs.all()) == {"c"}
    assert jobs.get("a") is None
    assert store.call(b"HKEYS", store.keys.submissions) == [b"c"]
    assert store.call(b"GET", store.keys.put_aside + b":count") == b"2"


def test_a_record_is_of_its_own_name_only(jobs: Submissions, store: ObjectStore) -> None:
    jobs.add(Submission("a", "true"))
    store.call(b"HSET", store.keys.submissions, b"b", store.call(b"HGET", store.keys.submissions, b"a"))
    assert jobs.get("b") is None


def driver(store: ObjectStore, job: bytes) -> None:
    store.begin_job(job, store.signer.seal(b"job" + job, encode({"pid": 1})))


def test_a_driver_that_left_is_known_for_a_while(jobs: Submissions, store: ObjectStore) -> None:
    driver(store, b"aaaa")
    driver(store, b"bbbb")
    store.end_job(b"aaaa")
    store.end_job(b"aaaa")  # by the janitor, too
    found = {job: ended for job, _, ended in jobs.drivers()}
    assert found[b"bbbb"] == 0.0
    assert found[b"aaaa"] > 0.0
    driver(store, b"aaaa")  # it was only silent, and is back
    assert {job: ended for job, _, ended in jobs.drivers()} == {b"aaaa": 0.0, b"bbbb": 0.0}
    store.end_job(b"aaaa")
    found = {job: ended for job, _, ended in jobs.drivers()}
    assert jobs.forget_drivers(found[b"aaaa"] - 1) == 0
    assert jobs.forget_drivers(found[b"aaaa"] + 1) == 1
    assert [job for job, *_ in jobs.drivers()] == [b"bbbb"]


def test_of_drivers_that_left_the_last_are_kept(
    jobs: Submissions, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcements, "ENDED_JOBS_KEPT", 3)
    for number in range(5):
        job = b"job%d" % number
        driver(store, job)
        store.end_job(job)
    assert [job for job, *_ in jobs.drivers()] == [b"job2", b"job3", b"job4"]
    assert store.call(b"HLEN", store.keys.ended_jobs) == 3


def test_a_job_ends_whatever_somebody_wrote_where_ended_ones_are_kept(store: ObjectStore) -> None:
    driver(store, b"aaaa")
    store.call(b"SET", store.keys.ended_jobs, b"nonsense")
    store.call(b"SET", store.keys.ended_jobs_at, b"nonsense")
    store.end_job(b"aaaa")
    assert store.call(b"EXISTS", store.keys.job(b"aaaa")) == 0
    assert store.call(b"ZCARD", store.keys.jobs) == 0
