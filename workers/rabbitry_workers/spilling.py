"""Where a session on one machine puts large values that memory has no room for, unless it is told a place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from rabbitry_broker.run_directory import RunDirectory, RunDirectoryError, is_memory


@contextlib.contextmanager
def place_to_spill(run_dir: str | os.PathLike[str]) -> Iterator[str]:
    """Give a directory on a disk: that of the session's server, or one made for it; "" if all places are in memory.

    Either has this process's lock: if it is killed, the start of another session removes the directory with all it
    holds; else it goes with the server's, or here.

    Args:
        run_dir: the directory of the session's server.
    """
    if not is_memory(run_dir):
        yield str(run_dir)
        return
    try:
        directory = RunDirectory.create(on_disk=True)
    except RunDirectoryError:
        yield ""
        return
    try:
        yield str(directory.path)
    finally:
        directory.remove()
