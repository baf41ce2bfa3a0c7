"""Environments of conda, where conda (or mamba, or micromamba) is installed on the node."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from rabbitry_workers.environments.cache import SetupError
from rabbitry_workers.environments.installing import Runner

_LIST_SECONDS = 120.0


def find_conda() -> str:
    """Return the path of conda.

    Raises:
        SetupError: there is none.
    """
    candidates = [os.environ.get("CONDA_EXE"), os.environ.get("MAMBA_EXE"), "conda", "mamba", "micromamba"]
    for each in candidates:
        found = shutil.which(each) if each else None
        if found:
            return found
    raise SetupError(
        "the node has no conda, which this environment wants: install it there, and see that PATH of the node has it, "
        "or that CONDA_EXE names it."
    )


def prefix_of(name: str) -> Path:
    """Return the directory of an environment of conda that is on the node.

    Raises:
        SetupError: there is none of that name.
    """
    if os.path.isabs(name):
        if not os.path.isdir(name):
            raise SetupError(f"the node has no conda environment in {name}")
        return Path(name)
    known = _environments(find_conda())
    for path in known:
        if Path(path).name == name or (name in ("base", "root") and path == known[0]):
            return Path(path)
    raise SetupError(f"the node has no conda environment {name!r}; it has {', '.join(known) or 'none'}")


def _environments(conda: str) -> list[str]:
    """Return the directories of all environments, that of conda itself first."""
    try:
        done = subprocess.run(
            [conda, "info", "--json"], capture_output=True, text=True, timeout=_LIST_SECONDS, check=True
        )
        facts = json.loads(done.stdout)
        root = facts.get("root_prefix") or facts.get("base environment", "")
        found = [str(each) for each in facts.get("envs", [])]
        return [str(root), *[each for each in found if each != root]] if root else found
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise SetupError(f"{conda} does not say which environments it has: {error}") from error


def create(content: dict[str, Any], path: Path, runner: Runner) -> None:
    """Make an environment of conda in a directory.

    Args:
        content: of its YAML file.
        path: of the directory, which is there.
        runner: of commands.

    Raises:
        SetupError: it cannot be made; the log says why.
    """
    conda = find_conda()
    dependencies = list(content.get("dependencies") or [])
    if not any(isinstance(each, str) and re.match(r"python\s*[=<>]", each) for each in dependencies):
        dependencies.insert(0, f"python={sys.version_info[0]}.{sys.version_info[1]}")
    file = path / "environment.yml"
    file.write_text(json.dumps({**content, "dependencies": dependencies}))  # which is YAML, too
    words = ["create", "--yes"] if Path(conda).name.startswith("micromamba") else ["env", "create"]
    if not runner.run([conda, *words, "--prefix", str(path / "env"), "--file", str(file)]):
        raise SetupError("the environment of runtime_env['conda'] cannot be made")


def python_of(prefix: Path) -> str:
    """Return the interpreter of an environment.

    Raises:
        SetupError: it has none.
    """
    python = prefix / "bin" / "python"
    if not python.exists():
        raise SetupError(f"the conda environment {prefix} has no Python")
    return str(python)
