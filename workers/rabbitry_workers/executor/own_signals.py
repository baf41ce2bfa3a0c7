"""Signal handlers of one process only: what user code forks from it is an ordinary process, which signals end.

What would end a process is taken away before each fork, not after it in the child: a signal that comes before the child
has got so far would be lost, for the interpreter forgets in a forked child what has arrived and was not handled.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Handler = Callable[..., Any]

_DEFAULTS = {signal.SIGINT: signal.default_int_handler}  # others: what the kernel does


def own_signals(handlers: Mapping[signal.Signals, Handler]) -> None:
    """Set handlers, for this process and not for what it forks. Main thread, once a process."""
    taken: list[signal.Signals] = []

    def before() -> None:
        if threading.current_thread() is threading.main_thread():
            release(number for number in handlers if number not in _DEFAULTS)

    def release(numbers: Iterable[signal.Signals]) -> None:
        for number in numbers:
            if signal.getsignal(number) == handlers[number]:  # else user code has its own
                signal.signal(number, _DEFAULTS.get(number, signal.SIG_DFL))
                taken.append(number)

    def after_in_parent() -> None:
        while taken:
            number = taken.pop()
            signal.signal(number, handlers[number])

    def after_in_child() -> None:
        taken.clear()
        release(handlers)

    for number, handler in handlers.items():
        signal.signal(number, handler)
    os.register_at_fork(before=before, after_in_parent=after_in_parent, after_in_child=after_in_child)
