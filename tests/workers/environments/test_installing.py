"""Commands of builders: what is shown of them, and when a wheel is installed alone."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest

from rabbitry_workers.environments import installing
from rabbitry_workers.environments.installing import Runner, install_wheel, requirements_of
from rabbitry_workers.environments.masking import masked

SECRET = "s3cret"


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner({}, os.open(tmp_path, os.O_RDONLY))


def wheel(directory: Path, *requires: str) -> Path:
    """Make a wheel with one module."""
    path = directory / "fuzzy-1.0-py3-none-any.whl"
    lines = ["Metadata-Version: 2.1", "Name: fuzzy", "Version: 1.0", *(f"Requires-Dist: {each}" for each in requires)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fuzzy.py", "X = 1\n")
        archive.writestr("fuzzy-1.0.dist-info/METADATA", "\n".join(lines) + "\n")
        archive.writestr("fuzzy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("fuzzy-1.0.dist-info/RECORD", "")
    return path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:s3cret@host/simple", "https://****@host/simple"),
        ("https://me:a@s3cret@host", "https://****@host"),
        ("pip @ git+https://s3cret@host/x.git@v1", "pip @ git+https://****@host/x.git@v1"),
        ("two: http://a:s3cret@b/ 'http://s3cret@d'", "two: http://****@b/ 'http://****@d'"),
        ("none: mail@example.com https://host/a@b", "none: mail@example.com https://host/a@b"),
    ],
)
def test_passwords_in_urls_are_not_shown(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_neither_a_command_nor_what_it_prints_shows_a_password(
    runner: Runner, capfd: pytest.CaptureFixture[str]
) -> None:
    url = f"https://me:{SECRET}@pypi.example/simple"
    program = "import sys; print('looking at', sys.argv[1]); print(sys.argv[1], file=sys.stderr); sys.exit(3)"
    assert not runner.run([sys.executable, "-c", program, url])
    assert not runner.run([f"no-such-{url}"])
    said = "".join(capfd.readouterr())
    assert said.count("https://****@pypi.example/simple") >= 4
    assert SECRET not in said


def test_a_command_that_leaves_something_running_ends_all_the_same(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "REST_SECONDS", 0.1)
    assert runner.run(["/bin/sh", "-c", "sleep 5 & exit 0"])


@pytest.mark.parametrize(
    ("requires", "alone"),
    [
        ((), True),
        (("msgspec",), True),
        (("msgspec>=0.1,<999",), True),
        (("no-such-package; extra == 'more'",), True),
        (("no-such-package; python_version < '3'",), True),
        (("msgspec>=999",), False),
        (("no-such-package",), False),
        (("msgspec", "no-such-package"), False),
        (("msgspec[all]",), False),
        (("!!!",), False),
    ],
)
def test_a_wheel_is_installed_with_what_the_node_lacks_of_its_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requires: tuple[str, ...], alone: bool
) -> None:
    commands: list[list[str]] = []
    runner = Runner({}, 0)
    monkeypatch.setattr(runner, "run", lambda command, extra=None: commands.append(list(command)) or True)
    path = wheel(tmp_path, *requires)
    assert requirements_of(path) == list(requires)
    install_wheel(path, tmp_path / "to", runner)
    assert ("--no-deps" in commands[0]) == alone


def test_a_wheel_that_cannot_be_read_is_left_to_who_installs_it(tmp_path: Path) -> None:
    path = tmp_path / "odd-1.0-py3-none-any.whl"
    path.write_bytes(b"no archive")
    assert requirements_of(path) == []
