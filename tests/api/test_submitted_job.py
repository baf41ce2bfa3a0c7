"""What a driver inherits from the job that it belongs to."""

from __future__ import annotations

from typing import Any

import pytest

from rabbitry import job_environment, submitted_job


def belongs(monkeypatch: pytest.MonkeyPatch, env: dict[str, Any], **metadata: str) -> None:
    monkeypatch.setenv("RABBITRY_JOB_CONFIG", submitted_job.describe(metadata, env))


def test_one_that_was_started_by_hand_inherits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RABBITRY_JOB_CONFIG", raising=False)
    assert job_environment.given(None) == {}
    assert job_environment.given({"env_vars": {"A": "1"}}) == {"env_vars": {"A": "1"}}
    assert submitted_job.metadata() == {}


def test_what_the_job_and_init_say_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    belongs(monkeypatch, {"env_vars": {"A": "1"}, "pip": ["x"]}, team="a")
    assert job_environment.given(None) == {"env_vars": {"A": "1"}, "pip": ["x"]}
    joined = job_environment.given({"env_vars": {"B": "2"}, "preload": ["json"]})
    assert joined == {"env_vars": {"A": "1", "B": "2"}, "pip": ["x"], "preload": ["json"]}
    assert submitted_job.metadata() == {"team": "a"}


@pytest.mark.parametrize("given", [{"env_vars": {"A": "2"}}, {"pip": ["y"]}])
def test_what_both_set_is_an_error_unless_somebody_says_which_counts(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    belongs(monkeypatch, {"env_vars": {"A": "1"}, "pip": ["x"]})
    with pytest.raises(ValueError, match="and so does the job"):
        job_environment.given(given)
    monkeypatch.setenv("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    env = job_environment.given(given)
    assert env["env_vars"] == given.get("env_vars", {"A": "1"})
    assert ("y" in str(env["pip"])) == ("pip" in given)


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_a_variable_that_is_none_of_ours_is_an_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("RABBITRY_JOB_CONFIG", text)
    with pytest.raises(ValueError, match="RABBITRY_JOB_CONFIG"):
        submitted_job.metadata()
