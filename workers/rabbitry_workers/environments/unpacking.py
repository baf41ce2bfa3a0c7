"""Archives become directories, and nothing beside them: no name and no link leads out of the directory."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, Final

from rabbitry_workers.environments.cache import SetupError

_TARS: Final = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_FILES_MOST: Final = 1_000_000
_MIB: Final = 1 << 20


def unpack(archive: Path, name: str, to: Path, *, limit: int) -> None:
    """Unpack an archive into a directory.

    Args:
        archive: a file.
        name: what it is called, which says what it is.
        to: the directory.
        limit: bytes that its files may have together.

    Raises:
        SetupError: it is no archive, it leads out of the directory, or it is too large.
    """
    try:
        if name.endswith(_TARS):
            _unpack_tar(archive, to, limit)
        else:
            _unpack_zip(archive, to, limit)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError) as error:
        raise SetupError(f"{name} cannot be unpacked: {error}") from error


def _unpack_zip(archive: Path, to: Path, limit: int) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        _check_amount(len(members), sum(each.file_size for each in members), limit)
        for each in members:
            target = _inside(to, each.filename)
            mode = each.external_attr >> 16
            if each.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            if stat.S_ISLNK(mode):
                raise SetupError(f"{each.filename} is a link, and a package has files and directories only")
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(each) as source:
                _write(target, source, each.file_size, mode)


def _unpack_tar(archive: Path, to: Path, limit: int) -> None:
    with tarfile.open(archive) as opened:
        count = total = 0
        for each in opened:
            count, total = count + 1, total + each.size
            _check_amount(count, total, limit)
            target = _inside(to, each.name)
            if each.isdir():
                target.mkdir(parents=True, exist_ok=True)
            elif each.isreg():
                source = opened.extractfile(each)
                assert source is not None
                target.parent.mkdir(parents=True, exist_ok=True)
                _write(target, source, each.size, each.mode)
            else:
                raise SetupError(f"{each.name} is no file and no directory, and a package has these only")


def _inside(to: Path, name: str) -> Path:
    """Return where a member goes."""
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or "\0" in name or not pure.parts:
        if not pure.parts:
            return to
        raise SetupError(f"the archive has {name!r}, which would be written outside of its directory")
    return to.joinpath(*pure.parts)


def _write(target: Path, source: IO[bytes], size: int, mode: int) -> None:
    # Not through what is there: it could be a link only if we had made one, but a name may come twice.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
    file = os.open(target, flags, 0o700 if mode & 0o100 else 0o600)
    with os.fdopen(file, "wb") as opened:
        left = size
        while data := source.read(min(_MIB, left + 1)):
            left -= len(data)
            if left < 0:
                raise SetupError(f"{target.name} has more bytes than the archive says")
            opened.write(data)


def _check_amount(count: int, total: int, limit: int) -> None:
    if count > _FILES_MOST:
        raise SetupError(f"the archive has more than {_FILES_MOST} files")
    if total > limit:
        raise SetupError(
            f"the archive has {total / _MIB:.0f} MiB of files, and the limit of the cache is {limit / _MIB:.0f} MiB "
            "(RABBITRY_ENVIRONMENTS_LIMIT, in bytes)"
        )


def strip(directory: Path) -> None:
    """If all of what was unpacked is in one directory, leave that out."""
    found = [each for each in directory.iterdir() if each.name != "__MACOSX"]
    if len(found) != 1 or not found[0].is_dir():
        return
    shutil.rmtree(directory / "__MACOSX", ignore_errors=True)
    inner = directory / f".{os.urandom(4).hex()}"
    found[0].rename(inner)
    for each in inner.iterdir():
        each.rename(directory / each.name)
    inner.rmdir()
