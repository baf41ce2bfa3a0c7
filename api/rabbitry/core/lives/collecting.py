"""When this client lets go of what lost its last handle. Not to be called under a lock, but for `make_room`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rabbitry.core.lives.lifetimes import Lifetimes
from rabbitry.core.unhandled import UnhandledErrors


class Collecting:
    """Lets go of objects, ends actors, tells of failures that nobody read. Any thread may call anything.

    Args:
        lifetimes: of objects.
        unhandled: failures that nobody read.
        ending: actors whose last handle went.
        send_ends: tells them to end.
        kick: has the service thread look.
    """

    def __init__(
        self,
        lifetimes: Lifetimes,
        unhandled: UnhandledErrors,
        *,
        ending: deque[bytes],
        send_ends: Callable[[], None],
        kick: Callable[[], None],
    ) -> None:
        self._lifetimes = lifetimes
        self._unhandled = unhandled
        self._ending = ending
        self._send_ends = send_ends
        self._kick = kick

    def collect(self) -> None:
        """Let go of what lost its last handle."""
        self._lifetimes.collect()
        if self._ending:
            self._send_ends()
        if self._unhandled.due:
            self._unhandled.run_once()

    def between_tasks(self) -> None:
        """`collect`, if there is anything to collect."""
        if self._lifetimes.waiting or self._ending:
            self._lifetimes.settle()
            self.collect()

    def settle(self) -> None:
        """A task has ended: register what its process still refers to, before that end is committed."""
        lifetimes = self._lifetimes
        lifetimes.count()
        lifetimes.settle()
        if lifetimes.is_much:
            self.collect()

    def make_room(self) -> None:
        """The store is full: let go of what was dropped. Any lock of the store's callers may be held."""
        self._lifetimes.collect()
        if self._ending:
            self._kick()
