"""The Lua scripts, read once from the files beside this module."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

# Scripts that begin with the functions of other files.
_NEED: Final = {
    "commit": ("lives", "added"),
    "subscribe": ("lives", "added"),
    "count_attempts": ("lives", "fade"),
    "start_once": ("lives", "fade"),
    "park": ("added",),
    "tell": ("added",),
}


@cache
def source_of(name: str) -> str:
    """Return the text of `lua/<name>.lua`, after those of the functions it needs."""
    needed = "".join(map(source_of, _NEED.get(name, ())))
    return needed + (Path(__file__).parent / "lua" / f"{name}.lua").read_text()
