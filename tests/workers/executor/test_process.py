"""What a template imports for its executors, and what they set themselves."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rabbitry_workers.environments.making import Setup
from rabbitry_workers.executor import process


def test_libraries_are_imported_as_far_as_they_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # so that it is put back
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "a_library_of_threads.py").write_text(
        "import os\nTHREADS = os.environ['OMP_NUM_THREADS']\nCHECK = os.environ['PYTORCH_NVML_BASED_CUDA_CHECK']\n"
    )
    setup = Setup({}, [], {}, [], libraries=["no_such_library", "a_library_of_threads"], threads=3)
    process._import_libraries(setup)
    library = sys.modules.pop("a_library_of_threads")
    assert (library.THREADS, library.CHECK) == ("3", "1")
    assert not {"OMP_NUM_THREADS", "PYTORCH_NVML_BASED_CUDA_CHECK"} & os.environ.keys(), (
        "else it would look as if the user had said it"
    )
    assert "no_such_library is not imported" in capsys.readouterr().out
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    process._import_libraries(setup)
    assert sys.modules.pop("a_library_of_threads").THREADS == "7" == os.environ["OMP_NUM_THREADS"]


def test_a_process_of_a_shared_template_has_the_marks_of_its_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_DATA_SHUFFLE_MAP_WORKER", "")  # so that it is put back
    monkeypatch.setenv("A_VARIABLE", "the template's")
    monkeypatch.setattr(process, "_entered", True)
    variables = {"RAY_DATA_SHUFFLE_MAP_WORKER": "1", "A_VARIABLE": "never set after a fork"}
    setup = Setup({"env_vars": variables}, [], variables, [], libraries=["json"])
    assert process.enter({"setup": setup.pack()}).variables == variables
    assert (os.environ["RAY_DATA_SHUFFLE_MAP_WORKER"], os.environ["A_VARIABLE"]) == ("1", "the template's")
    plain = setup.without_marks()
    assert plain.variables == plain.env["env_vars"] == {"A_VARIABLE": "never set after a fork"}
    assert plain.without_marks() is plain
    only = Setup({"env_vars": {"__RAY_DATA_OPERATOR_ID": "7"}}, [], {"__RAY_DATA_OPERATOR_ID": "7"}, [])
    assert only.without_marks() == Setup({}, [], {}, [])
