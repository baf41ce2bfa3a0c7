"""Faults that are known and not mended yet: programs that may meet one are left out of runs, until it is."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.programs import Program

KNOWN: dict[str, Callable[[Program], bool]] = {}
"""What the fault is, and whether a program may meet it."""


def known(program: Program) -> list[str]:
    """Return which known faults a program may meet."""
    return [name for name, meets in KNOWN.items() if meets(program)]
