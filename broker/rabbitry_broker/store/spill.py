"""Files for large values that the store has no room for: in a directory, or at any URL that fsspec knows.

A file holds an object's buffers one after the other, each at a multiple of 64. In a directory it is mapped without
copying when it is read; a remote one is read whole. Hosts that are to read each other's spilled values need the same
place.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from rabbitry_broker.errors import StoreError
from rabbitry_broker.shared_memory import ALIGNMENT, ObjectStoreFull, map_privately

OFF: Final = "off"
"""Instead of a URL: nothing is spilled."""

_DIRECTORY: Final = "rabbitry-spill-"
# Of a small disk and of a big one: what is left to others.
_RESERVE_SHARE: Final = 20
_RESERVE_BYTES: Final = 1 << 30


class Spill:
    """Spilled files of one session. Any thread may call anything.

    Args:
        url: a directory (a path, or `file://...`), or a URL for fsspec such as `s3://bucket/path`.
        session: what the subdirectory is called after.
    """

    def __init__(self, url: str, session: str) -> None:
        self._local = local_path(url)
        base = self._local if self._local is not None else url
        self._base = f"{base.rstrip('/')}/{_DIRECTORY}{session}"

    def write(self, name: str, views: Sequence[memoryview]) -> str:
        """Write buffers to a file; return its URL.

        Raises:
            ObjectStoreFull: the disk is full.
            OSError: it cannot be written.
            StoreError: fsspec, or what it needs for this URL, is not installed.
        """
        url = f"{self._base}/{name}"
        if self._local is None:
            system, path = _remote(url)
            system.makedirs(path.rpartition("/")[0], exist_ok=True)
            with system.open(path, "wb") as file:
                for piece in _padded(views):
                    file.write(piece)
            return url
        os.makedirs(self._base, mode=0o700, exist_ok=True)
        size = sum([view.nbytes for view in views])
        free = _free_space(self._base)
        if size > free:
            raise OutOfDisk(size, free, self._place())
        temporary = f"{url}.{os.getpid()}"
        try:
            with open(temporary, "xb", opener=_private) as file:
                for piece in _padded(views):
                    file.write(piece)
            os.rename(temporary, url)
        except OSError as error:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OutOfDisk(size, _free_space(self._base), self._place()) from error
            raise
        return url

    def _place(self) -> str:
        return f"{os.path.dirname(self._base)}, the disk for what memory has no room for (RABBITRY_SPILL_URL sets it)"

    def clear(self) -> None:
        """Delete all files of the session in a local directory, and the directory."""
        if self._local is None:
            return
        with suppress(FileNotFoundError):
            for name in os.listdir(self._base):
                with suppress(FileNotFoundError):
                    os.unlink(f"{self._base}/{name}")
            os.rmdir(self._base)

    def names(self) -> list[str]:
        """Return the names of the files in a local directory."""
        if self._local is None:
            return []
        try:
            return os.listdir(self._base)
        except FileNotFoundError:
            return []

    def url_of(self, name: str) -> str:
        """Return the URL of a file."""
        return f"{self._base}/{name}"


class OutOfDisk(ObjectStoreFull):
    """Neither memory nor the disk that values spill to has room."""


def read(url: str, sizes: Sequence[int]) -> list[memoryview]:
    """Return the buffers of a spilled value.

    Raises:
        FileNotFoundError: the file is not there (or not on this host).
        StoreError: it has another length than the value; fsspec is missing.
    """
    places, end = _places(sizes)
    if local_path(url) is None:
        system, path = _remote(url)
        data = memoryview(system.cat_file(path))
    else:
        with open(url, "rb") as file:
            if not end:
                return [memoryview(b"") for _ in sizes]
            if os.fstat(file.fileno()).st_size != end:
                raise StoreError(f"the spilled file {url} is damaged")
            data = memoryview(map_privately(file.fileno()))
    if data.nbytes != end:
        raise StoreError(f"the spilled file {url} is damaged")
    return [data[place : place + size].toreadonly() for place, size in zip(places, sizes, strict=True)]


def delete(url: str) -> None:
    """Delete a spilled file; one that is not there is no error."""
    with suppress(FileNotFoundError):
        if local_path(url) is None:
            system, path = _remote(url)
            system.rm_file(path)
        else:
            os.unlink(url)


def local_path(url: str) -> str | None:
    """Return the path of a URL in the local file system, None for another."""
    if url.startswith("file://"):
        return url[7:]
    return None if "://" in url else os.path.abspath(url)


def _remote(url: str) -> tuple[Any, str]:
    try:
        # Optional, and slow to import.
        import fsspec  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise StoreError(
            f"RABBITRY_SPILL_URL is {url.partition('://')[0]}://..., which needs fsspec: pip install fsspec, and the "
            "package for that kind of URL"
        ) from None
    system, path = fsspec.core.url_to_fs(url)
    return system, path


def _places(sizes: Sequence[int]) -> tuple[list[int], int]:
    at, end = 0, 0
    places = []
    for size in sizes:
        at = -(-end // ALIGNMENT) * ALIGNMENT
        places.append(at)
        end = at + size
    return places, end


def _padded(views: Sequence[memoryview]) -> Sequence[bytes | memoryview]:
    pieces: list[bytes | memoryview] = []
    places, _ = _places([view.nbytes for view in views])
    at = 0
    for place, view in zip(places, views, strict=True):
        if place > at:
            pieces.append(bytes(place - at))
        pieces.append(view)
        at = place + view.nbytes
    return pieces


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _free_space(directory: str) -> int:
    """Return what values may take of a disk: the end of it is left to everybody else on the machine."""
    found = os.statvfs(directory)
    reserve = min(_RESERVE_BYTES, found.f_blocks * found.f_frsize // _RESERVE_SHARE)
    return max(0, found.f_bavail * found.f_frsize - reserve)
