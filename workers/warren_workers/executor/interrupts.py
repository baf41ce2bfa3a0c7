"""When a cancellation may interrupt.

A cancelled task is interrupted by a signal, which raises KeyboardInterrupt between any two instructions of the main
thread. Between the writing of a value and the note that it was written, or between the sending of a commit and its
reply, that would leave behind what nobody knows of. Such stretches hold the interruption back to their end.
"""

from __future__ import annotations


class Interrupts:
    """Holds interruptions back: `with interrupts: ...`, also nested. Main thread; elsewhere it does nothing of note."""

    def __init__(self) -> None:
        self._held = 0
        self._pending = False

    def arrived(self) -> None:
        """The running task is cancelled.

        Raises:
            KeyboardInterrupt: now, or at the end of the stretch that holds it back.
        """
        if not self._held:
            raise KeyboardInterrupt
        self._pending = True

    def __enter__(self) -> None:
        self._held += 1

    def __exit__(self, *_: object) -> None:
        self._held -= 1
        if self._pending and not self._held:
            self._pending = False
            raise KeyboardInterrupt
