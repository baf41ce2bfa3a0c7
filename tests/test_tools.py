"""What `make` runs before anything is installed, and what goes into a release."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

TOP = Path(__file__).parents[1]
NOT_FOR_THE_SDIST = {".gitignore", ".pre-commit-config.yaml"}
ALWAYS_IN_THE_SDIST = {"LICENSE", "README.md", "pyproject.toml"}


def check_servers(path: str, user: int) -> subprocess.CompletedProcess[str]:
    """Ask, without any package of the environment, whether there can be servers, as `user` with a PATH."""
    program = (
        "import os, runpy, sys, tests.server_binaries as binaries\n"
        "binaries.RABBITMQ_DIRECTORIES = binaries.REDIS_DIRECTORIES = ()\n"
        f"os.geteuid = lambda: {user}\n"
        "sys.argv = ['tools/test_servers.py', '--check']\n"
        "runpy.run_path('tools/test_servers.py', run_name='__main__')\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RABBITRY_TEST_")}
    environment = {**kept, "PATH": path, "PYTHONPATH": str(TOP)}
    return subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=TOP, env=environment, capture_output=True, text=True, timeout=30
    )


def test_without_servers_root_or_docker_the_check_fails_and_says_what_to_do(tmp_path: Path) -> None:
    done = check_servers(str(tmp_path), user=1000)
    assert done.returncode == 1
    assert "this machine lacks: redis-server, rabbitmq-server" in done.stderr
    assert "apt-get install redis-server rabbitmq-server" in done.stderr


@pytest.mark.parametrize("target", ["up", "down"])
def test_a_machine_without_compose_is_told_what_is_missing(tmp_path: Path, target: str) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("there is no make")
    done = subprocess.run(
        [make, target], cwd=TOP, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode != 0
    assert "https://docs.docker.com/compose/install/" in done.stderr


def test_root_with_apt_get_may_install(tmp_path: Path) -> None:
    (tmp_path / "apt-get").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "apt-get").chmod(0o755)
    assert check_servers(str(tmp_path), user=0).returncode == 0
    assert check_servers(str(tmp_path), user=1000).returncode == 1


def test_the_sdist_takes_along_all_that_is_tracked() -> None:
    if not (TOP / ".git").exists() or not shutil.which("git"):
        pytest.skip("what git tracks can be asked in a clone only")
    shown = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=True).stdout
    tracked = {line.split("/")[0] for line in shown.splitlines()}
    settings = tomllib.loads((TOP / "pyproject.toml").read_text())
    included = {each.lstrip("/") for each in settings["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]}
    assert included <= tracked, "the sdist names what does not exist"
    assert tracked - included - NOT_FOR_THE_SDIST == ALWAYS_IN_THE_SDIST
