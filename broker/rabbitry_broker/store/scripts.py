"""The Lua scripts, read once from the files beside this module."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

_DIRECTORY: Final = Path(__file__).parent / "lua"

# Scripts that begin with the functions of other files.
_NEED: Final = {
    "commit": ("lives", "added", "publish_here"),
    "subscribe": ("lives", "added"),
    "count_attempts": ("lives", "fade"),
    "start_once": ("lives", "fade"),
    "park": ("added",),
    "tell": ("added",),
    "actor_create": ("added",),
    "actor_end": ("unheld",),
    "actor_kill": ("unheld",),
    "hold_function": ("lives", "added"),
    "hold_again": ("lives", "added"),
    "release_functions": ("unheld",),
    "group_create": ("group_move",),
    "group_plan": ("group_move",),
    "group_confirm": ("group_move",),
    "group_back": ("group_move",),
    "group_lost": ("group_move",),
    "group_remove": ("group_move",),
    "node_beat": ("node_changes",),
    "node_look": ("node_changes",),
    "node_leave": ("node_changes",),
}


@cache
def source_of(name: str) -> str:
    """Return the text of `lua/<name>.lua`, after those of the functions it needs."""
    needed = "".join(map(source_of, _NEED.get(name, ())))
    return needed + (_DIRECTORY / f"{name}.lua").read_text()


def read_all() -> None:
    """Read them all, for this process and those that it forks."""
    for path in _DIRECTORY.glob("*.lua"):
        source_of(path.stem)
