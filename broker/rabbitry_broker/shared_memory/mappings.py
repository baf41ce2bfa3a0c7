"""Mappings of shared-memory files that stay when nothing views them any more, for the next time the file is read.

To map 64 MiB anew and read them costs three times as much as to read them (16 ms against 5: every page is a fault, and
populating the mapping beforehand costs the same). A mapping that nothing views costs no memory but a file of page
tables, so a process keeps those that it used last. It keeps them by the file itself, not by its name: a file that is
used again for another object (`shared_memory.recycling`) is mapped already.

    VIEWED  (locked, shared: whoever deletes it lets it be)   --settle, when nothing views it-->   IDLE  (unlocked)
    IDLE    --view, if it is what the name stands for-->   VIEWED
    IDLE    --its file was deleted, or there are too many-->   gone

An idle mapping must not be touched: its file may be emptied at any moment. Before it is viewed it is locked, and looked
at whether its file is as long as it was.

Views are read-only, but code below Python writes into them all the same: `torch.from_numpy(array).add_(1)` only warns.
So mappings are private (`map_privately`): what is written so stays in this process, where memory that may not be
written would end it. Pages that were written are no longer the file's: if that holds another object by then, it is
mapped anew.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SMALLEST_BYTES: Final = 1 << 20
"""Below this there is little to be saved."""

KEPT_BYTES: Final = 1 << 30
KEPT_FILES: Final = 64
"""At most, viewed or not, in one process; each takes two descriptors."""


_NOT_RESERVED: Final = getattr(mmap, "MAP_NORESERVE", 0)  # of the pages hardly one is ever written

# The highest byte of what `/proc/self/pagemap` says of a page, where the process has none there, or one of a file.
_PRESENT_OR_SWAPPED, _OF_A_FILE = 0xC0, 0x20
_UNWRITTEN: Final = bytes(flags for flags in range(256) if not flags & _PRESENT_OR_SWAPPED or flags & _OF_A_FILE)
_ENTRY_BYTES: Final = 8


def map_privately(file: int) -> mmap.mmap:
    """Map a file: what is written into the mapping stays in this process, and out of the file.

    Raises:
        ValueError: the file is empty.
    """
    return mmap.mmap(file, 0, flags=mmap.MAP_PRIVATE | _NOT_RESERVED, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def is_written(mapping: mmap.mmap) -> bool:
    """True if pages of a private mapping were written, or if that cannot be told. Takes 7 us a MiB that was read."""
    import ctypes

    pages = -(-len(mapping) // mmap.PAGESIZE)
    first = ctypes.addressof(ctypes.c_char.from_buffer(mapping)) // mmap.PAGESIZE
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as file:
            entries = os.pread(file.fileno(), pages * _ENTRY_BYTES, first * _ENTRY_BYTES)
    except OSError:
        return True
    highest = entries[_ENTRY_BYTES - 1 if sys.byteorder == "little" else 0 :: _ENTRY_BYTES]
    return len(highest) != pages or bool(highest.translate(None, _UNWRITTEN))


class _Kept:
    """One mapping; `file` has the lock, `path` is what its file was called when it was viewed last."""

    __slots__ = ("file", "locked", "mapping", "path")

    def __init__(self, file: int, mapping: mmap.mmap, path: str) -> None:
        self.file = file
        self.mapping = mapping
        self.path = path
        self.locked = True

    def is_viewed(self) -> bool:
        """True if a view of the mapping exists: each refers to it, and we do once."""
        return sys.getrefcount(self.mapping) > _UNVIEWED

    def close(self) -> None:
        """Let go. Views keep the mapping, and with its own descriptor the lock."""
        os.close(self.file)


def _references_unviewed() -> int:
    kept = _Kept.__new__(_Kept)
    kept.mapping = mmap.mmap(-1, mmap.PAGESIZE)
    return sys.getrefcount(kept.mapping)


_UNVIEWED: Final = _references_unviewed()


class Mappings:
    """The mappings that one process keeps. Any thread may call anything.

    Attributes:
        viewed: what was viewed when it was looked at last; empty if there is nothing to settle.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[int, int], _Kept] = {}  # by (device, inode), those last that were used last
        self._bytes = 0
        self.viewed: list[_Kept] = []

    def view(self, path: str) -> memoryview | None:
        """Return a view of the file at `path` if it is mapped already; None if it is not, or may not be read.

        Raises:
            FileNotFoundError: there is none, or it is being deleted.
        """
        if not self._kept:
            return None
        found = os.stat(path, follow_symlinks=False)
        key = found.st_dev, found.st_ino
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or found.st_uid != os.geteuid():
                return None
            if not kept.locked:
                try:
                    fcntl.flock(kept.file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise FileNotFoundError(f"{path} is being deleted") from None
                state = os.fstat(kept.file)
                is_other = kept.path != path
                if not state.st_nlink or state.st_size != len(kept.mapping) or (is_other and is_written(kept.mapping)):
                    self._drop(key)
                    return None
                kept.path = path
                kept.locked = True
                self.viewed.append(kept)
            self._kept[key] = self._kept.pop(key)
            return memoryview(kept.mapping).toreadonly()

    def keep(self, file: int, mapping: mmap.mmap, path: str) -> bool:
        """Keep a mapping, whose file is ours from then on; False if it is not kept. Call it before there is a view.

        Args:
            file: the open file, locked.
            mapping: made by `map_privately`.
            path: of the file.
        """
        size = len(mapping)
        if not SMALLEST_BYTES <= size <= KEPT_BYTES:
            return False
        found = os.fstat(file)
        with self._lock:
            key = found.st_dev, found.st_ino
            if key in self._kept:
                self._drop(key)
            while self._kept and (self._bytes + size > KEPT_BYTES or len(self._kept) >= KEPT_FILES):
                self._drop(next(iter(self._kept)))
            kept = self._kept[key] = _Kept(file, mapping, path)
            self._bytes += size
            self.viewed.append(kept)
        return True

    def settle(self) -> None:
        """Unlock what nothing views any more: whoever deletes it may use the file again."""
        with self._lock:
            still: list[_Kept] = []
            for kept in self.viewed:
                if kept.is_viewed():
                    still.append(kept)
                elif kept.locked:
                    fcntl.flock(kept.file, fcntl.LOCK_UN)
                    kept.locked = False
            # In place: who asks whether there is anything to settle holds on to this list.
            self.viewed[:] = still

    @contextmanager
    def while_deleted(self, path: str) -> Iterator[None]:
        """Around what deletes the file at `path`: if it goes, its mapping does, too."""
        key = self._key_of(path) if self._kept else None
        yield
        if key is None:
            return
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and not os.fstat(kept.file).st_nlink:
                self._drop(key)

    def _key_of(self, path: str) -> tuple[int, int] | None:
        try:
            found = os.stat(path, follow_symlinks=False)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def trim(self) -> None:
        """Settle, and let go of mappings whose files were deleted. Call it about once a second."""
        if not self._kept:
            return
        self.settle()
        with self._lock:
            for key in [key for key, kept in self._kept.items() if not os.fstat(kept.file).st_nlink]:
                self._drop(key)

    def abandon(self) -> None:
        """Let go of everything. What is viewed stays mapped and locked as long as it is."""
        with self._lock:
            for key in list(self._kept):
                self._drop(key)

    def _drop(self, key: tuple[int, int]) -> None:
        kept = self._kept.pop(key)
        self._bytes -= len(kept.mapping)
        if kept in self.viewed:
            self.viewed.remove(kept)
        kept.close()
