"""What a task submits or stores is done to its end before the task's cancellation interrupts it.

Else arguments might be stored and pinned for a task that was never sent, and nobody would delete them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any


def hold_back(interrupts: AbstractContextManager[None], part: Any, name: str) -> None:
    """Have interruptions wait for the end of a method of `part`."""
    method = getattr(part, name)

    def held_back(*args: Any, **kwargs: Any) -> Any:
        with interrupts:
            return method(*args, **kwargs)

    setattr(part, name, held_back)
