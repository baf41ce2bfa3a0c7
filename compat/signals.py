"""A run that is told to end (SIGTERM, SIGHUP) ends what it started, as it does after Ctrl-C.

What ends programs, nodes and servers are `with` blocks, and a signal without a handler leaves none of them.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

ENDING = (signal.SIGTERM, signal.SIGHUP)


def leave_by_exception() -> None:
    """From now on, the first of these signals raises SystemExit in the main thread, and later ones do nothing."""
    for number in ENDING:
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    for ending in ENDING:  # whoever has no patience sends them again, and would interrupt what ends the servers
        signal.signal(ending, signal.SIG_IGN)
    raise SystemExit(128 + number)
