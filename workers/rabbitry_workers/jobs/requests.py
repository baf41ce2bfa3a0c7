"""What a client asks for when it submits a job, checked: a request as Ray's clients send it, as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from rabbitry.arguments import amount, shown, whole, wrong_type
from rabbitry.option_checks import label_selector as check_selector
from rabbitry.option_checks import resources as check_resources
from rabbitry.runtime_env.runtime_env import check_for_task
from rabbitry_workers.jobs.manager import Request

LONGEST_ID: Final = 200
LONGEST_ENTRYPOINT: Final = 100_000
FOREVER: Final = -1


def parse_request(body: bytes) -> Request:
    """Return what the JSON of a request says.

    Raises:
        TypeError: a value of a wrong type.
        ValueError: no JSON, an impossible value, or a field that does not exist.
    """
    try:
        fields = json.loads(body)
    except ValueError as error:
        raise ValueError(f"the request is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise wrong_type("the request", fields, "a JSON object")
    given = {name: value for name, value in fields.items() if value is not None}
    unknown = sorted(given.keys() - _CHECKS.keys())
    if unknown:
        raise ValueError(f"a job has no {', '.join(map(shown, unknown))}; there are {', '.join(_CHECKS)}")
    if "entrypoint" not in given:
        raise ValueError("entrypoint is missing: the shell command to run")
    checked = {name: _CHECKS[name](name, value) for name, value in given.items()}
    resources = {
        option: checked[name] for name, option in _RESOURCES.items() if name in checked and checked[name] not in ({}, 0)
    }
    return Request(
        entrypoint=checked["entrypoint"],
        submission_id=checked.get("submission_id") or checked.get("job_id") or "",
        runtime_env=checked.get("runtime_env", {}),
        metadata=checked.get("metadata", {}),
        resources=resources,
        label_selector=checked.get("entrypoint_label_selector", {}),
        max_retries=checked.get("max_retries", 0),
    )


def _entrypoint(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong_type(name, value, "a shell command")
    if not value.strip() or "\0" in value or len(value) > LONGEST_ENTRYPOINT:
        raise ValueError(
            f"{name} must be a shell command of 1 to {LONGEST_ENTRYPOINT} characters, but is {shown(value)}"
        )
    return value


def _id(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong_type(name, value, "text")
    if not value or len(value) > LONGEST_ID or not value.isprintable() or not set(value).isdisjoint("/?#%\\"):
        raise ValueError(
            f"{name} must be 1 to {LONGEST_ID} printable characters that can stand in the path of a URL as they are "
            f"(no / ? # % or \\), but is {shown(value)}"
        )
    return value


def _metadata(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for item in value.items() for each in item):
        raise wrong_type(name, value, "an object of text to text")
    return value


def _amount(name: str, value: Any) -> float:
    if isinstance(value, bool):
        raise wrong_type(name, value, "a number")
    return amount(name, value)


def _memory(name: str, value: Any) -> int:
    return whole(name, value, least=0, expected="a number of bytes")


def _resources(name: str, value: Any) -> dict[str, float]:
    return check_resources(name, value)


def _selector(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise wrong_type(name, value, "an object of text to text")
    check_selector(name, value)
    return value


def _environment(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong_type(name, value, "an object")
    return check_for_task(value) or {}


def _retries(name: str, value: Any) -> int:
    return whole(name, value, least=FOREVER, expected=f"a number of retries, {FOREVER} for as many as it takes")


_CHECKS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "entrypoint": _entrypoint,
    "submission_id": _id,
    "job_id": _id,
    "runtime_env": _environment,
    "metadata": _metadata,
    "entrypoint_num_cpus": _amount,
    "entrypoint_num_gpus": _amount,
    "entrypoint_memory": _memory,
    "entrypoint_resources": _resources,
    "entrypoint_label_selector": _selector,
    "max_retries": _retries,
}
_RESOURCES: Final = {
    "entrypoint_num_cpus": "num_cpus",
    "entrypoint_num_gpus": "num_gpus",
    "entrypoint_memory": "memory",
    "entrypoint_resources": "resources",
}
