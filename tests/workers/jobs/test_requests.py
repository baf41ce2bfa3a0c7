"""Requests for jobs: taken as Ray's clients send them, and refused with the field at fault."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rabbitry_workers.jobs.requests import parse_request


def parse(**fields: Any) -> Any:
    return parse_request(json.dumps(fields).encode())


def test_what_rays_client_sends_is_understood() -> None:
    request = parse(
        entrypoint="python x.py",
        submission_id="mine",
        runtime_env={"env_vars": {"A": "1"}},
        metadata={"team": "a"},
        entrypoint_num_cpus=1.5,
        entrypoint_num_gpus=0,
        entrypoint_memory=100,
        entrypoint_resources={"license": 2},
        entrypoint_label_selector={"zone": "!b"},
        job_id=None,
    )
    assert request.entrypoint == "python x.py"
    assert request.submission_id == "mine"
    assert request.runtime_env == {"env_vars": {"A": "1"}}
    assert request.metadata == {"team": "a"}
    assert request.resources == {"num_cpus": 1.5, "memory": 100, "resources": {"license": 2}}
    assert request.label_selector == {"zone": "!b"}
    assert request.max_retries == 0


def test_the_former_name_of_the_id_and_our_own_option() -> None:
    request = parse(entrypoint="x", job_id="mine", max_retries=-1)
    assert (request.submission_id, request.max_retries) == ("mine", -1)


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({}, ValueError, "entrypoint is missing"),
        ({"entrypoint": 3}, TypeError, "entrypoint"),
        ({"entrypoint": "  "}, ValueError, "entrypoint"),
        ({"entrypoint": "a\0b"}, ValueError, "entrypoint"),
        ({"entrypoint": "x", "submission_id": "a/b"}, ValueError, "submission_id"),
        ({"entrypoint": "x", "submission_id": "a\nb"}, ValueError, "submission_id"),
        ({"entrypoint": "x", "submission_id": "a" * 201}, ValueError, "submission_id"),
        ({"entrypoint": "x", "submission_id": ""}, ValueError, "submission_id"),
        ({"entrypoint": "x", "submission_id": 5}, TypeError, "submission_id"),
        ({"entrypoint": "x", "metadata": {"a": 1}}, TypeError, "metadata"),
        ({"entrypoint": "x", "metadata": []}, TypeError, "metadata"),
        ({"entrypoint": "x", "runtime_env": []}, TypeError, "runtime_env"),
        ({"entrypoint": "x", "runtime_env": {"env_vars": []}}, TypeError, "env_vars"),
        ({"entrypoint": "x", "entrypoint_num_cpus": -1}, ValueError, "entrypoint_num_cpus"),
        ({"entrypoint": "x", "entrypoint_num_cpus": "many"}, TypeError, "entrypoint_num_cpus"),
        ({"entrypoint": "x", "entrypoint_num_gpus": True}, TypeError, "entrypoint_num_gpus"),
        ({"entrypoint": "x", "entrypoint_memory": 1.5}, TypeError, "entrypoint_memory"),
        ({"entrypoint": "x", "entrypoint_resources": {"CPU": 1}}, ValueError, "CPU"),
        ({"entrypoint": "x", "entrypoint_label_selector": {"zone": 1}}, (TypeError, ValueError), "zone"),
        ({"entrypoint": "x", "max_retries": -2}, ValueError, "max_retries"),
        ({"entrypoint": "x", "retries": 2}, ValueError, "'retries'"),
    ],
)
def test_nonsense_is_refused_with_what_is_at_fault(fields: dict[str, Any], error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        parse(**fields)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"3"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises((TypeError, ValueError)):
        parse_request(body)
