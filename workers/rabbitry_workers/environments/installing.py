"""Layers of packages over those of the node: a virtual environment that sees the node's packages behind its own.

What the node has already, in a version that will do, is not installed again: an environment with one small package is
one small package. uv is asked for a solution that prefers the node's versions, and then installs of it what the node
lacks. Where uv is not, or finds none (it does not know of packages that are installed and in no index), pip does both,
as it does in Ray: it sees the node's packages as installed ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import venv
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from email.parser import HeaderParser
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from rabbitry_broker.parent_death import die_with_parent
from rabbitry_workers.environments.cache import SetupError
from rabbitry_workers.environments.masking import masked
from rabbitry_workers.executor.environment import expanded

_PINNED: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)\s*$")
_PIP_OPTIONS: Final = ("--disable-pip-version-check", "--no-input")
_AS_UV: Final = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
}
NODE_PTH: Final = "_rabbitry_node.pth"
REST_SECONDS: Final = (
    2.0  # for the rest of what a command printed; something that it left running may keep its output open
)


class Runner:
    """Runs commands, whose output goes where that of this process goes.

    Args:
        variables: of the environment that is built.
        lock: descriptor that what it starts keeps open.
    """

    def __init__(self, variables: Mapping[str, str], lock: int) -> None:
        self._variables = dict(variables)
        self._lock = lock

    def run(self, command: Sequence[str], *, extra: Mapping[str, str] | None = None) -> bool:
        """Run a command; return whether it succeeded. Of what it prints, passwords in URLs are not shown."""
        print(masked(f"$ {' '.join(command)}"), flush=True)
        environment = {**os.environ, **expanded(self._variables, os.environ), **(extra or {})}
        environment.pop("PYTHONPATH", None)  # what is on it is no part of the layer, nor of the node's packages
        environment.pop("VIRTUAL_ENV", None)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(self._lock,),
                preexec_fn=die_with_parent,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            print(masked(f"{command[0]}: {error}"), flush=True)
            return False
        said: Any = process.stdout
        reader = threading.Thread(target=_pass_on, args=(said,), name="rabbitry-says", daemon=True)
        reader.start()
        code = process.wait()
        reader.join(REST_SECONDS)
        return code == 0


def _pass_on(said: Iterable[str]) -> None:
    for line in said:
        print(masked(line), end="", flush=True)


def node_sites() -> list[tuple[str, int]]:
    """Return the directories in which packages of this interpreter lie, and when each was changed last."""
    found = []
    for each in sys.path:
        if re.search(r"(site|dist)-packages/?$", each):
            with contextlib.suppress(OSError):
                found.append((each, os.stat(each).st_mtime_ns))
    return found


def find_uv() -> str | None:
    """Return the path of uv: the one beside this Python, else the one on PATH."""
    beside = os.path.join(os.path.dirname(sys.executable), "uv")
    return beside if os.access(beside, os.X_OK) else shutil.which("uv")


def make_layer(path: Path, sites: Sequence[str]) -> str:
    """Make a virtual environment that sees the packages of these directories behind its own; return its Python."""
    venv.EnvBuilder(symlinks=True, with_pip=False, clear=False).create(path)
    lines = [f"import site; site.addsitedir({each!r})" for each in sites]
    (site_of(path) / NODE_PTH).write_text("\n".join(lines) + "\n")
    return str(path / "bin" / "python")


def site_of(path: Path) -> Path:
    """Return the directory of packages of a virtual environment that this interpreter made."""
    return path / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def install(field: str, spec: Mapping[str, Any], path: Path, runner: Runner, scratch: Path) -> None:
    """Install the packages of `pip` or `uv` into a layer.

    Args:
        field: "pip" or "uv".
        spec: of the environment, checked.
        path: of the layer.
        runner: of commands.
        scratch: directory for files that are needed meanwhile.

    Raises:
        SetupError: it cannot be done; the log says why.
    """
    python = str(path / "bin" / "python")
    lines = scratch / "requirements.txt"
    lines.write_text("\n".join(spec["packages"]) + "\n")
    version = spec.get(f"{field}_version")
    options = list(spec.get(f"{field}_{'pip_' if field == 'uv' else ''}install_options") or [])
    uv = find_uv()
    if version:
        tool = f"{field}{version}"
        installed = _by_uv(uv, python, [tool], runner) if uv else _by_pip(python, [tool], (), runner)
        if not installed:
            raise SetupError(f"{tool} cannot be installed")
        uv = str(path / "bin" / "uv") if field == "uv" else None
    if field == "uv" and uv is None:
        raise SetupError("the node has no uv, which this environment wants: install it there (pip install uv).")
    done = False
    # Options of pip are not uv's: who gives some means pip.
    if uv is not None and (field == "uv" or not options):
        done = _missing_by_uv(uv, python, lines, options, runner, scratch)
        if not done and field == "uv":
            done = _by_uv(uv, python, [*options, "-r", str(lines)], runner)
    if not done and field == "pip":
        done = _by_pip(python, ["-r", str(lines)], options, runner)
    if not done:
        raise SetupError(f"the packages of runtime_env[{field!r}] cannot be installed")
    if spec.get(f"{field}_check") and not runner.run([python, "-m", "pip", "check", *_PIP_OPTIONS[:1]]):
        raise SetupError(f"the packages of runtime_env[{field!r}] do not fit together ({field}_check)")


def _missing_by_uv(uv: str, python: str, lines: Path, options: list[str], runner: Runner, scratch: Path) -> bool:
    """Install what the node lacks; False if uv finds no solution."""
    here = _versions_here()
    solution = scratch / "solution.txt"
    solution.write_text("".join(f"{name}=={version}\n" for name, version in here.items()))
    compiled = runner.run(
        [uv, "pip", "compile", "--quiet", "--no-annotate", "--no-header", "--python", python, *options,
         str(lines), "-o", str(solution)],
        extra=_as_uv(),
    )  # fmt: skip
    if not compiled:
        return False
    missing = []
    for line in solution.read_text().splitlines():
        pinned = _PINNED.match(line)
        if line.strip() and not (pinned and here.get(_normal(pinned[1])) == pinned[2]):
            missing.append(line)
    if not any(not line.startswith("-") for line in missing):
        print("the node has all of it", flush=True)
        return True
    needed = scratch / "missing.txt"
    needed.write_text("\n".join(missing) + "\n")
    sources = [line for line in lines.read_text().splitlines() if line.startswith("-") and line not in missing]
    if sources:
        needed.write_text("\n".join([*sources, *missing]) + "\n")
    return _by_uv(uv, python, ["--no-deps", *options, "-r", str(needed)], runner)


def _by_uv(uv: str, python: str, what: list[str], runner: Runner) -> bool:
    return runner.run([uv, "pip", "install", "--python", python, *what], extra=_as_uv())


def _by_pip(python: str, what: list[str], options: Sequence[str], runner: Runner) -> bool:
    return runner.run([python, "-m", "pip", "install", *_PIP_OPTIONS, *options, *what])


def install_wheel(wheel: Path, path: Path, runner: Runner) -> None:
    """Install a wheel into a directory that need be on no interpreter's path, and what it requires, as Ray does.

    Where the node has all that the wheel requires, nothing but the wheel is installed, and no index is asked.

    Raises:
        SetupError: it cannot be installed.
    """
    uv = find_uv()
    alone = all(_node_has(each) for each in requirements_of(wheel))
    where = ["--target", str(path), *(["--no-deps"] if alone else []), str(wheel)]
    if uv and runner.run([uv, "pip", "install", "--python", sys.executable, *where], extra=_as_uv()):
        return
    if not runner.run([sys.executable, "-m", "pip", "install", *_PIP_OPTIONS, *where]):
        raise SetupError(f"the wheel {wheel.name} cannot be installed")


def requirements_of(wheel: Path) -> list[str]:
    """Return what a wheel requires, as it says itself; nothing if it cannot be read: who installs it will say so."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [each for each in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", each)]
            text = archive.read(names[0]).decode("utf-8", "replace") if names else ""
    except (OSError, zipfile.BadZipFile, RuntimeError):
        return []
    return HeaderParser().parsestr(text).get_all("Requires-Dist", [])


def _node_has(requirement: str) -> bool:
    """True if a requirement does not count here, or the node has what it names; False where that is not to be told."""
    for module in ("packaging.requirements", "pip._vendor.packaging.requirements"):
        with contextlib.suppress(ImportError):
            read: Any = import_module(module)
            break
    else:
        return False
    try:
        wanted = read.Requirement(requirement)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            return True
        fits: bool = wanted.specifier.contains(version(wanted.name), prereleases=True)
        return fits and not wanted.extras and wanted.url is None
    except (PackageNotFoundError, ValueError):
        return False


def _versions_here() -> dict[str, str]:
    from importlib.metadata import distributions

    found: dict[str, str] = {}
    for each in distributions():
        name = each.metadata["Name"]
        if name:
            found.setdefault(_normal(name), each.version)
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _as_uv() -> dict[str, str]:
    """Return what pip is told by variables in the words of uv, unless uv is told something itself."""
    return {
        theirs: os.environ[ours] for ours, theirs in _AS_UV.items() if os.environ.get(ours) and theirs not in os.environ
    }
