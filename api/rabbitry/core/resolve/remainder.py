"""What `wait` left last: a program that waits for many refs one by one hands the same list in again and again.

HOT PATH (`benchmarks/`: `wait_10000`). To check n refs n times over takes quadratic time, 60 ns for each. A list that
was checked, was returned, and comes back as it was, need not be: to compare it with a copy takes 1 ns a ref.
"""

from __future__ import annotations

import sys
from typing import Any, Final

LEAST: Final = 64
"""Shorter lists are checked as fast as they are kept."""

_OURS: Final = 3
"""References to a list that nobody but us has: of the pair, of the name it gets here, of the call that counts them."""


class Remainder:
    """Keeps the refs that the last `wait` returned as not ready, while its caller keeps that list. Any thread may call.

    The copy holds handles. So whoever runs in the background calls `let_go` from time to time, which forgets a list
    that nobody else has any more, or that was changed: what it does not hold shall not live by us.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: tuple[list[Any], list[Any]] | None = None  # (the list that the caller has, a copy)

    def __bool__(self) -> bool:
        """True if something is kept."""
        return self._kept is not None

    def knows(self, refs: list[Any]) -> bool:
        """True if `refs` is the list that was kept, and holds what it held then."""
        kept = self._kept
        return kept is not None and kept[0] is refs and kept[1] == refs

    def keep(self, refs: list[Any]) -> None:
        """`refs` is handed out, and was checked: different ObjectRefs of this client."""
        self._kept = (refs, refs.copy()) if len(refs) >= LEAST else None

    def let_go(self) -> None:
        """Forget a list that its caller has dropped or changed."""
        kept = self._kept
        if kept is None:
            return
        refs = kept[0]
        # The pair is read once more: another thread may have kept another one meanwhile, which stays.
        if (sys.getrefcount(refs) <= _OURS or refs != kept[1]) and self._kept is kept:
            self._kept = None

    def clear(self) -> None:
        """Forget it: the session ends."""
        self._kept = None
