"""What executors of a library's functions are to have imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from rabbitry.core.submit.library_modules import LibraryModules


def function_of(module: Any) -> Callable[[], None]:
    def function() -> None:
        pass

    function.__module__ = module
    return function


@pytest.fixture(autouse=True)
def imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] in ("ray", "torch", "modin", "pandas")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("ray.tune", "ray.tune.schedulers", "ray.tune._private", "ray.tune.impl.deep", "ray.util", "torch"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))


def test_a_library_s_heads_and_what_is_mostly_beside_them() -> None:
    named = LibraryModules().of(function_of("ray.tune.trainable.function_trainable"))
    assert {"ray.tune", "ray.tune.schedulers", "torch"} <= set(named)
    assert not {"ray.tune._private", "ray.tune.impl.deep", "ray.util", "json"} & set(named)


def test_the_answer_changes_only_for_a_library_that_was_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = LibraryModules()
    first = libraries.of(function_of("ray.tune.trainable"))
    for name in ("ray.data", "modin.pandas", "pandas"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert libraries.of(function_of("ray.tune.execution")) is first
    second = libraries.of(function_of("ray.data._internal.plan"))
    assert set(second) == {*first, "ray.data", "modin.pandas", "pandas"}
    assert libraries.of(function_of("modin.core.execution")) is second


def test_a_class_of_the_program_is_of_the_library_that_it_inherits_from() -> None:
    trainable = type("Trainable", (), {"__module__": "ray.tune.trainable.trainable"})
    mixin = type("Mixin", (), {"__module__": "__main__"})
    mine = type("Mine", (mixin, trainable), {"__module__": "__main__"})
    named = LibraryModules().of(type("Finer", (mine,), {"__module__": "program"}))
    assert {"ray.tune", "torch"} <= set(named)
    assert LibraryModules().of(mixin) == ()


def test_a_library_that_has_no_head_does_not_change_it_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = LibraryModules()
    first = libraries.of(function_of("ray.other.module"))
    monkeypatch.setitem(sys.modules, "pandas", ModuleType("pandas"))
    assert libraries.of(function_of("ray.other.module")) is first


def test_children_name_what_their_parent_had() -> None:
    libraries = LibraryModules()
    libraries.inherit(["ray.data", "torch"])
    assert libraries.of(function_of("ray.data.block")) == ("ray.data", "torch")


@pytest.mark.parametrize("module", ["__main__", "rabbitry.util.actor_pool", "rays.tune", None, 1])
def test_other_functions_are_of_no_library(module: Any) -> None:
    assert LibraryModules().of(function_of(module)) == ()


def test_it_can_be_switched_off() -> None:
    assert LibraryModules(on=False).of(function_of("ray.tune.trainable")) == ()
    assert LibraryModules().of(None) == ()
