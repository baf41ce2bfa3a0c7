"""Numbers and switches in environment variables: read in one way, with one kind of error.

Addresses and secrets, which may also stand in a `.env` file, are read by `settings`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import TypeVar

_Number = TypeVar("_Number", int, float)


def switch(variable: str, environment: Mapping[str, str] | None = None) -> bool:
    """Return False if a variable switches something off; what is not set is on.

    Raises:
        ValueError: it is neither on nor off.

    Example:
        >>> switch("EVENTS", {"EVENTS": "off"})
        False
    """
    given = (os.environ if environment is None else environment).get(variable, "").strip().lower()
    if given in ("", "on", "1", "true", "yes"):
        return True
    if given in ("off", "0", "false", "no"):
        return False
    raise ValueError(f"{variable}={given!r} must be on or off")


def number(
    variable: str,
    kind: Callable[[str], _Number],
    default: _Number,
    *,
    unit: str,
    least: float = 0,
    environment: Mapping[str, str] | None = None,
) -> _Number:
    """Return the number that a variable holds; `default` if it is empty or not set.

    Args:
        variable: its name.
        kind: `int` or `float`.
        default: what counts then.
        unit: what is counted, for the error.
        least: the smallest number that makes sense.
        environment: where to look; None for that of this process.

    Raises:
        ValueError: it holds no such number, or a smaller one.

    Example:
        >>> number("LIMIT", int, 5, unit="bytes", environment={"LIMIT": "100"})
        100
    """
    text = (os.environ if environment is None else environment).get(variable)
    if not text:
        return default
    try:
        value = kind(text)
    except ValueError:
        value = kind("-1")
    if not least <= value < math.inf:
        whole = "a whole number" if kind is int else "a number"
        raise ValueError(f"{variable}={text!r} must be {whole} of {unit}, {least:g} or more")
    return value
