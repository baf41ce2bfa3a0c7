"""Jobs whose supervisor cannot say any more how they went: whoever looks, reports it.

A node does so every few seconds, and who reads a record does before. What is looked at is the record of the
supervisor's actor, which nodes move on as the processes and nodes of actors end.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Final

from rabbitry.core.failures import killed_cause
from rabbitry.environment import text
from rabbitry.error_types import of_stored
from rabbitry_broker.store.actors import DEAD, ActorRecords
from rabbitry_broker.store.store import ObjectStore
from rabbitry_broker.store.submissions import Submissions
from rabbitry_broker.submissions import (
    DIED_ERROR,
    ENVIRONMENT_ERROR,
    STOPPED,
    SUPERVISOR_ERROR,
    TIMEOUT_ERROR,
    UNSCHEDULABLE_ERROR,
    Status,
    Submission,
)

_CLASS: Final = re.compile(r"\A[\w.]+(?:Error|Exception|Removed): ")

START_TIMEOUT: Final = ("RABBITRY_JOB_START_TIMEOUT_SECONDS", "RAY_JOB_START_TIMEOUT_SECONDS")
START_SECONDS: Final = 900.0
CREATE_SECONDS: Final = 60.0  # for whoever submitted it to create the supervisor


def report_ends(store: ObjectStore, jobs: Iterable[Submission]) -> dict[str, Submission]:
    """Move on the records of jobs that nobody looks after any more.

    Args:
        store: of the cluster.
        jobs: their records.

    Returns:
        The records, by name, as they are now.
    """
    records, actors = Submissions(store), ActorRecords(store)
    found = {job.submission_id: job for job in jobs}
    open_ = [job for job in found.values() if not job.status.is_final]
    states = actors.states([job.actor_id for job in open_ if job.actor_id])
    by_actor = dict(zip((job.actor_id for job in open_ if job.actor_id), states, strict=True))
    for job in open_:
        state, cause = by_actor.get(job.actor_id, ("", b""))
        moved = reported(job, state, cause)
        if moved is None:
            continue

        def report(now: Submission, job: Submission = job, moved: Submission = moved) -> Submission | None:
            return moved if now == job else None

        changed = records.change(job.submission_id, report)
        if changed is None:
            del found[job.submission_id]
            continue
        found[job.submission_id] = changed
        if moved.error_type == TIMEOUT_ERROR and job.actor_id:
            actors.kill(job.actor_id, no_restart=True, cause=killed_cause(job.actor_id))
    return found


def reported(job: Submission, state: str, cause: bytes) -> Submission | None:
    """Return what becomes of a job whose supervisor's actor is in that state; None for nothing."""
    age = time.time() - job.submitted
    if not job.actor_id:
        if age < CREATE_SECONDS:
            return None
        return _failed(job, SUPERVISOR_ERROR, "Whoever submitted it was gone before its supervisor was created.")
    if state in (DEAD, ""):
        if job.stopping:
            return job.moved(Status.STOPPED, STOPPED)
        # Read, not unpickled: this runs on a node's own loop, and what a user raised may do anything when it is made.
        kind, why = of_stored(cause) if cause else ("", "nobody knows why any more")
        why = _CLASS.sub("", why)
        if kind == "RUNTIME_ENV_SETUP_FAILED":
            return _failed(job, ENVIRONMENT_ERROR, f"runtime_env setup failed: {why}")
        if kind == "ACTOR_UNSCHEDULABLE_ERROR":
            return _failed(job, UNSCHEDULABLE_ERROR, f"Job supervisor actor could not be scheduled: {why}")
        return _failed(job, DIED_ERROR, f"Job supervisor actor died: {why}")
    limit = start_seconds()
    if not job.attempt and age > limit:
        return _failed(
            job,
            TIMEOUT_ERROR,
            f"Job supervisor actor failed to start within {limit:g} seconds ({START_TIMEOUT[0]}). Does any node have "
            f"what the entrypoint asks for? {job.resources or 'It asks for nothing.'} See `rabbitry status`.",
        )
    return None


def _failed(job: Submission, error_type: str, message: str) -> Submission:
    return job.moved(Status.FAILED, message, error_type=error_type)


def start_seconds() -> float:
    """Return how long a supervisor may take to start, in seconds."""
    try:
        return max(1.0, float(text(*START_TIMEOUT) or START_SECONDS))
    except ValueError:
        return START_SECONDS
