"""Frames that pytest leaves out when a task's error reaches a test: the user's are shown, not rabbitry's.

A module on the way has `__tracebackhide__ = of_errors_of_tasks`, which pytest calls with what it knows of the error.
Errors of rabbitry itself, such as a failed assertion, are shown with all frames.
"""

from __future__ import annotations

from typing import Any


def of_errors_of_tasks(info: Any) -> bool:
    """Return True if the error is one that rabbitry raises on purpose.

    Args:
        info: pytest's `ExceptionInfo`; None where it only wants to know whether frames may be hidden.
    """
    from rabbitry.exceptions import RabbitryError

    return info is None or isinstance(info.value, RabbitryError)
