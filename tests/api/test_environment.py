"""Variables of the environment: see `rabbitry.environment`."""

from __future__ import annotations

import pytest

from rabbitry import environment


def test_the_first_variable_that_says_something_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "")
    monkeypatch.setenv("TWO", "two")
    assert environment.text("ONE", "TWO") == "two"
    assert environment.text("ONE") == environment.text("THREE") == ""


def test_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, on, off in (("1", True, False), ("0", False, True), ("false", False, True), ("yes", False, False)):
        monkeypatch.setenv("FLAG", value)
        assert (environment.is_on("OTHER", "FLAG"), environment.is_off("FLAG")) == (on, off)


@pytest.mark.parametrize("nonsense", ["-1", "much", "nan"])
def test_numbers(monkeypatch: pytest.MonkeyPatch, nonsense: str) -> None:
    assert environment.number("NUMBER", int) is None
    monkeypatch.setenv("NUMBER", "2.5")
    assert environment.number("NUMBER", float) == 2.5
    monkeypatch.setenv("NUMBER", nonsense)
    with pytest.raises(ValueError, match=f"NUMBER='{nonsense}' is not a number of 0 or more"):
        environment.number("NUMBER", float)


def test_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.default_max_retries(3) == 3
    monkeypatch.setenv("RAY_TASK_MAX_RETRIES", "-1")
    assert environment.default_max_retries(3) == -1
    monkeypatch.setenv("RABBITRY_TASK_MAX_RETRIES", "often")
    with pytest.raises(ValueError, match=r"RABBITRY_TASK_MAX_RETRIES \(or RAY_TASK_MAX_RETRIES\) is 'often'"):
        environment.default_max_retries(3)
