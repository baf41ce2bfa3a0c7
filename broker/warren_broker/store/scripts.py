"""The Lua scripts, read once from the files beside this module."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

# Scripts that begin with the functions of another file.
_NEED: Final = {"commit": "lives", "subscribe": "lives"}


@cache
def source_of(name: str) -> str:
    """Return the text of `lua/<name>.lua`, after that of the functions it needs."""
    needed = source_of(_NEED[name]) if name in _NEED else ""
    return needed + (Path(__file__).parent / "lua" / f"{name}.lua").read_text()
