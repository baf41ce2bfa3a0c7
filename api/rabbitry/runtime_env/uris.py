"""What may stand in `working_dir` and `py_modules`: a path of this machine, or a URI that nodes can read."""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import urlsplit

STORED: Final = "gcs"
"""Scheme of packages in the store; Ray's name for it."""
IN_PLACE: Final = "local"
"""Scheme of directories that are on every node already."""
REMOTE: Final = ("http", "https", "s3", "gs", "azure", "abfss", "file")
"""Schemes of archives that nodes fetch themselves: as Ray has them. Further ones of fsspec work too."""

ZIP: Final = ".zip"
WHEEL: Final = ".whl"
TARS: Final = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
ARCHIVES: Final = {
    "working_dir": (ZIP, ".tar.gz", ".tgz", ".tar.xz"),
    "py_modules": (ZIP, WHEEL, ".tar.gz", ".tgz", ".tar.xz"),
}


def is_path(text: str) -> bool:
    """True if `text` is a path and no URI.

    >>> is_path("/home/me"), is_path("C/x"), is_path("s3://bucket/code.zip")
    (True, True, False)
    """
    return "://" not in text


def check_path(field: str, path: str) -> None:
    """Check that a path exists.

    Raises:
        ValueError: it does not.
    """
    if not os.path.exists(path):
        raise ValueError(f"{path} is not a valid path for runtime_env[{field!r}]: it does not exist on this machine.")


def check_uri(field: str, uri: str) -> None:
    """Check a URI.

    Raises:
        ValueError: it has another form, or names something that is no archive.
    """
    parts = urlsplit(uri)
    if not parts.scheme or (parts.scheme not in (STORED, IN_PLACE, *REMOTE) and not _is_of_fsspec(parts.scheme)):
        known = ", ".join(f"{each}://" for each in (*REMOTE, IN_PLACE))
        raise ValueError(
            f"{uri} is not a valid URI for runtime_env[{field!r}]. Valid ones begin with {known}, or what else the "
            "package fsspec knows, where it is installed."
        )
    path = parts.netloc + parts.path
    if parts.scheme == IN_PLACE:
        if not uri.startswith(f"{IN_PLACE}:///") or path.endswith((ZIP, WHEEL, *TARS)):
            raise ValueError(
                f"{uri} is not a valid URI for runtime_env[{field!r}]: local:// is followed by the absolute path of a "
                "directory that is on every node, such as local:///opt/code."
            )
        return
    if not path.endswith(ARCHIVES[field]):
        raise ValueError(
            f"Only {', '.join(ARCHIVES[field])} files are supported for {field} URIs; got {uri.split('?', 1)[0]}."
        )


def _is_of_fsspec(scheme: str) -> bool:
    try:
        from fsspec import available_protocols
    except ImportError:
        return False
    return scheme in available_protocols()
