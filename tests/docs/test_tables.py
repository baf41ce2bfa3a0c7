"""The tables of the manual say what the code says."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from docs import ray_names, tables, variables

TOP = Path(__file__).parents[2]
SOURCES = ("api", "broker", "workers", "tools", "deploy", "examples", "docker-compose.yml", ".env.example", "Makefile")
ALSO_READ = ("tests", "benchmarks", ".github")
VARIABLE = re.compile(r"\bRABBITRY_[A-Z][A-Z_]*[A-Z]\b")


def variables_in(*places: str) -> set[str]:
    found = set()
    for place in places:
        top = TOP / place
        for path in [top] if top.is_file() else top.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found |= set(VARIABLE.findall(path.read_text(encoding="utf-8", errors="ignore")))
    return found


def test_every_variable_of_the_source_is_in_the_reference() -> None:
    shown = set(VARIABLE.findall(tables.variables_table()))
    assert variables_in(*SOURCES) - variables.NO_VARIABLES - shown == set(), "add them to docs/variables.py"


def test_the_reference_has_no_variable_that_nobody_reads() -> None:
    shown = set(VARIABLE.findall(tables.variables_table()))
    assert shown - variables_in(*SOURCES, *ALSO_READ) == set()


def test_every_setting_is_described_once() -> None:
    from rabbitry_broker import settings

    described = [name for name, _, _ in tables.of_settings()]
    assert sorted(described) == sorted(settings._VARIABLES.values())
    mentioned = [name for group in variables.GROUPS.values() for name in group]
    assert not {*described} & {*mentioned}


def test_notes_are_on_names_of_the_table() -> None:
    assert {(group, name) for group, names in ray_names.NAMES.items() for name in names} >= {*ray_names.NOTES}
    everything = {name for names in ray_names.NAMES.values() for name in names}
    assert everything >= {*ray_names.INSTEAD}
    for names in ray_names.NAMES.values():
        assert len(names) == len({*names})


def test_what_to_do_without_a_name_is_said_of_no_name_that_is_there() -> None:
    there = tables.names_there()
    lacking = {name for group, names in ray_names.NAMES.items() for name in names if name not in there[group]}
    assert {*ray_names.INSTEAD} - lacking == set()


def test_what_the_table_says_of_a_name_is_true() -> None:
    import rabbitry

    rows = {
        name: status
        for group in tables.ray_table().split("### ")
        if group.startswith("ray\n")
        for name, status in re.findall(r"^\| `(.+?)` \| (\w+) \|", group, re.MULTILINE)
    }
    for name in ("init", "remote", "wait", "get_actor"):
        assert rows[name] in ("yes", "differs") and callable(getattr(rabbitry, name))
    for name, status in rows.items():
        assert (status != "no") == hasattr(rabbitry, name), name


@pytest.mark.parametrize("option", ray_names.NAMES["Options of tasks"])
def test_an_option_that_is_there_is_known_to_the_decorator(option: str) -> None:
    import rabbitry

    complaint = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are deprecated, as in Ray
        try:
            rabbitry.remote(**{option: None})(lambda: None)
        except (TypeError, ValueError) as error:
            complaint = str(error)
    assert (option in tables.names_there()["Options of tasks"]) == ("Invalid option keyword" not in complaint)


@pytest.mark.parametrize(("lacking", "there"), [("some_package", True), ("rabbitry.util.queue", False)])
def test_a_module_that_needs_a_package_is_there_without_it(
    monkeypatch: pytest.MonkeyPatch, lacking: str, there: bool
) -> None:
    """The manual is built where optional packages are not installed."""

    def fail(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {lacking!r}", name=lacking)

    monkeypatch.setattr(tables.importlib, "import_module", fail)
    assert tables._module_is_there("ray.util.queue") is there


def test_all_commands_are_shown() -> None:
    text = tables.command_line()
    for command in ("start", "status", "health", "stop"):
        assert f"## rabbitry {command}" in text
    assert "SUPPRESS" not in text
