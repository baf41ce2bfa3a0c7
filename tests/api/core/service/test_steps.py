"""Steps of a service: see `rabbitry.core.service.steps`."""

from __future__ import annotations

import logging

import pytest

from rabbitry.core.service.steps import Steps


def fail() -> None:
    raise ValueError("of the test")


def test_a_failure_is_told_once_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(logging.getLogger("rabbitry"), "warning", lambda text, *rest, **_: told.append(text % rest))
    over = False
    steps = Steps("the service", lambda: over)
    assert [steps.run("failing", fail) for _ in range(3)] == [False] * 3
    assert told == ["the service: failing failed and is tried again: ValueError: of the test"]
    assert steps.run("failing", lambda: None)
    assert not steps.run("failing", fail)
    assert len(told) == 2
    over = True
    assert not steps.run("another", fail)
    assert len(told) == 2
