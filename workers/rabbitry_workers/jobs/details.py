"""Jobs as Ray's REST API shows them (`JobDetails`), submitted ones and drivers that were started by hand."""

from __future__ import annotations

import json
from typing import Any, Final

from rabbitry.submitted_job import SUBMISSION_KEY
from rabbitry_broker.submissions import Submission
from rabbitry_workers.jobs.manager import JobManager

HIDDEN_NAMESPACES: Final = "_ray_internal_"
SUBMITTED: Final = "SUBMISSION"
STARTED_BY_HAND: Final = "DRIVER"


def details_of_all(manager: JobManager) -> list[dict[str, Any]]:
    """Return all jobs: the submitted ones, then drivers that belong to none; each kind oldest first."""
    by_hand, of_submissions = _drivers(manager)
    return [*[_of_submission(job, of_submissions) for job in manager.all()], *by_hand.values()]


def find_details(manager: JobManager, job_or_submission_id: str) -> dict[str, Any] | None:
    """Return the job with that id, of a submission or of a driver (eight hexadecimal digits); None if there is none."""
    by_hand, of_submissions = _drivers(manager)
    found = by_hand.get(job_or_submission_id)
    if found is not None:
        return found
    named = (name for name, driver in of_submissions.items() if driver["id"] == job_or_submission_id)
    job = manager.find(next(named, job_or_submission_id))
    return None if job is None else _of_submission(job, of_submissions)


def _of_submission(job: Submission, drivers: dict[str, dict[str, str]]) -> dict[str, Any]:
    driver = drivers.get(job.submission_id)
    return {
        "type": SUBMITTED,
        "job_id": driver["id"] if driver else None,
        "submission_id": job.submission_id,
        "driver_info": driver,
        "status": job.status.value,
        "entrypoint": job.entrypoint,
        "message": job.message,
        "error_type": job.error_type or None,
        "start_time": _milliseconds(job.submitted),
        "end_time": _milliseconds(job.ended),
        "metadata": job.metadata,
        "runtime_env": job.runtime_env,
        "driver_agent_http_address": None,  # nodes have no HTTP service of their own
        "driver_node_id": job.node_id or None,
        "driver_exit_code": job.exit_code,
    }


def _drivers(manager: JobManager) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, str]]]:
    """Return drivers that were started by hand, by job id, and the last driver of each submission, by its id."""
    by_hand: dict[str, dict[str, Any]] = {}
    of_submissions: dict[str, dict[str, str]] = {}
    for job, record, ended in sorted(manager.drivers(), key=lambda each: _number(each[1].get("started"))):
        if str(record.get("namespace", "")).startswith(HIDDEN_NAMESPACES):
            continue
        metadata = record.get("metadata") or {}
        driver = {"id": job.hex(), "node_ip_address": str(record.get("ip", "")), "pid": str(record.get("pid", ""))}
        submission_id = metadata.get(SUBMISSION_KEY)
        if submission_id:
            of_submissions[submission_id] = driver
            continue
        by_hand[job.hex()] = {
            "type": STARTED_BY_HAND,
            "job_id": job.hex(),
            "submission_id": None,
            "driver_info": driver,
            "status": "SUCCEEDED" if ended else "RUNNING",
            "entrypoint": str(record.get("entrypoint", "")),
            "message": None,
            "error_type": None,
            "start_time": _milliseconds(_number(record.get("started"))),
            "end_time": _milliseconds(ended),
            "metadata": metadata,
            "runtime_env": _environment(record),
            "driver_agent_http_address": None,
            "driver_node_id": None,
            "driver_exit_code": None,
        }
    return by_hand, of_submissions


def _environment(record: dict[str, Any]) -> dict[str, Any]:
    try:
        variables = json.loads(record.get("process") or b"{}").get("env")
    except (ValueError, AttributeError):
        return {}
    return {"env_vars": variables} if variables else {}


def _milliseconds(seconds: float) -> int | None:
    return int(seconds * 1000) if seconds else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
