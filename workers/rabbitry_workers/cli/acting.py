"""What commands that act on a cluster share: a driver of their own for a moment."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rabbitry.client import Client


@contextmanager
def driver(options: argparse.Namespace) -> Iterator[Client]:
    """Join the cluster that the arguments name, as any driver does, and leave it.

    Raises:
        ConnectError: there is no cluster.
    """
    import rabbitry
    from rabbitry import current

    if options.prefix:
        os.environ["RABBITRY_PREFIX"] = options.prefix
    rabbitry.init(
        options.address or "auto", store=options.store, log_to_driver=False, configure_logging=False, num_cpus=None
    )
    try:
        yield current.client()
    finally:
        rabbitry.shutdown()


def id_of(text: str, size: int, what: str) -> bytes:
    """Return an id.

    Args:
        text: hexadecimal.
        size: bytes that it has.
        what: it is of, for the error.

    Raises:
        ValueError: it is none.
    """
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != size:
        raise ValueError(f"{text!r} is no id of {what}: it has {2 * size} hexadecimal digits")
    return found
