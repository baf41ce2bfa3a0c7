"""Random numbers of processes that were forked from one that had the libraries imported."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy
import pytest

from rabbitry_workers.executor import seeds


def test_forked_processes_do_not_draw_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = []
    torch = SimpleNamespace(default_generator=SimpleNamespace(seed=lambda: seeded.append(1)))
    monkeypatch.setitem(sys.modules, "torch", torch)
    state = numpy.random.get_state()
    try:
        drawn = []
        for _ in range(2):
            numpy.random.set_state(state)
            seeds.anew()
            drawn.append(numpy.random.randint(1 << 62))
    finally:
        numpy.random.set_state(state)
    assert drawn[0] != drawn[1] and len(seeded) == 2


def test_modules_that_only_have_these_names_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "numpy.random"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    seeds.anew()


def test_nothing_is_imported_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "numpy.random"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    seeds.anew()
    assert not {"torch", "numpy.random"} & sys.modules.keys()
