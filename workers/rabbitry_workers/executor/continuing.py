"""Continuing: an executor runs by itself a task that its own result released.

A chain of dependent tasks would otherwise go through a queue and the agent between any two links. An executor with
nothing left to do offers, with its commit, to take one released task of its own resource class; the commit script then
hands it over instead of publishing it, and the agent hears of it together with what is done. What becomes of it if
this process or node dies is told in `rabbitry_workers.node.outcome.continuations`.

A streak is short, so that whatever else waits gets its turn.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from rabbitry_broker.messages import KIND_TASK, MalformedMessage, Task, TaskHeader, decode_frames, decode_header
from rabbitry_broker.queue_names import task_queue

if TYPE_CHECKING:
    from rabbitry_broker.signing import Signer

STREAK_LINKS: Final = 50
STREAK_SECONDS: Final = 0.1


class Continuing:
    """What an executor may go on with. Main thread only, but for `read`."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._header: TaskHeader | None = None
        self._links = 0
        self._until = 0.0

    def began(self, header: TaskHeader) -> None:
        """The agent sent a chunk: what it releases may be continued with."""
        plain = header.kind == KIND_TASK and not header.max_calls
        self._header = header if plain else None
        self._links = 0

    def offer(self) -> str:
        """Return the queue whose tasks may be continued with now; "" for none."""
        header = self._header
        if header is None or self._links >= STREAK_LINKS:
            return ""
        if self._links and time.monotonic() > self._until:
            return ""
        return header.bundle or task_queue(header.resources)

    def read(self, message: bytes) -> tuple[bytes, Task] | None:
        """Return (header bytes, task) of a released message; None if it has to go to its queue after all."""
        before = self._header
        try:
            ((header_bytes, tasks),) = decode_frames(self._signer, message)
        except (MalformedMessage, ValueError):
            return None  # whoever takes it from the queue puts it aside
        header = decode_header(header_bytes)
        fits = (
            before is not None
            and len(tasks) == 1
            and header.kind == KIND_TASK
            and header.max_retries != 0  # those need a mark before they start, which the agent makes
            and not header.max_calls
            and header.num_returns > 0  # its end is one commit
            and (header.resources, header.job, header.env) == (before.resources, before.job, before.env)
            and header.bundle == before.bundle
        )
        if not fits:
            return None
        if not self._links:
            self._until = time.monotonic() + STREAK_SECONDS
        self._links += 1
        return header_bytes, tasks[0]
