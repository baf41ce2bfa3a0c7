"""What is known of a job, by Ray's names."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from pydantic import BaseModel

from rabbitry_broker.submissions import PENDING, RUNNING, STOPPED, SUCCEEDED


class JobStatus(str, enum.Enum):
    """Where a job is."""

    PENDING = "PENDING"
    """It has not started: it waits for resources, or for its environment."""
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    """Somebody stopped it."""
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    def __str__(self) -> str:
        return self.value

    def is_terminal(self) -> bool:
        """Return True if it stays so."""
        return self in (JobStatus.STOPPED, JobStatus.SUCCEEDED, JobStatus.FAILED)


class JobErrorType(str, enum.Enum):
    """What went wrong with a job."""

    RUNTIME_ENV_SETUP_FAILURE = "RUNTIME_ENV_SETUP_FAILURE"
    JOB_SUPERVISOR_ACTOR_START_TIMEOUT = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"
    JOB_SUPERVISOR_ACTOR_START_FAILURE = "JOB_SUPERVISOR_ACTOR_START_FAILURE"
    JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE = "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE"
    JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE = "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE"
    JOB_SUPERVISOR_ACTOR_DIED = "JOB_SUPERVISOR_ACTOR_DIED"
    JOB_ENTRYPOINT_COMMAND_START_ERROR = "JOB_ENTRYPOINT_COMMAND_START_ERROR"
    JOB_ENTRYPOINT_COMMAND_ERROR = "JOB_ENTRYPOINT_COMMAND_ERROR"


class JobType(str, enum.Enum):
    """How a job came to be."""

    SUBMISSION = "SUBMISSION"
    """It was submitted."""
    DRIVER = "DRIVER"
    """Somebody started a program that called `init`."""


class DriverInfo(BaseModel):
    """The driver of a job.

    Attributes:
        id: its job id, hexadecimal.
        node_ip_address: of the machine that it runs on.
        pid: of its process.
    """

    id: str
    node_ip_address: str
    pid: str


class JobDetails(BaseModel):
    """A job: how it was submitted, and its driver.

    Attributes:
        type: how it came to be.
        job_id: of its (last) driver; None before that has called `init`.
        submission_id: of one that was submitted.
        driver_info: its (last) driver.
        status: where it is.
        entrypoint: the command.
        message: the status in words.
        error_type: one of `JobErrorType`, if it failed.
        start_time: when it was submitted, in milliseconds since 1970.
        end_time: when it ended.
        metadata: of whoever submitted it.
        runtime_env: its environment.
        driver_agent_http_address: always None: nodes have no HTTP service of their own.
        driver_node_id: of the node on which it runs or ran, hexadecimal.
        driver_exit_code: of the command.
    """

    type: JobType
    job_id: str | None = None
    submission_id: str | None = None
    driver_info: DriverInfo | None = None
    status: JobStatus
    entrypoint: str
    message: str | None = None
    error_type: str | None = None
    start_time: int | None = None
    end_time: int | None = None
    metadata: dict[str, str] | None = None
    runtime_env: dict[str, Any] | None = None
    driver_agent_http_address: str | None = None
    driver_node_id: str | None = None
    driver_exit_code: int | None = None


_MESSAGES = {
    JobStatus.PENDING: PENDING,
    JobStatus.RUNNING: RUNNING,
    JobStatus.STOPPED: STOPPED,
    JobStatus.SUCCEEDED: SUCCEEDED,
    JobStatus.FAILED: "Job failed.",
}


@dataclasses.dataclass
class JobInfo:
    """A submitted job, without its driver; see `JobDetails` for what its fields mean."""

    status: JobStatus
    entrypoint: str
    message: str | None = None
    error_type: JobErrorType | None = None
    start_time: int | None = None
    end_time: int | None = None
    metadata: dict[str, str] | None = None
    runtime_env: dict[str, Any] | None = None
    entrypoint_num_cpus: float | None = None
    entrypoint_num_gpus: float | None = None
    entrypoint_memory: int | None = None
    entrypoint_resources: dict[str, float] | None = None
    driver_agent_http_address: str | None = None
    driver_node_id: str | None = None
    driver_exit_code: int | None = None

    def __post_init__(self) -> None:
        self.status = JobStatus(self.status)
        if self.message is None:
            self.message = _MESSAGES[self.status]
