"""A job's record is kept for what outlives its driver, whoever holds it first."""

from __future__ import annotations

from typing import Any

import pytest

from rabbitry.core.submit.kept_job import KeptJob
from rabbitry_broker.store.functions import Kind, job_digest
from tests.api.core.fakes import JOB, OURS, SIGNER, Surroundings

DIGEST = job_digest(JOB)


class Kept:
    """The store of functions, and a job's record."""

    def __init__(self) -> None:
        self.record: bytes | None = SIGNER.seal(b"job" + JOB, b"record")
        self.stored: dict[bytes, tuple[bytes, Kind]] = {}
        self.holds: list[tuple[bytes, bool]] = []

    def hold(self, digests: Any, client: bytes, *, detached: bool = False) -> list[bytes]:
        missing = [each for each in digests if each not in self.stored]
        if not missing:
            self.holds.append((client, detached))
        return missing

    def put(self, digest: bytes, pickled: bytes, client: bytes, *, detached: bool = False, kind: Any = None) -> None:
        self.stored[digest] = pickled, kind
        self.holds.append((client, detached))

    def read(self, job: bytes) -> bytes | None:
        assert job == JOB
        return None if self.record is None else SIGNER.open(b"job" + job, self.record)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def job(kept: Kept) -> KeptJob:
    around = Surroundings()
    return KeptJob(around.identity, kept, kept.read, around.register)


def test_the_first_who_needs_it_stores_it_and_holds_it_once(kept: Kept, job: KeptJob) -> None:
    assert job.hold() == job.hold() == DIGEST
    assert kept.stored == {DIGEST: (b"record", Kind.JOB)}
    assert kept.holds == [(OURS, False)]
    job.hold(for_tasks=True)
    assert kept.holds == [(OURS, False), (OURS, True)]


def test_who_comes_when_the_driver_has_left_holds_what_is_there(kept: Kept, job: KeptJob) -> None:
    kept.stored[DIGEST] = b"earlier", Kind.JOB
    kept.record = None
    assert job.hold() == DIGEST
    assert kept.stored[DIGEST][0] == b"earlier"
    assert kept.holds == [(OURS, False)]


@pytest.mark.parametrize("record", [None, b"forged"])
def test_a_record_that_is_not_there_or_forged_is_not_kept(kept: Kept, job: KeptJob, record: bytes | None) -> None:
    kept.record = record
    assert job.hold() == DIGEST
    assert not kept.stored


def test_who_was_taken_for_dead_holds_it_again(kept: Kept, job: KeptJob) -> None:
    job.hold()
    kept.stored.clear()
    job.again()
    job.hold()
    assert DIGEST in kept.stored
