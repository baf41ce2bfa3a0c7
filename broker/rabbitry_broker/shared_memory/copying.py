"""Copies of many megabytes into mapped memory. HOT PATH (`benchmarks/`: `put_64mib`).

One thread alone does not use the memory's whole rate: two copy 64 MiB in two thirds of the time. The second one needs
a copy that lets go of the interpreter, which numpy's does; a process with arrays that large has loaded it already.
"""

from __future__ import annotations

import mmap
import sys
import threading
from functools import cache
from typing import Any, Final

from rabbitry_broker import machine

SHARED_BYTES: Final = 16 << 20
"""From this size on a second thread is worth its start (0.1 ms)."""

# A copy without numpy keeps the interpreter; other threads get their turn between pieces.
_PIECE_BYTES: Final = 8 << 20


def copy_into(target: mmap.mmap, at: int, view: memoryview) -> None:
    """Copy a flat view of bytes to a place in a writable mapping."""
    numpy = sys.modules.get("numpy") if view.nbytes >= SHARED_BYTES else None
    if numpy is None or not hasattr(numpy, "copyto") or not _has_two_processors():
        for start in range(0, view.nbytes, _PIECE_BYTES):
            piece = view[start : start + _PIECE_BYTES]
            target[at + start : at + start + piece.nbytes] = piece
        return
    into = numpy.frombuffer(target, dtype=numpy.uint8, count=view.nbytes, offset=at)
    source = numpy.frombuffer(view, dtype=numpy.uint8)
    half = view.nbytes // 2 & ~(mmap.PAGESIZE - 1)
    second = _start(numpy.copyto, into[half:], source[half:])
    try:
        numpy.copyto(into[:half], source[:half])
        if second is None:
            numpy.copyto(into[half:], source[half:])
    finally:
        while second is not None and second.is_alive():
            second.join()


def _start(copy: Any, into: Any, source: Any) -> threading.Thread | None:
    """Copy on another thread; None if there can be none."""
    thread = threading.Thread(target=copy, args=(into, source), name="rabbitry-copy", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None  # no more threads, or the interpreter ends
    return thread


@cache
def _has_two_processors() -> bool:
    return machine.usable_cpus() > 1
