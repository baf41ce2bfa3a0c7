"""`ray.dashboard.modules.job.sdk`: the module behind `ray.job_submission`, by which some programs import the client."""

from rabbitry.job_submission import JobDetails, JobStatus, JobSubmissionClient

__all__ = ["JobDetails", "JobStatus", "JobSubmissionClient"]
