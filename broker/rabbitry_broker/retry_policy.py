"""Whether a task is run again, and when: the one place where that is decided. Pure functions.

A task carries its *attempts*: how often it was run, or may have been, in vain. Each function takes those before what
has just happened and returns those to run it again with, or None if it fails.

| what happened | counts as an attempt | is run again |
|---|---|---|
| an exception | always | if `retry_exceptions` names it and retries are left |
| its process died | if it was the task that ran | if retries are left, and never with `max_retries=0` |
| its node died | once for each node that had it | if retries are left |
| an actor's process died | if the call had begun | if the actor was not ready yet, or retries are left |
| a durable actor's process died | if the call ran just then | `DURABLE_ATTEMPTS` times: it never took effect |

`max_retries` counts the runs after the first; below 0 means without limit.
"""

from __future__ import annotations

import math
import pickle
from typing import Final

MAX_DELAY: Final = 60.0
"""The longest pause before a retry, in seconds, that doubling leads to."""

DURABLE_ATTEMPTS: Final = 5
"""A call that ends the process of its durable actor so often is failed."""

_DOUBLINGS: Final = 2000  # of the smallest number: then it is more than a minute

ANY_EXCEPTION: Final = b"*"
"""`retry_exceptions` of a header that names all."""


def after_exception(max_retries: int, retry_exceptions: bytes, attempts: int, error: BaseException) -> int | None:
    """It raised `error`.

    Args:
        max_retries: of the task.
        retry_exceptions: as in `TaskHeader`.
        attempts: before this one.
        error: what it raised.
    """
    if not retry_exceptions or not isinstance(error, Exception) or not _named(retry_exceptions, error):
        return None
    return _within(max_retries, attempts + 1)


def after_crash(max_retries: int, attempts: int, *, running: bool) -> int | None:
    """The process that had begun it died; `running`: it was the task that ran just then.

    What was begun and is not known to be done may run twice, unless it must not.
    """
    if max_retries == 0:
        return None
    return _within(max_retries, attempts + running)


def after_lost_node(max_retries: int, attempts: int) -> int | None:
    """A node died with it; `attempts`: those counted, this one included."""
    return _within(max_retries, attempts)


def of_actor_call(max_retries: int, attempts: int, *, sent: bool, begun: bool) -> int | None:
    """The process of its actor died.

    Args:
        max_retries: of the call (`max_task_retries`).
        attempts: before this one.
        sent: to a process whose constructor had ended. Ray takes a call for lost then, whether or not it had begun.
        begun: it had begun.
    """
    if sent and 0 <= max_retries <= attempts:
        return None
    return attempts + begun


def of_durable_call(attempts: int, *, running: bool) -> int | None:
    """The process of its durable actor died: the state is committed with the results, so it took no effect.

    Args:
        attempts: before this one.
        running: it ran just then.
    """
    return attempts + running if attempts + running < DURABLE_ATTEMPTS else None


def delay(retry_delay: float, retry: int) -> float:
    """Return the seconds to wait before a retry: `retry_delay`, doubled with each, up to a minute.

    Args:
        retry_delay: the option of that name. A longer one than a minute is kept, but not doubled.
        retry: 1 for the first.

    >>> [delay(10, retry) for retry in (1, 2, 3, 4, 5000)], delay(120, 2), delay(0, 1)
    ([10.0, 20.0, 40.0, 60.0, 60.0], 120.0, 0.0)
    """
    if not retry_delay > 0:  # nor if it is not a number
        return 0.0
    longest = max(float(retry_delay), MAX_DELAY)
    try:
        return min(longest, math.ldexp(retry_delay, min(max(0, retry - 1), _DOUBLINGS)))
    except OverflowError:
        return longest


def _named(retry_exceptions: bytes, error: Exception) -> bool:
    if retry_exceptions == ANY_EXCEPTION:
        return True
    try:
        classes = pickle.loads(retry_exceptions)
        return isinstance(error, classes) or isinstance(getattr(error, "cause", None), classes)
    except Exception:  # noqa: BLE001 - a pickle may raise anything
        return False  # classes that cannot be had here: what it raised is what its caller is to know


def _within(max_retries: int, attempts: int) -> int | None:
    return attempts if max_retries < 0 or attempts <= max_retries else None
