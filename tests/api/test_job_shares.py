"""What a job gets beside others: its configuration, or else the environment, says so."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rabbitry import job_shares
from rabbitry.job_config import JobConfig
from rabbitry.job_shares import JobShare


def test_nothing_said_is_one_share_and_no_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RABBITRY_JOB_SHARE", "RABBITRY_JOB_PRIORITY"):
        monkeypatch.delenv(name, raising=False)
    assert job_shares.of_job(None) == job_shares.of_job(JobConfig()) == JobShare(1.0, 0)


def test_the_configuration_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITRY_JOB_SHARE", "0.5")
    monkeypatch.setenv("RABBITRY_JOB_PRIORITY", "3")
    assert job_shares.of_job(None) == JobShare(0.5, 3)
    assert job_shares.of_job(JobConfig(share=2)) == JobShare(2.0, 3)
    assert job_shares.of_job(JobConfig(priority=0)) == JobShare(0.5, 0)


@pytest.mark.parametrize("share", [0, -1, math.inf, math.nan, 1001, 0.0001])
def test_impossible_shares_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match="not between"):
        JobConfig(share=share)


@pytest.mark.parametrize("share", ["1", True, [1]])
def test_shares_are_numbers(share: Any) -> None:
    with pytest.raises(TypeError, match="not a number"):
        JobConfig(share=share)


@pytest.mark.parametrize("priority", [-1, 10])
def test_impossible_priorities_are_refused(priority: int) -> None:
    with pytest.raises(ValueError, match="priority"):
        JobConfig(priority=priority)


@pytest.mark.parametrize(
    ("name", "text"),
    [("RABBITRY_JOB_SHARE", "much"), ("RABBITRY_JOB_SHARE", "0"), ("RABBITRY_JOB_SHARE", "5000"),
     ("RABBITRY_JOB_PRIORITY", "10"), ("RABBITRY_JOB_PRIORITY", "1.5")],
)  # fmt: skip
def test_a_mistake_in_the_environment_is_told(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ValueError, match=name):
        job_shares.of_job(None)
