"""SIGTERM ends a driver as `sys.exit` does: `finally` blocks and exit handlers run, and so does the goodbye.

Only where the program leaves SIGTERM to the system: a handler of its own, set before `init` or after it, stands. A
second SIGTERM ends the process at once.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Final, NoReturn

EXIT_CODE: Final = 128 + signal.SIGTERM  # what a shell says of a process that SIGTERM ended


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Not the goodbye itself: what this interrupts may hold locks that it needs.
    raise SystemExit(EXIT_CODE)


def say_goodbye_on_sigterm() -> None:
    """From now on SIGTERM raises SystemExit in the main thread, unless the program handles or ignores it."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _exit)


def leave_sigterm_alone() -> None:
    """SIGTERM is the system's again, if it still was ours."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is _exit:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
