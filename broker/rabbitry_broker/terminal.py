"""Text from anywhere, made fit for a terminal: what that would obey is written out instead."""

from __future__ import annotations

import re
from typing import Final

_COLOURS: Final = re.compile(r"(\x1b\[[0-9;]{0,32}m)")


def printable(text: str, keep: str = "") -> str:
    r"""Return text in which what a terminal would obey is written out.

    Args:
        text: from anywhere.
        keep: characters that stay as they are.

    Example:
        >>> printable("a\x1b[31mb\n"), printable("a\tb\n", keep="\n\t")
        ('a\\x1b[31mb\\n', 'a\tb\n')
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape", "surrogatepass").decode()
        for each in text
    )


def with_colours(text: str) -> str:
    r"""As `printable`, but colours, tabs and ends of lines stay: for what a program of one's own has printed.

    >>> with_colours("\x1b[31mred\x1b[0m\x1b]0;title\x07\n")
    '\x1b[31mred\x1b[0m\\x1b]0;title\\x07\n'
    """
    if text.isprintable():
        return text
    return "".join(part if at % 2 else printable(part, keep="\n\t") for at, part in enumerate(_COLOURS.split(text)))
