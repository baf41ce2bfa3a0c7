"""The environments of the programs: one for Ray's own libraries, one for each library of others, as its user makes it.

A program that needs more than Ray's own libraries names it in its head, as inline script metadata (PEP 723). There it
may also say, in `[tool.compat.variables]`, which variables of the environment its nodes and it have besides.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ROOT / ".compat"
RAYS_OWN = ("ray[data,default,rllib,serve,train,tune]", "optuna", "pandas", "pillow", "polars", "pyarrow", "torch")
RABBITRY = f"{ROOT}[dashboard,environments]"
WITHOUT_PAGES = f"{ROOT}[environments]"
"""For other people's libraries: some want a web framework that is older than what the dashboard's pages need."""


def _head(program: Path) -> str:
    """Return the inline metadata of a program, empty if it has none."""
    block = re.search(r"^# /// script\n((?:#.*\n)+?)# ///$", program.read_text(), re.MULTILINE)
    return re.sub(r"^# ?", "", block[1], flags=re.MULTILINE) if block is not None else ""


def dependencies(program: Path) -> tuple[str, ...] | None:
    """Return the packages that a program's head names, None if it names none: then it wants Ray's own libraries."""
    named = re.search(r"^dependencies = \[(.*?)\]$", _head(program), re.MULTILINE | re.DOTALL)
    return tuple(re.findall(r'"([^"]+)"', named[1])) if named is not None else None


def variables(program: Path, folder: Path) -> dict[str, str]:
    """Return the variables that a program's head asks for.

    Args:
        program: the program.
        folder: what stands for `{folder}` in them: a directory that nodes and program can write to.
    """
    table = _head(program).partition("[tool.compat.variables]\n")[2]
    named = re.findall(r'^(\w+) = "([^"]*)"$', table, re.MULTILINE)
    return {name: value.replace("{folder}", str(folder)) for name, value in named}


def bounds(ray: str) -> tuple[str, ...]:
    """Return what a version of Ray needs to be older than the newest, and does not say."""
    older = tuple(int(part) for part in ray.split(".")[:2]) < (2, 56)
    return ("protobuf<7",) if older else ()  # Serve asks messages for what protobuf 7 has removed


@dataclass(frozen=True)
class Environments:
    """Makes environments, each once.

    Attributes:
        ray: Ray's version in them, such as "2.60.0".
        uv: the path of uv, which makes them.
        base: the Python that they are made of, as uv takes it.
    """

    ray: str
    uv: str
    base: str

    @property
    def folder(self) -> Path:
        """Where they are."""
        return ENVIRONMENTS / self.ray

    def python(self, program: Path) -> Path:
        """Return the interpreter of a program's environment, which is made if there is none.

        Raises:
            subprocess.CalledProcessError: something could not be installed; uv has said what.
        """
        needed = dependencies(program)
        if needed is None:
            return self.made("ray", RAYS_OWN)
        return self.made(program.stem, needed, WITHOUT_PAGES)

    def made(self, name: str, packages: Sequence[str], rabbitry: str = RABBITRY) -> Path:
        """Return the interpreter of the environment of this name, made anew if its packages are others."""
        folder = self.folder / name
        python = folder / "bin" / "python"
        wanted = [*packages, *bounds(self.ray), f"ray=={self.ray}"]
        note = folder / "packages.txt"
        if not note.exists() or note.read_text().splitlines() != wanted:
            self._uv("venv", "--allow-existing", "--python", self.base, str(folder))
            self._uv("pip", "install", "--compile-bytecode", "--python", str(python), "-e", rabbitry, *wanted)
            note.write_text("\n".join(wanted))
        return python

    def _uv(self, *arguments: str) -> None:
        variables = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
        subprocess.run([self.uv, "--quiet", *arguments], check=True, env=variables)
