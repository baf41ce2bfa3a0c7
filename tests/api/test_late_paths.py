"""Modules in directories that were added to `sys.path` after `init()`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import rabbitry
from rabbitry import late_paths


@rabbitry.remote
def need(name: str) -> None:
    __import__(name)


def test_an_error_names_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "found_late.py").touch()
    with rabbitry.init(num_cpus=1, log_to_driver=False):
        with pytest.raises(ModuleNotFoundError, match="if that was added before init"):
            rabbitry.get(need.remote("found_late"))
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        with pytest.raises(ModuleNotFoundError, match=f"found_late is in {tmp_path}, .*: add it before"):
            rabbitry.get(need.remote("found_late"))


def test_only_what_is_there_and_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "found_late.py").touch()
    monkeypatch.setattr(late_paths, "_known", None)
    assert late_paths.hint("found_late") == ""
    late_paths.told(sys.path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert late_paths.hint("found_late.part").startswith("found_late is in ")
    assert late_paths.hint("no_such_module") == ""
    assert late_paths.hint(None) == ""
    late_paths.told(sys.path)
    assert late_paths.hint("found_late") == ""
