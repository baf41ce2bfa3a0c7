"""What a notebook shows, without one."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

import rabbitry
from rabbitry import notebook


def test_what_is_shown_is_escaped() -> None:
    assert "&lt;script&gt;" in notebook.table("<script>", [])
    assert notebook.table("x", [("<a>", "<b>&")]).count("&lt;") == 2


def test_a_ref_of_no_session() -> None:
    ref = rabbitry.ObjectRef.from_random()
    assert ref.hex() in ref._repr_html_()
    assert "of no session that runs" in ref._repr_html_()


def test_without_a_notebook_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))  # type: ignore[arg-type]
    assert notebook.kernel() is None
    cell = notebook.CurrentCell()
    cell.direct(sys.stdout)
    cell.stop()


def test_output_goes_to_the_cell_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    callbacks: list[Any] = []
    events = types.SimpleNamespace(
        register=lambda _, each: callbacks.append(each), unregister=lambda _, each: callbacks.remove(each)
    )
    parents = iter(["first cell", "second cell"])
    kernel = types.SimpleNamespace(shell=types.SimpleNamespace(events=events), get_parent=lambda: next(parents))
    shell = types.SimpleNamespace(kernel=kernel)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    set_to: list[str] = []
    stream = types.SimpleNamespace(set_parent=set_to.append)
    cell = notebook.CurrentCell()
    cell.direct(stream)
    callbacks[0]("what IPython tells of the cell")
    cell.direct(stream)
    assert set_to == ["first cell", "second cell"]
    cell.stop()
    cell.stop()
    assert callbacks == []
