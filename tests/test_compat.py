"""What `make compat` and `make ray-versions` are made of; the programs themselves need Ray."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from compat import names
from compat.control_group import ControlGroup
from compat.environments import dependencies, variables
from compat.run import PROGRAMS, Outcome, remembered, verdict

TOP = Path(__file__).parents[1]


def outcome(*values: str, error: str = "") -> Outcome:
    return Outcome(list(values), "", 1.0, None, error)


def test_a_program_says_in_its_head_what_it_needs(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text('# /// script\n# dependencies = ["modin[ray]", "pandas<3"]\n# ///\nprint(["x"])\n')
    assert dependencies(program) == ("modin[ray]", "pandas<3")
    program.write_text("print()\n")
    assert dependencies(program) is None


def test_a_program_says_in_its_head_which_variables_its_nodes_have(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    table = '# [tool.compat.variables]\n# LIMIT = "5"\n# PLACE = "file://{folder}/x"\n'
    program.write_text(f"# /// script\n{table}# ///\nprint()\n")
    assert variables(program, Path("/there")) == {"LIMIT": "5", "PLACE": "file:///there/x"}
    assert dependencies(program) is None, "variables are no packages"
    program.write_text(f'# /// script\n# dependencies = [\n#   "one",\n#   "two[three]",\n# ]\n{table}# ///\n')
    assert dependencies(program) == ("one", "two[three]")
    assert variables(program, Path("/there"))["LIMIT"] == "5"
    program.write_text("print()\n")
    assert variables(program, Path("/there")) == {}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_prints_results_and_those_of_others_name_their_packages(name: str) -> None:
    source = PROGRAMS[name].read_text()
    assert '"RESULT' in source
    assert (dependencies(PROGRAMS[name]) is not None) == (PROGRAMS[name].parent.name == "libraries")


def test_an_outcome_is_measured_by_what_ray_gave() -> None:
    assert verdict("embedded", outcome("RESULT 1"), ["RESULT 1"]) == "as Ray"
    assert verdict("embedded", outcome("RESULT 2"), ["RESULT 1"]).startswith("differs")
    assert verdict("embedded", outcome("RESULT 1"), None) == "ran"
    assert verdict("ray", outcome(error="boom"), None) == "failed"


def test_what_ray_gave_is_remembered_until_the_program_changes(tmp_path: Path) -> None:
    program, notes = tmp_path / "program.py", tmp_path / "notes"
    program.write_text("1")
    assert remembered(program, notes) is None
    assert remembered(program, notes, outcome("RESULT 1", "RESULT 2")) == ["RESULT 1", "RESULT 2"]
    assert remembered(program, notes, outcome(error="boom")) == ["RESULT 1", "RESULT 2"]
    assert remembered(program, notes) == ["RESULT 1", "RESULT 2"]
    program.write_text("2")
    assert remembered(program, notes) is None


def test_names_are_read_from_imports_and_attributes() -> None:
    tree = ast.parse("import ray.a.b\nfrom ray.c import d\nray.e.f()\nfrom . import g\nfrom raylib import h\n")
    assert set(names.core_names(tree)) == {"ray.a.b", "ray.c.d", "ray.e.f", "ray.e"}
    assert names.is_of_the_core("ray.util.queue")
    assert not names.is_of_the_core("ray.data.range")
    assert not names.is_of_the_core("ray.tests.conftest")


def test_a_group_without_a_folder_changes_nothing() -> None:
    group = ControlGroup(None)
    assert group.command(["true"]) == ["true"]
    assert group.processor_seconds() is None
    group.close()


def test_names_are_looked_up_under_the_alias() -> None:
    wanted = ["ray.get", "ray.SCRIPT_MODE", "ray.util.placement_group.PlacementGroup", "ray.util.nothing", "ray.gett"]
    code = f"""
from rabbitry.as_ray import install
install(children=False)
from compat.names import missing
print([name for name in {wanted!r} if missing(name) is not None])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=40, cwd=TOP)
    assert done.stdout.strip() == "['ray.util.nothing', 'ray.gett']", done.stderr
