"""Packages and archives come to the node: from the store, or from where their URI says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final
from urllib.parse import unquote, urlsplit

from rabbitry_broker.store.packages import Packages
from rabbitry_workers.environments.cache import LIMIT_VARIABLE, SetupError

_TIMEOUT_SECONDS: Final = 60.0
_PIECE_BYTES: Final = 1 << 20
_PACKAGES_FOR: Final = {"s3": "s3fs", "gs": "gcsfs", "azure": "adlfs", "abfss": "adlfs"}


def fetch(uri: str, to: Path, packages: Packages, *, limit: int) -> None:
    """Write a package or archive into a file.

    Args:
        uri: where it is.
        to: the file.
        packages: those in the store.
        limit: bytes that it may have.

    Raises:
        RabbitryBrokerError: it is not there, or nobody of this cluster stored it.
        SetupError: it cannot be fetched, or is larger than that.
    """
    scheme = urlsplit(uri).scheme
    if scheme == "gcs":
        _write(packages.read(uri), to, uri, limit)
        return
    print(f"fetching {shown(uri)}", flush=True)
    try:
        if scheme == "file":
            with open(unquote(urlsplit(uri).path), "rb") as source:
                _write(_pieces(source), to, uri, limit)
        elif scheme in ("http", "https"):
            _fetch_by_http(uri, to, limit)
        else:
            _fetch_by_fsspec(uri, scheme, to, limit)
    except OSError as error:
        if error.errno is not None and error.filename is None and getattr(error, "reason", None) is None:
            raise  # the disk's, not the network's
        raise SetupError(f"{shown(uri)} cannot be fetched: {error}") from error


def _pieces(source: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: source.read(_PIECE_BYTES), b"")


def _write(pieces: Iterable[bytes], to: Path, uri: str, limit: int) -> None:
    """Write what comes, and stop where it is too much: who sends may never end."""
    left = limit
    with to.open("wb") as file:
        for piece in pieces:
            left -= len(piece)
            if left < 0:
                raise SetupError(
                    f"{shown(uri)} has more than {limit} bytes, which is all that this node keeps of environments "
                    f"({LIMIT_VARIABLE})"
                )
            file.write(piece)


def _fetch_by_http(uri: str, to: Path, limit: int) -> None:
    from urllib.request import urlopen

    with urlopen(uri, timeout=_TIMEOUT_SECONDS) as source:
        _write(_pieces(source), to, uri, limit)


def _fetch_by_fsspec(uri: str, scheme: str, to: Path, limit: int) -> None:
    try:
        import fsspec
    except ImportError:
        raise SetupError(
            f"{shown(uri)} cannot be fetched: the node has no fsspec, which {scheme}:// needs. Install fsspec"
            f"{' and ' + _PACKAGES_FOR[scheme] if scheme in _PACKAGES_FOR else ''} there."
        ) from None
    try:
        with fsspec.open(uri, "rb") as source:
            _write(_pieces(source), to, uri, limit)
    except (ImportError, ValueError) as error:
        raise SetupError(f"{shown(uri)} cannot be fetched: {error}") from error


def shown(uri: str) -> str:
    """Return a URI as logs may show it: without what follows the question mark, and without a password."""
    parts = urlsplit(uri)
    place = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{place}{parts.path}"
