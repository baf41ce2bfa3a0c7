"""Checks of arguments that public functions and options have in common: text, durations, numbers.

What passes is what every other process can carry: exact `str` and `int` (subclasses may do anything when encoded), text
that UTF-8 can write, numbers of 64 bits.
"""

from __future__ import annotations

import math
import operator
from typing import Any, Final

MAX_COUNT: Final = 2**63 - 1
"""The largest count that messages and stores carry."""

MAX_AMOUNT: Final = float(MAX_COUNT // 10_000)
"""The largest amount of a resource: amounts are kept as 64-bit numbers of 1/10000."""

MAX_RETURNS: Final = 100_000
"""Results that one task may have. Each is an object of its own, and all of them are committed in one step."""

FOR_EVER_SECONDS: Final = 1e9
"""Times to wait of 31 years and more count as no limit; locks of the operating system take no 300."""

_SHOWN: Final = 200


def shown(value: object) -> str:
    """Return `value` as error messages show it: short, and printable on any terminal.

    >>> shown("a" * 1000)[-10:], shown(10**5000)
    ("... (1002 characters)", 'an int of 16610 bits')
    """
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        return f"an int of {value.bit_length()} bits"  # Python refuses to write out those of more than 4300 digits
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001  the user's own repr may raise anything
        return f"a {type(value).__name__} (whose repr raises {type(error).__name__})"
    if len(text) > _SHOWN:
        text = f"{text[:_SHOWN]}... ({len(text)} characters)"
    return text


def wrong_type(what: str, value: object, expected: str) -> TypeError:
    """Return the TypeError for an argument of the wrong type."""
    return TypeError(f"{what} must be {expected}, but is {shown(value)} ({type(value).__name__}).")


def text(what: str, value: Any, expected: str = "text") -> str:
    """Return `value` as exact `str` that can be written in UTF-8.

    Raises:
        TypeError: it is no `str`.
        ValueError: it has lone surrogates.
    """
    if not isinstance(value, str):
        raise wrong_type(what, value, expected)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} is {shown(value)}, which is no Unicode text: the character at {error.start} is half of a "
            "surrogate pair. Decode bytes with their own encoding, or with errors='replace'."
        ) from None
    return str.__str__(value)


def optional_text(what: str, value: Any) -> str | None:
    """Return text, or None for what is not given.

    Raises:
        TypeError: it is something else.
        ValueError: it is no Unicode text.
    """
    return None if value is None else text(what, value, "text, or None")


def optional_namespace(what: str, value: Any) -> str | None:
    """Return a namespace of actors, or None for what is not given.

    Raises:
        TypeError: no text.
        ValueError: empty, no Unicode text, or with a NUL character, which stands between namespace and name.
    """
    checked = optional_text(what, value)
    if checked is not None and (not checked or "\0" in checked):
        raise ValueError(
            f"{what} must not be empty or have NUL characters, but is {shown(checked)}. Leave it out for the session's."
        )
    return checked


def writable(value: str) -> str:
    """Return text for messages and logs, with what UTF-8 cannot write escaped: names of functions, of classes."""
    return value.encode("utf-8", "backslashreplace").decode()


def seconds(what: str, value: Any) -> float | None:
    """Return a time to wait in seconds; None for ever, which infinity means too.

    Raises:
        TypeError: it is no number.
        ValueError: it is NaN or negative.
    """
    if value is None:
        return None
    if isinstance(value, (str, bytes, bytearray)):
        raise wrong_type(what, value, "a number of seconds, or None")
    try:
        number = float(value)
    except OverflowError:
        number = -math.inf if value < 0 else math.inf
    except (TypeError, ValueError):
        raise wrong_type(what, value, "a number of seconds, or None") from None
    if math.isnan(number):
        raise ValueError(f"{what} is NaN; it must be a number of seconds of 0 or more, or None to wait for ever.")
    if number < 0:
        raise ValueError(f"The {what!r} argument must be nonnegative, but is {shown(value)}; None waits for ever.")
    return None if number >= FOR_EVER_SECONDS else number


def patience(what: str, value: Any) -> float | None:
    """Return a time to wait as `seconds` does, but 0 for a negative one: where the standard library is the model.

    Raises:
        TypeError: it is no number.
        ValueError: it is NaN.
    """
    if isinstance(value, (int, float)) and value < 0:
        return 0.0
    return seconds(what, value)


def whole(what: str, value: Any, *, least: int, expected: str, most: int = MAX_COUNT) -> int:
    """Return `value` as exact `int`. Numbers of other libraries count, and floats such as 2.0.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is out of range.
    """
    if not isinstance(value, int):
        try:
            value = int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)
        except (TypeError, ValueError):
            raise wrong_type(what, value, expected) from None
    if not least <= value <= most:
        limit = f", and at most {most}" if value > most else ""
        raise ValueError(f"{what} must be {expected}{limit}, but is {shown(value)}.")
    return int(value)


def amount(what: str, value: Any) -> float:
    """Return an amount of a resource: a finite number of 0 or more.

    Raises:
        TypeError: it is no number.
        ValueError: it is out of range.
    """
    if not isinstance(value, (int, float)):
        raise wrong_type(what, value, "a number of 0 or more, or None")
    if not 0 <= value < math.inf:  # NaN is neither
        raise ValueError(f"{what} must be a finite number of 0 or more, but is {shown(value)}.")
    if value > MAX_AMOUNT:
        raise ValueError(f"{what} must be {MAX_AMOUNT:.0f} at most, but is {shown(value)}.")
    return int(value) if isinstance(value, int) else float(value)


def flag(what: str, value: Any) -> bool:
    """Return a bool; whatever else is given counts by its truth, as in Ray, unless it has none.

    Raises:
        TypeError: it is neither true nor false.
    """
    try:
        return bool(value)
    except Exception as error:
        raise wrong_type(what, value, "True or False") from error
