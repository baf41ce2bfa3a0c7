"""Where Ray's libraries put the logs and working files that they keep by session."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

KEPT_SECONDS = 7 * 24 * 3600.0
"""A session's files go this long after anything was last written there, when another session makes its own."""


def session_directory(session: str, below: str = "") -> str:
    """Return a directory of a session on this host, or one below it; made if it is missing, for this user alone."""
    base = Path(tempfile.gettempdir(), f"rabbitry-ray-{os.getuid()}")
    mine = base / f"session_{session}"
    if not mine.is_dir():
        base.mkdir(mode=0o700, exist_ok=True)
        if base.stat().st_uid != os.getuid() or base.is_symlink():
            raise PermissionError(f"{base} belongs to somebody else: remove it, or set TMPDIR")
        _remove_old(base)
        mine.mkdir(mode=0o700, exist_ok=True)
    path = mine / below
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return str(path)


def _remove_old(base: Path) -> None:
    limit = time.time() - KEPT_SECONDS
    for each in base.iterdir():
        with suppress(OSError):
            newest = max((path.stat().st_mtime for path in each.rglob("*")), default=each.stat().st_mtime)
            if newest < limit:
                shutil.rmtree(each, ignore_errors=True)
