"""An environment whose directories, files and modules of this machine are packages that nodes can read.

    {"working_dir": "."}  -->  {"working_dir": "gcs://_ray_pkg_1f0c....zip"}, and that package is uploaded

Who prepares one says how packages are uploaded: a driver into the store, a client of the job service by HTTP.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from typing import IO, Any, Final, Protocol

from rabbitry import environment
from rabbitry.exceptions import RuntimeEnvSetupError
from rabbitry.packaging import ignoring, zipping
from rabbitry.packaging.ignoring import Found
from rabbitry.runtime_env import checks, uris

log = logging.getLogger("rabbitry")

PREFIX: Final = f"{uris.STORED}://_ray_pkg_"
LIMIT_VARIABLE: Final = "RABBITRY_PACKAGE_LIMIT"
LIMIT_BYTES: Final = 500 << 20
AUTO_LIMIT_BYTES: Final = 100 << 20
_HASH_BYTES: Final = 20
_READ_BYTES: Final = 1 << 20


class Upload(Protocol):
    """Where packages go."""

    def has(self, uri: str) -> bool:
        """True if a package of that name is there, and stays as long as it is needed."""

    def put(self, uri: str, content: IO[bytes], size: int) -> None:
        """Store a package."""


def prepare(env: Mapping[str, Any], upload: Upload) -> dict[str, Any]:
    """Return a checked environment with packages for what it names of this machine.

    Args:
        env: as `check_runtime_env` returned it.
        upload: where packages go.

    Raises:
        RuntimeEnvSetupError: something cannot be read, is too large, or cannot be uploaded.
    """
    prepared = dict(env)
    excludes = prepared.pop("excludes", [])
    directory = prepared.get("working_dir")
    if directory is not None:
        prepared["working_dir"] = _working_dir(directory, excludes, upload)
    if "py_modules" in prepared:
        prepared["py_modules"] = [_module(each, excludes, upload) for each in prepared["py_modules"]]
    return prepared


def package_limit() -> int:
    """Return how many bytes a package may have.

    Raises:
        ValueError: the variable that says so is no number.
    """
    return environment.number(LIMIT_VARIABLE, int) or LIMIT_BYTES


def _working_dir(path: str, excludes: list[str], upload: Upload) -> str:
    limit = package_limit()
    auto = path == checks.AUTO
    if auto:
        path, limit = _directory_of_script(), min(limit, AUTO_LIMIT_BYTES)
    elif not uris.is_path(path):
        return _known(path, upload)
    what = f"the working directory {path}"
    if os.path.isfile(path):
        return _upload_file(path, what, limit, upload)
    patterns = [*ignoring.default_excludes(), *excludes]
    return _upload_files(ignoring.files_of(path, patterns), what, limit, upload, tell=auto)


def _directory_of_script() -> str:
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    directory = os.path.dirname(os.path.abspath(script)) if script else os.getcwd()
    if directory in ("/", os.path.expanduser("~")):
        raise RuntimeEnvSetupError(
            f"working_dir='auto' would upload {directory} with all that is in it. Put the script into a directory of "
            "its own, or name one: working_dir='...'."
        )
    return directory


def _module(path: str, excludes: list[str], upload: Upload) -> str:
    limit = package_limit()
    if not uris.is_path(path):
        return _known(path, upload)
    path = os.path.abspath(path)
    what = f"the module {path}"
    if os.path.isdir(path):
        files = ignoring.files_of(path, ["__pycache__", *excludes])
        return _upload_files(files, what, limit, upload, prefix=f"{os.path.basename(path)}/")
    if path.endswith(".py"):
        return _upload_files([Found(path, os.path.basename(path), os.stat(path))], what, limit, upload)
    return _upload_file(path, what, limit, upload)


def _known(uri: str, upload: Upload) -> str:
    if uri.startswith(f"{uris.STORED}://") and not upload.has(uri):
        raise RuntimeEnvSetupError(f"the package {uri} is not in the store, or not any more: upload it again.")
    return uri


def _upload_files(
    files: Iterable[Found], what: str, limit: int, upload: Upload, *, prefix: str = "", tell: bool = False
) -> str:
    with tempfile.TemporaryFile(prefix="rabbitry-package-") as archive:
        try:
            packed = zipping.pack(files, archive, limit=limit, what=what, prefix=prefix)
        except (OSError, zipping.PackageTooLarge) as error:
            raise RuntimeEnvSetupError(f"{what} cannot be packed: {error}") from error
        size = archive.tell()
        archive.seek(0)
        uri = f"{PREFIX}{_digest(archive)}{uris.ZIP}"
        sent = _send(uri, archive, size, what, upload)
    if tell or sent:
        log.log(
            logging.WARNING if tell else logging.INFO,
            "%s goes to the nodes: %d files, %.1f KiB (%.1f KiB packed)%s",
            what, packed.files, packed.size / 1024, size / 1024, "" if sent else ", which are there already",
        )  # fmt: skip
    return uri


def _upload_file(path: str, what: str, limit: int, upload: Upload) -> str:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise RuntimeEnvSetupError(
                    f"{what} has {size} bytes, and a package may have {limit} ({LIMIT_VARIABLE}, in bytes)."
                )
            digest = _digest(file)
            if path.endswith(uris.WHEEL):
                uri = f"{PREFIX}{digest}/{os.path.basename(path)}"  # installers read what is in a wheel from its name
            else:
                suffix = next(each for each in (uris.ZIP, *uris.TARS) if path.endswith(each))
                uri = f"{PREFIX}{digest}{suffix}"
            _send(uri, file, size, what, upload)
    except OSError as error:
        raise RuntimeEnvSetupError(f"{what} cannot be read: {error}") from error
    return uri


def _send(uri: str, content: IO[bytes], size: int, what: str, upload: Upload) -> bool:
    if upload.has(uri):
        return False
    content.seek(0)
    try:
        upload.put(uri, content, size)
    except Exception as error:
        raise RuntimeEnvSetupError(f"{what} cannot be uploaded: {error}") from error
    return True


def _digest(content: IO[bytes]) -> str:
    content.seek(0)
    digest = hashlib.blake2b(digest_size=_HASH_BYTES)
    while data := content.read(_READ_BYTES):
        digest.update(data)
    return digest.hexdigest()
