"""Submitting programs to a cluster as jobs, from anywhere that reaches its HTTP service (`rabbitry dashboard`)."""

from rabbitry.job_submission.client import JobSubmissionClient
from rabbitry.job_submission.models import DriverInfo, JobDetails, JobErrorType, JobInfo, JobStatus, JobType

__all__ = [
    "DriverInfo",
    "JobDetails",
    "JobErrorType",
    "JobInfo",
    "JobStatus",
    "JobSubmissionClient",
    "JobType",
]
