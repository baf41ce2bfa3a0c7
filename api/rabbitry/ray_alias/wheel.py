"""Where the Python files of an installed Ray are. Ray itself is never imported."""

from __future__ import annotations

import os
import re
import sys
from functools import lru_cache
from pathlib import Path

from rabbitry.ray_alias.table import OLDEST_RAY

COMPILED = "_raylet.so"
"""The file by which an installed Ray is told from other packages of that name."""


@lru_cache(maxsize=1)
def directory() -> Path | None:
    """Return the folder of the installed Ray's package, None if there is none on `sys.path`."""
    for entry in sys.path:
        found = Path(entry or os.curdir, "ray")
        if (found / COMPILED).is_file():
            return found.resolve()
    return None


@lru_cache(maxsize=1)
def is_too_old() -> bool:
    """Return True if the installed Ray is older than those whose Python runs here."""
    found = re.findall(r"\d+", version() or "")
    return bool(found) and tuple(map(int, found[:2])) < OLDEST_RAY


@lru_cache(maxsize=1)
def version() -> str | None:
    """Return the installed Ray's version, such as "2.60.0"; None if there is none."""
    return _constant("version")


@lru_cache(maxsize=1)
def commit() -> str | None:
    """Return the commit that the installed Ray was built from; None if there is none."""
    return _constant("commit")


def _constant(name: str) -> str | None:
    folder = directory()
    if folder is None:
        return None
    match = re.search(rf"^{name} *= *['\"]([^'\"]+)", (folder / "_version.py").read_text(), re.MULTILINE)
    return match[1] if match else None


def file(name: str) -> tuple[Path | None, Path | None]:
    """Return where the wheel has a module.

    Args:
        name: below `ray`, such as `data.block`.

    Returns:
        Its file, None for a folder without `__init__.py`; and its folder, None for what is no package. Both None if the
        wheel has no such module, or there is no wheel.
    """
    folder = directory()
    if folder is None or is_too_old():
        return None, None
    base = folder.joinpath(*name.split("."))
    package = base / "__init__.py"
    if package.is_file():
        return package, base
    module = base.parent / f"{base.name}.py"
    if module.is_file():
        return module, None
    return None, base if base.is_dir() else None


def packages_inside() -> Path | None:
    """Return the folder of packages that the wheel carries for itself (psutil, ...); None if it has none."""
    folder = directory()
    inside = folder / "thirdparty_files" if folder is not None else None
    return inside if inside is not None and inside.is_dir() else None
