"""What libraries are told before tasks and actors are submitted."""

from __future__ import annotations

from typing import Any

import pytest

import rabbitry
from rabbitry import launch_hooks, remote_function
from rabbitry.core.ports import Captured, in_no_group
from rabbitry.launch_hooks import ask
from rabbitry.scheduling import PlacementGroupSchedulingStrategy


class Actor:
    pass


def function() -> None:
    pass


def asked(monkeypatch: pytest.MonkeyPatch, what: Any, strategy: Any, group: Any) -> list[Any]:
    monkeypatch.setattr(launch_hooks, "current_group", lambda: group)
    told: list[Any] = []
    ask(lambda *given: told.append(given), what, {"CPU": 1.0}, strategy)
    return told


def test_a_hook_is_told_what_is_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = in_no_group()
    ((launched, *others),) = asked(monkeypatch, function, "SPREAD", nowhere)
    assert (launched.module_name, launched.function_name, launched.class_name) == (__name__, "function", "")
    assert others == [{"CPU": 1.0}, "SPREAD"]
    ((launched, *others),) = asked(monkeypatch, Actor, None, nowhere)
    assert (launched.module_name, launched.function_name, launched.class_name) == (__name__, "__init__", "Actor")
    assert others == [{"CPU": 1.0}, None]
    monkeypatch.setattr(function, "__module__", "__main__")
    assert asked(monkeypatch, function, None, nowhere)[0][0].module_name != "", "the file of the program"


@pytest.mark.parametrize("captures", [True, False])
def test_what_runs_in_its_caller_s_group_has_that_for_its_strategy(
    monkeypatch: pytest.MonkeyPatch, captures: bool
) -> None:
    group = b"g" * 18
    ((_, _, strategy),) = asked(monkeypatch, function, None, Captured(group, captures))
    if captures:
        assert isinstance(strategy, PlacementGroupSchedulingStrategy)
        assert strategy.placement_group.id.binary() == group
    else:
        assert strategy is None


def test_what_a_hook_raises_keeps_a_function_from_being_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("no room for it")

    monkeypatch.setattr(remote_function, "_task_launch_hook", refuse)
    state = rabbitry.remote(function)._state
    with pytest.raises(RuntimeError, match="no room"):
        state.make_plan(None)  # type: ignore[arg-type]
