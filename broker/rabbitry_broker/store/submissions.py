"""The records of submitted jobs, and of drivers that have left.

One hash holds the jobs, each sealed; what changes one compares first, so that of two that move a job from one state at
the same time, one finds that it has moved. Another holds the records of drivers whose job has ended, as they were
sealed, for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rabbitry_broker.messages import decode, encode
from rabbitry_broker.signing import ForgedMessage
from rabbitry_broker.store.store import ObjectStore
from rabbitry_broker.submissions import Submission


class Submissions:
    """Reads and changes records of jobs. Any thread may call anything."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._key = store.keys.submissions

    def add(self, job: Submission) -> bool:
        """Put a job on record; False if there is one of that name.

        Raises:
            ObjectStoreFull: no room.
        """
        sealed = self._seal(job)
        field = job.submission_id.encode()
        return bool(self._store.when_room(lambda: self._store.call(b"HSETNX", self._key, field, sealed)))

    def get(self, submission_id: str) -> Submission | None:
        """Return a job's record; None if there is none."""
        return self._open(submission_id, self._store.call(b"HGET", self._key, submission_id.encode()))

    def all(self) -> dict[str, Submission]:
        """Return all records, by name."""
        flat = self._store.call(b"HGETALL", self._key)
        found: dict[str, Submission] = {}
        for field, sealed in zip(flat[::2], flat[1::2], strict=True):
            name = field.decode("utf-8", "replace")
            job = self._open(name, sealed)
            if job is not None:
                found[name] = job
        return found

    def names(self) -> list[str]:
        """Return the names of all jobs on record."""
        names: list[str] = []
        for field in self._store.call(b"HKEYS", self._key):
            try:
                names.append(field.decode())
            except UnicodeDecodeError as error:
                self._store.put_aside("the name of a job", field, str(error))
                self._store.call(b"HDEL", self._key, field)
        return names

    def some(self, submission_ids: list[str]) -> list[Submission]:
        """Return the records of these jobs; those that are not on record are left out."""
        if not submission_ids:
            return []
        stored = self._store.call(b"HMGET", self._key, *[each.encode() for each in submission_ids])
        found = (self._open(name, sealed) for name, sealed in zip(submission_ids, stored, strict=True))
        return [job for job in found if job is not None]

    def known(self, submission_ids: list[str]) -> set[str]:
        """Return those of these jobs that are on record."""
        if not submission_ids:
            return set()
        stored = self._store.call(b"HMGET", self._key, *[each.encode() for each in submission_ids])
        return {name for name, sealed in zip(submission_ids, stored, strict=True) if sealed is not None}

    def change(self, submission_id: str, change: Callable[[Submission], Submission | None]) -> Submission | None:
        """Change a record in one step; may call `change` several times, if others change it too.

        Args:
            submission_id: which.
            change: returns the new record for the present one; None to leave it.

        Returns:
            The new record, or the present one if it was left; None if there is none.
        """
        field = submission_id.encode()
        while True:
            sealed = self._store.call(b"HGET", self._key, field)
            job = self._open(submission_id, sealed)
            if job is None:
                return None
            changed = change(job)
            if changed is None:
                return job
            if self._replace(field, sealed, self._seal(changed)):
                return changed

    def remove(self, submission_id: str) -> Submission | None:
        """Delete the record of a job that has ended.

        Returns:
            The record as it was, deleted only if it had come to its end; None if there is none.
        """
        field = submission_id.encode()
        while True:
            sealed = self._store.call(b"HGET", self._key, field)
            job = self._open(submission_id, sealed)
            if job is None or not job.status.is_final or self._replace(field, sealed, b""):
                return job

    def _replace(self, field: bytes, old: bytes, new: bytes) -> bool:
        def replaced() -> bool:
            return bool(self._store.script("replace_field", self._key, field, old, new))

        return bool(self._store.when_room(replaced)) if new else replaced()

    def _seal(self, job: Submission) -> bytes:
        return self._store.signer.seal(b"submission" + job.submission_id.encode(), encode(job.pack()))

    def _open(self, submission_id: str, sealed: bytes | None) -> Submission | None:
        if sealed is None:
            return None
        try:
            return Submission.unpack(decode(self._store.signer.open(b"submission" + submission_id.encode(), sealed)))
        except (ForgedMessage, ValueError, TypeError) as error:
            self._store.put_aside(f"job {submission_id}", sealed, str(error))
            self._store.call(b"HDEL", self._key, submission_id.encode())
            return None

    # -- drivers -----------------------------------------------------------------------------------------------------

    def drivers(self) -> list[tuple[bytes, dict[str, Any], float]]:
        """Return (job id, record, when it ended or 0.0) of drivers that are there, and of those that have left."""
        store, keys = self._store, self._store.keys
        found: list[tuple[bytes, dict[str, Any], float]] = []
        living = store.call(b"ZRANGE", keys.jobs, 0, -1)
        stored = store.call(b"MGET", *[keys.job(job) for job in living]) if living else []
        found += [(job, record, 0.0) for job, record in self._drivers(living, stored)]
        ended = store.call(b"ZRANGE", keys.ended_jobs_at, 0, -1, b"WITHSCORES")
        times = dict(zip(ended[::2], map(float, ended[1::2]), strict=True))
        there = {job for job, *_ in found}  # one that was taken for dead may be back
        jobs = [job for job in times if job not in there]
        stored = store.call(b"HMGET", keys.ended_jobs, *jobs) if jobs else []
        found += [(job, record, times[job]) for job, record in self._drivers(jobs, stored)]
        return found

    def _drivers(self, jobs: list[bytes], stored: list[bytes | None]) -> list[tuple[bytes, dict[str, Any]]]:
        found = []
        for job, sealed in zip(jobs, stored, strict=True):
            try:
                record = decode(self._store.signer.open(b"job" + job, sealed)) if sealed else None
            except (ForgedMessage, ValueError):
                continue  # the janitor or whoever starts executors for it puts it aside
            if isinstance(record, dict):
                found.append((job, record))
        return found

    def forget_drivers(self, before: float) -> int:
        """Forget drivers that left before that time; return how many."""
        store, keys = self._store, self._store.keys
        over = store.call(b"ZRANGEBYSCORE", keys.ended_jobs_at, b"-inf", before)
        if over:
            store.pipeline([(b"HDEL", keys.ended_jobs, *over), (b"ZREM", keys.ended_jobs_at, *over)])
        return len(over)
