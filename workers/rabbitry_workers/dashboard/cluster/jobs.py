"""Jobs: those that were submitted, and drivers that were started by hand.

Records are read over a connection of this module's own. Stopping a job and reading its log go by its supervisor, which
takes a session: the service connects one with the first of these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from rabbitry.submitted_job import SUBMISSION_KEY
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.store import ObjectStore
from rabbitry_broker.store.submissions import Submissions
from rabbitry_workers.dashboard.cluster import rows
from rabbitry_workers.dashboard.pages.logs import OF_JOBS
from rabbitry_workers.dashboard.source import JobRow, LogPart, Missing, Refused
from rabbitry_workers.jobs.details import HIDDEN_NAMESPACES
from rabbitry_workers.jobs.ends import report_ends
from rabbitry_workers.jobs.manager import JobManager, LogsLost, NoSuchJob


class Jobs:
    """Jobs of a cluster. For one thread at a time, but for `stop` and `read_log`.

    Args:
        endpoint: the cluster.
        manager: stops jobs, and reads their logs.
    """

    def __init__(self, endpoint: Endpoint, manager: JobManager) -> None:
        self._endpoint = endpoint
        self._manager = manager
        self._store: ObjectStore | None = None

    def close(self) -> None:
        """Close the connection."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def store(self) -> ObjectStore:
        """Return the store."""
        if self._store is None:
            self._store = ObjectStore(self._endpoint, Signer(self._endpoint.secrets))
        return self._store

    def read(self, jobs: Sequence[Mapping[str, Any]]) -> list[JobRow]:
        """Return all jobs, the newest first.

        Args:
            jobs: as the state API shows them; of these, the drivers. What was submitted is read from its own record.
        """
        store = self.store()
        records = Submissions(store)
        drivers_of: dict[str, tuple[str, dict[str, Any]]] = {}
        hidden = set()
        for driver, record, _ in records.drivers():
            submission = (record.get("metadata") or {}).get(SUBMISSION_KEY)
            if submission:
                drivers_of[submission] = (driver.hex(), record)
                hidden.add(driver.hex())
            elif str(record.get("namespace", "")).startswith(HIDDEN_NAMESPACES):
                hidden.add(driver.hex())
        found = [rows.job(each) for each in jobs if each["type"] == "DRIVER" and each["job_id"] not in hidden]
        for job in report_ends(store, records.all().values()).values():
            identity, record = drivers_of.get(job.submission_id, ("", {}))
            pid = record.get("pid")
            found.append(
                JobRow(
                    identity,
                    job.status.value,
                    job.submission_id,
                    job.entrypoint,
                    job.message,
                    job.submitted or None,
                    job.ended or None,
                    str(record.get("ip") or ""),
                    pid if isinstance(pid, int) else None,
                    (OF_JOBS, job.submission_id),
                )
            )
        return sorted(found, key=lambda row: row.started or 0.0, reverse=True)

    def stop(self, submission: str) -> None:
        """Stop a submitted job.

        Raises:
            Refused: it has ended, or there is none.
        """
        try:
            ran = self._manager.stop(submission)
        except NoSuchJob as error:
            raise Refused(str(error)) from error
        if not ran:
            raise Refused(f"{submission} has ended already.")

    def read_log(self, submission: str, position: object) -> LogPart:
        """Return the next piece of what a job's entrypoint has printed."""
        job = self._manager.find(submission)
        if job is None:
            raise Missing("There is no such job any more.")
        begin = position if isinstance(position, int) else 0
        if not job.directory:
            return LogPart("", begin, over=job.status.is_final)
        try:
            part = asyncio.run(self._manager.read(job, begin))
        except LogsLost as error:
            raise Missing(str(error)) from None
        return LogPart(
            part.data.decode("utf-8", "replace"), part.end, not part.data, not part.data and job.status.is_final
        )
