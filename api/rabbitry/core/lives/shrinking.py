"""Tables that have grown large and are nearly empty again give their memory back.

A dict never shrinks when keys go: a million refs that were held once would cost 40 MiB in each table for good. It finds
a size that fits when an insertion finds no room. To put another dict in its place is no way: other threads insert
without a lock (`made_here`), and one of them may have the old one in hand.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, Final

LARGE_BYTES: Final = 1 << 20
"""Smaller tables are left alone."""

_ENTRY_BYTES: Final = 24  # of a dict's table, for each key that was inserted since it got its size
_SPARSE_BYTES: Final = 400  # of table for each key; one that has just found its size has 30 to 90
_FILLER: Final = b""
_STEP: Final = 1000


def is_sparse(table: dict[bytes, Any]) -> bool:
    """True if a table is large, and far too large for what is in it."""
    size = sys.getsizeof(table)
    return size > LARGE_BYTES and len(table) * _SPARSE_BYTES < size


def shrink(table: dict[bytes, Any]) -> None:
    """Have a table find the size that fits; takes some 10 ms for a million keys that are gone.

    Other threads may use it meanwhile: each step is a plain insertion or deletion, of a key that is nobody's id.
    """
    size = sys.getsizeof(table)
    for _ in range(size // _ENTRY_BYTES // _STEP + 1):
        for _ in range(_STEP):
            table[_FILLER] = None
            del table[_FILLER]
        if sys.getsizeof(table) < size:
            return


def give_back() -> None:
    """Have glibc give freed memory back to the system: after large tables it keeps more than it would otherwise."""
    with suppress(ImportError, OSError, AttributeError, TypeError):
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
