"""What a driver inherits from the job that started it: its supervisor says so in a variable of the environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from rabbitry import environment
from rabbitry.arguments import shown

SUBMISSION_KEY: Final = "job_submission_id"
"""In the metadata of a job: its submission id. Ray's name for it, as that of `NAME_KEY`."""
NAME_KEY: Final = "job_name"


def describe(metadata: Mapping[str, str], runtime_env: Mapping[str, Any]) -> str:
    """Return what `metadata` and `runtime_env` read, for the variable."""
    return json.dumps({"metadata": dict(metadata), "runtime_env": dict(runtime_env)})


def metadata() -> dict[str, str]:
    """Return the metadata of the job that this process belongs to; {} if it was started by hand."""
    return dict(_config().get("metadata") or {})


def runtime_env() -> dict[str, Any]:
    """Return the runtime environment of the job that this process belongs to; {} if it has none.

    It is not checked: its paths were those of whoever submitted the job, and are packages now.
    """
    found = _config().get("runtime_env") or {}
    return {field: value for field, value in found.items() if value is not None}


def _config() -> dict[str, Any]:
    text = environment.text(environment.JOB_CONFIG)
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{environment.JOB_CONFIG} is set for you inside of jobs, and {shown(text)} is none of ours")
    return found
