"""Which process of a host does what only one of them needs to do: a lock file for each thing to be done.

    nobody --claim--> held by one --release, or its process ends--> nobody

The kernel drops the lock of a process that is killed, and whoever waits goes on. A file that is left behind then is
deleted as an orphan (`SharedMemoryStore.remove_orphans`).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

SUFFIX: Final = ".claim"

_FIRST_PAUSE_S: Final = 0.0005
_LONGEST_PAUSE_S: Final = 0.01


@contextmanager
def claim(path: str, patience: float) -> Iterator[bool]:
    """Wait until nobody else holds the claim at `path`, then hold it; for a `with` statement.

    Args:
        path: of the lock file; it is made, and deleted at the end.
        patience: seconds to wait.

    Yields:
        True if it is held; False if another held it all the time (stopped, perhaps): go on without.

    Raises:
        OSError: the file cannot be made.
    """
    file = _take(path, time.monotonic() + patience)
    if file is None:
        yield False
        return
    try:
        yield True
    finally:
        # Unlinked while it is locked: who waits for the lock sees that it has another file then.
        with suppress(FileNotFoundError):
            os.unlink(path)
        os.close(file)


def _take(path: str, deadline: float) -> int | None:
    pause = _FIRST_PAUSE_S
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        os.close(file)
                        return None
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            if os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False)):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(file)
            raise
        os.close(file)
