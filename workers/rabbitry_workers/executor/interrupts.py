"""When a cancellation may interrupt.

A cancelled task is interrupted by a signal, which raises KeyboardInterrupt between any two instructions of the main
thread. Between the writing of a value and the note that it was written, or between the sending of a commit and its
reply, that would leave behind what nobody knows of. Such stretches hold the interruption back to their end.
"""

from __future__ import annotations

from threading import get_ident, main_thread


class Interrupts:
    """Holds interruptions back: `with interrupts: ...`, also nested. On other threads it does nothing."""

    def __init__(self) -> None:
        self._main = main_thread().ident  # the only thread that is interrupted
        self._held = 0
        self._pending = False

    @property
    def held(self) -> bool:
        """True inside such a stretch."""
        return self._held > 0

    def arrived(self) -> None:
        """The running task is cancelled.

        Raises:
            KeyboardInterrupt: now, or at the end of the stretch that holds it back.
        """
        if not self._held:
            raise KeyboardInterrupt
        self._pending = True

    def __enter__(self) -> None:
        if get_ident() == self._main:
            self._held += 1

    def __exit__(self, *_: object) -> None:
        if get_ident() != self._main:
            return
        self._held -= 1
        if self._pending and not self._held:
            self._pending = False
            raise KeyboardInterrupt
