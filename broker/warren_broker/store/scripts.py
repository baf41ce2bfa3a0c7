"""The Lua scripts, read once from the files beside this module."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def source_of(name: str) -> str:
    """Return the text of `lua/<name>.lua`."""
    return (Path(__file__).parent / "lua" / f"{name}.lua").read_text()
