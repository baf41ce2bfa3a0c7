"""Ending an actor from inside."""

from __future__ import annotations


class ActorExit(BaseException):
    """Raised by `exit_actor()` to leave the running method; the actor's process ends after it."""
