"""Archives whose bytes follow from what is in them: the same files make the same package, on any day and machine."""

from __future__ import annotations

import logging
import stat
import zipfile
from collections.abc import Iterable
from typing import IO, Final, NamedTuple

from rabbitry.packaging.ignoring import Found

log = logging.getLogger("rabbitry")

LARGE_FILE_BYTES: Final = 10 << 20
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_SHOWN: Final = 5
_MIB: Final = 1 << 20


class PackageTooLarge(ValueError):
    """What is to be packed is larger than packages may be."""


class Packed(NamedTuple):
    """What is in an archive.

    Attributes:
        files: how many.
        size: their bytes, before they were packed.
    """

    files: int
    size: int


def pack(files: Iterable[Found], to: IO[bytes], *, limit: int, what: str, prefix: str = "") -> Packed:
    """Write files into a zip archive.

    Args:
        files: sorted.
        to: where it is written.
        limit: bytes that they may have together.
        what: what they are, for messages.
        prefix: stands before their names.

    Raises:
        PackageTooLarge: they are more; the message names the largest.
        OSError: one cannot be read.
    """
    size = count = 0
    listed = list(files)
    total = sum(each.status.st_size for each in listed if not each.is_directory)
    if total > limit:
        raise PackageTooLarge(_too_large(listed, total, limit, what))
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED, compresslevel=1, allowZip64=True) as archive:
        for each in listed:
            name = prefix + each.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            info = zipfile.ZipInfo(name + "/" if each.is_directory else name, _EPOCH)
            info.external_attr = (stat.S_IFMT(each.status.st_mode) | (each.status.st_mode & 0o755) | 0o600) << 16
            if each.is_directory:
                archive.writestr(info, b"")
                continue
            if each.status.st_size >= LARGE_FILE_BYTES:
                log.warning(
                    "%s has %d MiB and goes to the nodes with %s; runtime_env={'excludes': [%r]} leaves it out.",
                    each.path, each.status.st_size // _MIB, what, each.name,
                )  # fmt: skip
            with open(each.path, "rb") as file:
                data = file.read()
            size += len(data)
            if size > limit:
                raise PackageTooLarge(_too_large(listed, size, limit, what))
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
            count += 1
    return Packed(count, size)


def _too_large(files: list[Found], total: int, limit: int, what: str) -> str:
    sizes: dict[str, int] = {}
    for each in files:
        top = each.name.partition("/")[0]
        sizes[top] = sizes.get(top, 0) + each.status.st_size
    largest = sorted(sizes, key=lambda name: -sizes[name])[:_SHOWN]
    shown = ", ".join(f"{name} ({sizes[name] / _MIB:.1f} MiB)" for name in largest)
    return (
        f"{what} has {total / _MIB:.1f} MiB, and a package may have {limit / _MIB:.1f} MiB "
        f"(RABBITRY_PACKAGE_LIMIT, in bytes). Most of it: {shown}. Leave out what tasks do not need, by "
        "runtime_env={'excludes': [...]} or a .gitignore; put data where nodes can read it."
    )
