"""One thing of many happens, and what must hold after each is looked at."""

from __future__ import annotations

from collections.abc import Callable


def happen(event: Callable[[], object], check: Callable[[], object]) -> None:
    """Let a thing happen, and check.

    Raises:
        AssertionError: it, or the check, failed; its message names the thing.
    """
    try:
        event()
        check()
    except AssertionError as error:
        raise AssertionError(f"after {event.__name__}: {error}") from error
