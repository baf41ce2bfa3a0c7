"""Notes on the inbox that are not results: about a cancellation, a warning for the user, a call to look again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from rabbitry_broker.messages import Completion

log = logging.getLogger("rabbitry")

CANCEL_CLAIMED = "cancel-claimed"
CANCEL_PASSED = "cancel-passed"  # a node has none of these; its id is the item
CANCEL = "cancel"  # a borrower of a result asks the owner, who knows how many results there are
FORCE, RECURSIVE = b"force", b"recursive"
WARNING = "warning"
WAKE = "wake"  # somebody in the owner's own process made something known: the thread that reads this looks again


class CancelsTask(Protocol):
    """Cancels a task of this client; see `Cancelling.cancel`."""

    def __call__(self, task_id: bytes, *, force: bool, recursive: bool) -> None:
        """Cancel it."""


class NoteHandler:
    """Acts on notes. Called by whichever thread reads the inbox.

    Args:
        cancel: cancels a task of this client.
        claimed: a node commits the end of a cancelled task.
        passed: a node has none of some cancelled tasks.
    """

    def __init__(
        self, cancel: CancelsTask, claimed: Callable[[bytes], None], passed: Callable[[bytes, Sequence[bytes]], None]
    ) -> None:
        self._cancel = cancel
        self._claimed = claimed
        self._passed = passed

    def handle(self, note: Completion) -> None:
        """Act on one note; unknown ones are ignored (a newer node may send more)."""
        if note.note == CANCEL_CLAIMED:
            for task_id in note.ended:
                self._claimed(task_id)
        elif note.note == CANCEL_PASSED:
            for node in note.items:
                self._passed(node, note.ended)
        elif note.note == CANCEL:
            for task_id in note.ended:
                self._cancel(task_id, force=FORCE in note.items, recursive=RECURSIVE in note.items)
        elif note.note == WARNING:
            for text in note.items:
                log.warning("%s", text.decode("utf-8", "replace"))
