"""A shared page between agent and executor: which task runs, and which one is cancelled.

The agent may also *revoke* what an executor has not begun while a slow task keeps it busy: it writes a limit and
counts up the revocations; until the executor has read the TAKEN message that follows, it starts nothing from the
limit on.

The executor writes the sequence number of the task it starts; after a crash the agent reads from it which tasks may
have started. The agent writes the id of a task that is cancelled: the executor does not start it; and if it runs, a
SIGINT follows, whose handler interrupts only a task that stands there, so a late signal hits nobody else. There is room
for as many as an executor can have in hand, and the oldest go first.

What the executor has printed without a newline stands on the page, too, until it is written to its pipe: so that the
agent finds it if the process is killed before that.
"""

from __future__ import annotations

import mmap
import os
import tempfile

from rabbitry_broker.ids import TASK_BYTES

PAGE_BYTES = 24576
_CANCELLED = 64  # where the ids of cancelled tasks begin
_CANCELLED_SLOTS = 640
_CANCELLED_END = _CANCELLED + _CANCELLED_SLOTS * TASK_BYTES
_TAILS = 16384  # of standard output and standard error: a length, and text
_TAIL_BYTES = 4096


def create() -> int:
    """Return a descriptor of a fresh shared page."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("rabbitry-progress", os.MFD_CLOEXEC)
    else:
        fd, path = tempfile.mkstemp(prefix="rabbitry-progress-")
        os.unlink(path)
    os.ftruncate(fd, PAGE_BYTES)
    return fd


def _spared(task_id: bytes) -> bytes:
    """Return the mark of a cancelled task whose children are spared: its id with all bits turned, as no id has them."""
    return bytes(0xFF ^ each for each in task_id)


class Progress:
    """One end of the page."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, PAGE_BYTES)
        os.close(fd)
        self._view = memoryview(self._map)
        self.started = self._view[:8].cast("Q")  # HOT PATH: started[0] = sequence number + 1
        self.revocations = self._view[8:32].cast("Q")  # HOT PATH: [how many, limit, cancellations]
        self._tails = self._view[_TAILS:].cast("Q")

    def cancel(self, task_id: bytes) -> None:
        """Name a task that must not start, and that a SIGINT means if it has. For the agent."""
        at = _CANCELLED + self.revocations[2] % _CANCELLED_SLOTS * TASK_BYTES
        self._map[at : at + TASK_BYTES] = task_id
        self.revocations[2] += 1

    def spare_children_of(self, task_id: bytes) -> None:
        """Say of a task, before it is named as cancelled, that what it submitted goes on. For the agent."""
        self.cancel(_spared(task_id))

    def spares_children_of(self, task_id: bytes) -> bool:
        """True if what a cancelled task submitted is to go on."""
        return self.is_cancelled(_spared(task_id))

    def is_cancelled(self, task_id: bytes) -> bool:
        """True if the task was named."""
        return bool(self.revocations[2]) and self._map.find(task_id, _CANCELLED, _CANCELLED_END) >= 0

    def keep_tail(self, stream: int, text: bytes, *, at: int) -> int:
        """Append to what was printed and not written yet.

        Args:
            stream: 0 for standard output, 1 for standard error.
            text: what was printed.
            at: what is there already, in bytes.

        Returns:
            How many bytes are there now; -1 if there is no room.
        """
        end = at + len(text)
        if end > _TAIL_BYTES - 8:
            return -1
        begin = _TAILS + stream * _TAIL_BYTES + 8
        self._map[begin + at : begin + end] = text
        self._tails[stream * (_TAIL_BYTES // 8)] = end
        return end

    def clear_tail(self, stream: int) -> None:
        """What was printed is written."""
        self._tails[stream * (_TAIL_BYTES // 8)] = 0

    def tail(self, stream: int) -> bytes:
        """Return what was printed and not written. For the agent, once the process has ended."""
        begin = _TAILS + stream * _TAIL_BYTES + 8
        length = min(self._tails[stream * (_TAIL_BYTES // 8)], _TAIL_BYTES - 8)
        return self._map[begin : begin + length]

    def close(self) -> None:
        """Unmap the page."""
        self._tails.release()
        self.started.release()
        self.revocations.release()
        self._view.release()
        self._map.close()
