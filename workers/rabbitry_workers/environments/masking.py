"""Passwords in URLs, which logs and errors do not show: those of package indexes, of proxies, of git."""

from __future__ import annotations

import re
from typing import Final

_USER_INFO: Final = re.compile(r"(?<=://)[^/\s'\"]*@")


def masked(text: str) -> str:
    """Return a text without what stands before the host in its URLs: a name there may be a token.

    Example:
        >>> masked("--index-url https://me:secret@pypi.example/simple")
        '--index-url https://****@pypi.example/simple'
    """
    return _USER_INFO.sub("****@", text)
