"""Signals as events of a loop.

A Python signal handler runs between any two bytecodes of the main thread, also in the middle of the loop's own work and
with its locks held, so it may do nothing but return. What happened arrives over the interpreter's wakeup descriptor.

A loop that waits for a server hears nothing for as long; so the third signal ends the process where it stands.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from typing import Any

from rabbitry_broker.loop import Loop

LAST_SIGNAL = 3


class SignalWatch:
    """Calls `on_signal(number)` on the loop's thread. Made, closed and used on the process's main thread.

    Args:
        loop: runs on the main thread.
        numbers: the signals to catch; all others stay as they are.
        on_signal: called once for each signal that arrived.
    """

    def __init__(self, loop: Loop, numbers: Iterable[signal.Signals], on_signal: Callable[[int], object]) -> None:
        self._loop = loop
        self._numbers = frozenset(numbers)
        self._on_signal = on_signal
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._arrived = 0
        self._before: dict[signal.Signals, Any] = {
            number: signal.signal(number, self._on_arrival) for number in self._numbers
        }
        loop.add_handler(self._reader, self._on_event, loop.READ)

    def _on_event(self, fd: int, events: int) -> None:
        try:
            arrived = os.read(fd, 512)
        except BlockingIOError:
            return
        for number in arrived:
            if number in self._numbers:
                self._on_signal(number)

    def close(self) -> None:
        """Put everything back as it was."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._loop.remove_handler(self._reader)
        os.close(self._reader)
        os.close(self._writer)

    def _on_arrival(self, number: int, frame: Any) -> None:
        # Without a handler of Python's own the interpreter would not write to the descriptor.
        self._arrived += 1
        if self._arrived >= LAST_SIGNAL:
            os._exit(128 + number)
