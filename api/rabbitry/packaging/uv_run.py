"""The environment of a driver that `uv run` started: its tasks are started the same way, in the same directory.

uv run --with torch driver.py  -->  {"py_executable": "uv run --with torch --python 3.12.4 python", "working_dir": "."}
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from pathlib import Path
from typing import Any, Final

from rabbitry import environment
from rabbitry.runtime_env import uris

SWITCH: Final = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"
"""0: tasks of a driver that `uv run` started are started as any others; Ray's name."""

_WITH_VALUE: Final = frozenset(
    (
        "--extra", "--no-extra", "--only-group", "--group", "--no-group", "--env-file", "--with", "--with-editable",
        "--with-requirements", "--package", "--index", "--default-index", "-i", "--index-url", "--extra-index-url",
        "-f", "--find-links", "--index-strategy", "--keyring-provider", "-P", "--upgrade-package", "--resolution",
        "--prerelease", "--fork-strategy", "--exclude-newer", "--reinstall-package", "--link-mode", "-C",
        "--config-setting", "--no-build-isolation-package", "--no-build-package", "--no-binary-package",
        "--cache-dir", "--refresh-package", "-p", "--python", "--python-preference", "--python-platform", "--color",
        "--allow-insecure-host", "--directory", "--project", "--config-file", "-w", "-m", "--module",
    )
)  # fmt: skip
"""Options of `uv run` that the next word belongs to."""

_NOT_FOR_TASKS: Final = frozenset(("--directory", "-m", "--module"))


def with_uv_run(env: dict[str, Any]) -> dict[str, Any]:
    """Return the environment of this driver with what `uv run` was told, if that has started it.

    Raises:
        RuntimeError: fields of `env` exclude it, or what it needs is not in the working directory.
    """
    command = None if environment.is_off(SWITCH) else command_line()
    if command is None:
        return env
    for field in ("pip", "uv", "conda", "py_executable", "image_uri", "container"):
        if field in env:
            raise RuntimeError(
                f"runtime_env has {field!r}, and 'uv run' has started this program: its tasks run in the environment "
                f"that 'uv run' makes. Add what they need there (pyproject.toml, --with), or set {SWITCH}=0."
            )
    options = options_of(command)
    directory = env.get("working_dir") or os.getcwd()
    if uris.is_path(directory) and os.path.isdir(directory):
        _check_files(options, Path(directory).resolve())
    told = [word for option in options if option[0] not in _NOT_FOR_TASKS for word in option]
    if not any(option[0] in ("-p", "--python") for option in options):
        version = env.get("env_vars", {}).get("UV_PYTHON") or environment.text("UV_PYTHON") or platform.python_version()
        told += ["--python", version]
    return {**env, "py_executable": shlex.join([*command[:2], *told, "python"]), "working_dir": directory}


def options_of(command: list[str]) -> list[list[str]]:
    """Return the options of `uv run`, each with its value, up to what it runs.

    >>> options_of("uv run --with torch -p3.12 -q --with=dask driver.py --with me".split())
    [['--with', 'torch'], ['-p3.12'], ['-q'], ['--with', 'dask']]
    """
    options = []
    words = iter(command[2:])
    for word in words:
        name, equals, value = word.partition("=")
        if word == "--" or not word.startswith("-") or word == "-":
            break
        if name in _WITH_VALUE and name.startswith("--") and equals:
            options.append([name, value])
        elif word in _WITH_VALUE:
            options.append([word, *([value] if (value := next(words, "")) else [])])
            if word in ("-m", "--module"):
                break
        else:
            options.append([word])
    return options


def command_line() -> list[str] | None:
    """Return the command line of the `uv run` that this process descends from; None if it does of none."""
    pid = os.getppid()
    while pid > 1:
        words, parent = _process(pid)
        if len(words) > 1 and os.path.basename(words[0]) == "uv" and words[1] == "run":
            return words
        pid = parent
    return None


def _process(pid: int) -> tuple[list[str], int]:
    """Return the command line of a process, and its parent."""
    try:
        if os.path.isdir("/proc/self"):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
            return words, int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if not environment.text("UV"):  # which `uv run` sets for what it starts
            return [], 0
        shown = subprocess.run(
            ["ps", "-o", "ppid=,command=", "-p", str(pid)], capture_output=True, text=True, check=True
        ).stdout.split(maxsplit=1)
        return shlex.split(shown[1]), int(shown[0])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return [], 0


def _check_files(options: list[list[str]], directory: Path) -> None:
    """What `uv run` reads here, it must find on the nodes: in the working directory."""
    files = [Path(value) for name, *values in options if name == "--with-requirements" for value in values]
    if not any(option[0] == "--no-project" for option in options):
        given = next((option[1] for option in options if option[0] == "--project" and len(option) > 1), None)
        here = [Path(given)] if given else [Path.cwd().resolve(), *Path.cwd().resolve().parents]
        project = next((each / "pyproject.toml" for each in here if (each / "pyproject.toml").exists()), None)
        files += [project] if project is not None else []
    for file in files:
        if not file.resolve().is_relative_to(directory):
            raise RuntimeError(
                f"'uv run' reads {file.resolve()}, which is not in the working directory {directory}: tasks would not "
                "find it. Start the program there, or name a directory that has it: runtime_env={'working_dir': ...}."
            )
