"""Ending an actor from inside."""

from __future__ import annotations


class ActorExit(SystemExit):
    """Raised by `exit_actor()` to leave the running method; the actor's process ends after it.

    A SystemExit, since that ends a thread of the user's without a traceback.
    """
