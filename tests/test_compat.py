"""What `make compat` and `make ray-versions` are made of; the programs themselves need Ray."""

from __future__ import annotations

import ast
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from compat import names
from compat.control_group import ControlGroup
from compat.environments import bounds, dependencies, variables
from compat.run import PROGRAMS, Outcome, main, remembered, verdict
from tests.server_binaries import find_rabbitmq_directory, find_redis_server
from tests.servers import wait_until

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


def test_an_older_ray_gets_the_packages_of_its_time() -> None:
    assert bounds("2.48.0") == ("protobuf<7",)
    assert bounds("2.60.0") == ()


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_prints_results_and_those_of_others_name_their_packages(name: str) -> None:
    source = PROGRAMS[name].read_text()
    assert '"RESULT' in source
    assert (dependencies(PROGRAMS[name]) is not None) == (PROGRAMS[name].parent.name == "libraries")


@pytest.mark.parametrize("arguments", [["modin"], ["tune", "--engines", "ray,other"]])
def test_what_is_not_there_is_told_before_anything_runs(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert f"there is no {'program modin' if len(arguments) == 1 else 'engine other'}" in capsys.readouterr().err


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


def processes_of(mark: str) -> list[str]:
    """Return the command lines of all processes that have this text in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has ended since
            continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.skipif(not (find_redis_server() and find_rabbitmq_directory()), reason="starts servers of its own")
def test_a_run_that_is_told_to_end_leaves_no_process(tmp_path: Path) -> None:
    """Neither of the program, nor of its nodes, nor of the servers: Erlang's port mapper is nobody's child."""
    mark = f"COMPAT_TEST_RUN={secrets.token_hex(8)}"
    program = tmp_path / "program.py"
    begun = tmp_path / "begun"
    program.write_text(f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(3600)\n")
    code = f"""
import pathlib, sys
from compat import run
run.PROGRAMS["program"] = pathlib.Path({str(program)!r})
run.Environments.python = lambda self, program: pathlib.Path(sys.executable)
sys.argv = ["run", "program", "--engines", "rabbitmq"]
sys.exit(run.main())
"""
    name, _, value = mark.partition("=")
    runner = subprocess.Popen([sys.executable, "-c", code], cwd=TOP, env={**os.environ, name: value})
    try:
        wait_until(lambda: begun.exists() or runner.poll() is not None, "the program runs", timeout=120)
        assert len(processes_of(mark)) > 5, "nodes and servers, beside the two"
        runner.send_signal(signal.SIGTERM)
        assert runner.wait(120) == 128 + signal.SIGTERM
        assert processes_of(mark) == []
    finally:
        runner.kill()
        runner.wait()


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


def test_a_module_that_cannot_be_imported_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises: a name that has moved, a package that is not there, a decorator's argument."""
    package = tmp_path / "library_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("def decorated(*, known): ...\n")
    (package / "argument.py").write_text("from . import decorated\ndecorated(unknown=1)\n")
    (package / "moved.py").write_text("from . import gone\n")
    (package / "package.py").write_text("import package_that_is_not_there\n")
    (package / "good.py").write_text("name = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(TOP)
    assert names.missing("library_of_a_test.good.name") is None
    assert "unknown" in str(names.missing("library_of_a_test.argument"))
    assert "unknown" in str(names.missing("library_of_a_test.argument.name"))
    assert "gone" in str(names.missing("library_of_a_test.moved"))
    assert "package_that_is_not_there" in str(names.missing("library_of_a_test.package"))
    asked = ["library_of_a_test.good", "library_of_a_test.good.name", "library_of_a_test.argument"]
    assert names.had_by_ray(asked) == set(asked[:2])


def test_a_library_wants_its_own_modules_too(tmp_path: Path) -> None:
    for path in ("data/__init__.py", "data/inner.py", "data/tests/test_inner.py", "data/__main__.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("import ray\nray.get\n" if path == "data/inner.py" else "")
    assert set(names.wanted_by("data", tmp_path)) == {"ray.get", "ray.data", "ray.data.inner"}
