"""Notes on the inbox that are not results: a claimed cancellation, a warning for the user."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from warren_broker.messages import Completion

if TYPE_CHECKING:
    from warren.client import Client

log = logging.getLogger("warren")

CANCEL_CLAIMED = "cancel-claimed"
WARNING = "warning"


class NoteHandler:
    """Acts on notes. Called by whichever thread reads the inbox."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def handle(self, note: Completion) -> None:
        """Act on one note; unknown ones are ignored (a newer node may send more)."""
        if note.note == CANCEL_CLAIMED:
            for task_id in note.ended:
                self._client.cancel_claimed(task_id)
        elif note.note == WARNING:
            for text in note.items:
                log.warning("%s", text.decode("utf-8", "replace"))
