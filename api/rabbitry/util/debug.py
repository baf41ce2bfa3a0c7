"""`log_once`: messages that are wanted once a process."""

from __future__ import annotations

import threading
import time

PERIOD_SECONDS = 60.0
"""Between two times with the same key, if periodic."""

_lock = threading.Lock()
_seen: dict[str, float] = {}  # when each key came last; a program has few, and `reset_log_once` removes them
_disabled = False
_periodic = False


def log_once(key: str) -> bool:
    """Return True the first time it is called with `key` (if periodic, once a minute): the message is to be written.

    >>> log_once("an example"), log_once("an example")
    (True, False)
    """
    with _lock:
        if _disabled:
            return False
        now = time.monotonic()
        last = _seen.get(key)
        if last is not None and not (_periodic and now - last > PERIOD_SECONDS):
            return False
        _seen[key] = now
        return True


def disable_log_once_globally() -> None:
    """Let `log_once` return False from now on."""
    global _disabled
    _disabled = True


def enable_periodic_logging() -> None:
    """Let `log_once` return True for each key once a minute."""
    global _periodic
    _periodic = True


def reset_log_once(key: str | None = None) -> None:
    """Forget a key, or all of them."""
    with _lock:
        if key is None:
            _seen.clear()
        else:
            _seen.pop(key, None)
