"""The colours of states."""

from __future__ import annotations

from typing import Final

_TONES: Final = {
    "ALIVE": "finished",
    "CREATED": "finished",
    "SUCCEEDED": "finished",
    "FINISHED": "finished",
    "alive": "finished",
    "RUNNING": "running",
    "RESTARTING": "waiting",
    "PENDING": "waiting",
    "PENDING_CREATION": "waiting",
    "DEPENDENCIES_UNREADY": "waiting",
    "RESCHEDULING": "waiting",
    "draining": "waiting",
    "FAILED": "failed",
}


def tone(state: str) -> str:
    """Return the class of the badge of a state: what is over, and nothing to worry about, is grey.

    Example:
        >>> tone("ALIVE"), tone("DEAD")
        ('finished', 'gone')
    """
    return _TONES.get(state, "gone")
