"""What Ray's own libraries take from its core that the alias has not: read from their source, looked up, and imported.

    python -m compat.names [LIBRARY ...]

Runs in an environment that has Ray and rabbitry. Prints one line a name that is missing, and who wants it, and one a
module of a library that cannot be imported; returns 1 if there is one. What the Ray of this environment has neither
(what needs a package that is not there, what Ray has retired) is counted, and not missing. This is how a Ray that moves
a name is found out before a program runs into it.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from rabbitry.as_ray import install
from rabbitry.ray_alias import wheel

LIBRARIES = ("air", "data", "train", "tune", "serve", "rllib")

NOT_WANTED = {
    "ray.ActorHandle": "named in an annotation that is never evaluated; Ray has it neither",
    "ray._private.worker._global_node": "None until there is a session; then it has all that is asked of it",
    "ray.tests": "not in the wheel",
    "ray.util.client.ray_client_helpers": "the protocol of Ray Client",
}
"""What need not be found, with the reason; names below it included."""

ABSENT = object()


def core_names(tree: ast.AST) -> Iterator[str]:
    """Yield the full names below `ray` that a module imports or reaches by attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").partition(".")[0] == "ray":
            yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name != "*")
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("ray."))
        elif isinstance(node, ast.Attribute):
            parts = []
            inner: ast.expr = node
            while isinstance(inner, ast.Attribute):
                parts.append(inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id == "ray":
                yield ".".join(["ray", *reversed(parts)])


def files_of(library: str, root: Path) -> Iterator[Path]:
    """Yield a library's files, relative to Ray's directory, without what only its developers run."""
    for path in sorted((root / library).rglob("*.py")):
        relative = path.relative_to(root)
        if not {"tests", "examples", "benchmarks", "release"} & set(relative.parts):
            yield relative


def wanted_by(library: str, root: Path) -> dict[str, Path]:
    """Return the names of the core that a library wants, each with a file that does; and its own modules."""
    wanted: dict[str, Path] = {}
    for path in files_of(library, root):
        for name in core_names(ast.parse((root / path).read_text(encoding="utf-8"))):
            if is_of_the_core(name):
                wanted.setdefault(name, path)
    for path in files_of(library, root):
        if path.name != "__main__.py":
            wanted.setdefault(".".join(["ray", *path.with_suffix("").parts]).removesuffix(".__init__"), path)
    return wanted


def is_of_the_core(name: str) -> bool:
    """Return True for names that the libraries do not bring themselves."""
    below = name.split(".")[1]
    if below in (*LIBRARIES, "llm", "dashboard", "core", "scripts", "widgets", "cloudpickle"):
        return False
    return not any(name == absent or name.startswith(f"{absent}.") for absent in NOT_WANTED)


def missing(name: str) -> str | None:
    """Return why a name cannot be had, None if it can: as an attribute of one of the modules that it begins with.

    A module that is there and cannot be imported, whatever it raises, is missing.
    """
    parts = name.split(".")
    reason = ""
    for modules in range(len(parts) - 1, 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:modules]))
            for position, part in enumerate(parts[modules:], modules):
                found = getattr(found, part, ABSENT)
                if found is ABSENT:
                    found = importlib.import_module(".".join(parts[: position + 1]))
        except ModuleNotFoundError as error:
            reason = reason or str(error)
            if (error.name or "").partition(".")[0] != "ray":
                return reason
        except Exception as error:  # noqa: BLE001 - a decorator that gets what it does not know, a name that has moved
            return f"{type(error).__name__}: {error}"
        else:
            return None
    return reason


def had_by_ray(names: Iterable[str]) -> set[str]:
    """Return which of these names the installed Ray has: asked in a process of its own, which has no alias."""
    code = (
        "import json, sys; from compat.names import missing; print(json.dumps([*map(missing, json.load(sys.stdin))]))"
    )
    asked = sorted(names)
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    reasons = json.loads(done.stdout.splitlines()[-1])  # some modules print when they are imported
    return {name for name, reason in zip(asked, reasons, strict=True) if reason is None}


def main() -> int:
    """Print what is missing; return 1 if something is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("libraries", nargs="*", default=LIBRARIES)
    options = parser.parse_args()
    install(children=False)
    root = wheel.directory()
    if root is None:
        parser.error("there is no Ray in this environment")
    wanted: dict[str, Path] = {}
    for library in options.libraries:
        wanted |= wanted_by(library, root)
    reasons = {name: reason for name in sorted(wanted) if (reason := missing(name)) is not None}
    had = had_by_ray(reasons)
    for name in sorted(had):
        print(f"MISSING {name} (ray/{wanted[name]}): {' '.join(reasons[name].split())}")
    neither = len(reasons) - len(had)
    print(f"{len(wanted)} names and modules; {len(had)} are missing, and {neither} this Ray has neither")
    return int(bool(had))


if __name__ == "__main__":
    sys.exit(main())
