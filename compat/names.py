"""Which names Ray's own libraries take from its core that the alias has not: read from their source, and looked up.

    python -m compat.names [LIBRARY ...]

Runs in an environment that has Ray and rabbitry. Prints one line a name that is missing, and who wants it; returns 1 if
there is one. This is how a Ray that moves a name is found out before a program runs into it.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import sys
from collections.abc import Iterator
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


def wanted_by(library: str, root: Path) -> dict[str, Path]:
    """Return the names of the core that a library wants, each with a file that does."""
    wanted: dict[str, Path] = {}
    for path in sorted((root / library).rglob("*.py")):
        relative = path.relative_to(root)
        if {"tests", "examples", "benchmarks", "release"} & set(relative.parts):
            continue
        for name in core_names(ast.parse(path.read_text(encoding="utf-8"))):
            if is_of_the_core(name):
                wanted.setdefault(name, relative)
    return wanted


def is_of_the_core(name: str) -> bool:
    """Return True for names that the libraries do not bring themselves."""
    below = name.split(".")[1]
    if below in (*LIBRARIES, "llm", "dashboard", "core", "scripts", "widgets", "cloudpickle"):
        return False
    return not any(name == absent or name.startswith(f"{absent}.") for absent in NOT_WANTED)


def missing(name: str) -> str | None:
    """Return why a name cannot be had, None if it can: as an attribute of one of the modules that it begins with."""
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
            if not (error.name or "").startswith("ray"):
                return None  # dask, torch and the like are for who uses them to install
            reason = reason or str(error)
        except ImportError:
            return None  # and so say the libraries themselves
        else:
            return None
    return reason


def main() -> int:
    """Print what is missing; return 1 if something is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("libraries", nargs="*", default=LIBRARIES)
    options = parser.parse_args()
    install()
    root = wheel.directory()
    if root is None:
        parser.error("there is no Ray in this environment")
    count = 0
    for library in options.libraries:
        for name, path in sorted(wanted_by(library, root).items()):
            reason = missing(name)
            if reason is not None:
                count += 1
                print(f"MISSING {name} (ray/{path}): {reason}")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
