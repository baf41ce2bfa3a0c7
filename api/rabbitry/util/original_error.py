"""The exception that a call raised, for interfaces that promise it as it was: those of the standard library."""

from __future__ import annotations

from rabbitry.exceptions import TaskError


def original_error(error: BaseException) -> BaseException:
    """Return the exception that a task raised, with the failure of the task (and its traceback) as its `__cause__`.

    Anything but the failure of a task is returned as it is.
    """
    if not isinstance(error, TaskError):
        return error
    cause = error.cause
    if cause.__cause__ is None:
        cause.__cause__ = getattr(error, "_task_error", error)
    return cause
