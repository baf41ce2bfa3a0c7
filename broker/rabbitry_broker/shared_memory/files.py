"""Deleting files that others may delete or hold at the same time."""

from __future__ import annotations

import fcntl
import os
import time
from typing import Final

# How long a file that is being written may look untouched before it counts as forgotten by a dead process.
_ORPHAN_S: Final = 60.0


def is_orphan(path: str) -> bool:
    """Return True if no process works on the unfinished or spare file at `path`."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if time.time() - os.fstat(file).st_ctime < _ORPHAN_S:
            return False
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def unlink(path: str) -> None:
    """Delete a file, if it is there and ours."""
    try:
        os.unlink(path)
    except (FileNotFoundError, PermissionError):
        # Gone already, or another user's.
        return
