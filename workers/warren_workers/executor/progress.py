"""A shared page between agent and executor: which task runs, and which one is cancelled.

The agent may also *revoke* what an executor has not begun while a slow task keeps it busy: it writes a limit and
counts up the revocations; until the executor has read the TAKEN message that follows, it starts nothing from the
limit on.

The executor writes the sequence number of the task it starts; after a crash the agent reads from it which tasks may
have started. The agent writes the id of a task to interrupt before it sends SIGINT; the executor's handler interrupts
only if that very task is running, so a late signal hits nobody else.
"""

from __future__ import annotations

import mmap
import os
import tempfile

from warren_broker.ids import TASK_BYTES

PAGE_BYTES = 4096
_TARGET = 64


def create() -> int:
    """Return a descriptor of a fresh shared page."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("warren-progress", os.MFD_CLOEXEC)
    else:
        fd, path = tempfile.mkstemp(prefix="warren-progress-")
        os.unlink(path)
    os.ftruncate(fd, PAGE_BYTES)
    return fd


class Progress:
    """One end of the page."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, PAGE_BYTES)
        os.close(fd)
        self._view = memoryview(self._map)
        self.started = self._view[:8].cast("Q")  # HOT PATH: started[0] = sequence number + 1
        self.revocations = self._view[8:32].cast("Q")  # HOT PATH: [how many, limit, cancellations]

    def set_target(self, task_id: bytes) -> None:
        """Name the task that the next SIGINT means, and that must not start if it has not."""
        self._map[_TARGET : _TARGET + TASK_BYTES] = task_id
        self.revocations[2] += 1

    def target(self) -> bytes:
        """Return the task that SIGINT means."""
        return self._map[_TARGET : _TARGET + TASK_BYTES]

    def close(self) -> None:
        """Unmap the page."""
        self.started.release()
        self.revocations.release()
        self._view.release()
        self._map.close()
