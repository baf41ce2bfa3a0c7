"""What the parts of a client take from the outside, as narrow interfaces. Tests hand in fakes.

What only one part takes, that part's module declares.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from rabbitry_broker.messages import TaskHeader


class Publishes(Protocol):
    """Sends messages to queues; see `rabbitry_broker.queues.protocol.Publisher`."""

    def publish(self, queue: str, body: bytes, *, priority: int = 0) -> None:
        """Send `body` to `queue`, without waiting for the confirm."""

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was published is confirmed; False if `timeout` seconds were not enough."""


class Commands(Protocol):
    """Runs single commands in the store."""

    def call(self, *args: Any) -> Any:
        """Run one command and return its reply."""


class Within(Protocol):
    """Limits how long this thread waits for a store that is away; see `ObjectStore.within`."""

    def __call__(self, deadline: float | None) -> AbstractContextManager[None]:
        """Return the stretch of code that has this deadline (monotonic)."""


class FlushesPuts(Protocol):
    """Sends small values that were kept back."""

    def __call__(self, *, wait: bool = True) -> None:
        """Send them; `wait` for room if the store is full."""


class Call(Protocol):
    """What is known of a submitted call: its plan, as far as others need it."""

    @property
    def function(self) -> bytes:
        """Content hash of the function, or the id of the actor."""

    @property
    def header(self) -> TaskHeader:
        """What all calls of the plan share."""


NodeRecords = Callable[[], "list[dict[str, Any]]"]
"""Returns the records of all nodes, with `alive` added; see `rabbitry.nodes`."""


class Captured(NamedTuple):
    """The placement group that some code runs in.

    Attributes:
        group: its id, b"" for none.
        captures: what that code submits runs there too, unless it says otherwise.
    """

    group: bytes = b""
    captures: bool = False


def in_no_group() -> Captured:
    """Return that code runs in no placement group, as that of drivers does."""
    return Captured()


class Executing(NamedTuple):
    """What a client knows of the executor that it serves; a driver's has none.

    Attributes:
        current_task: returns the id of the task that this thread runs, None between two.
        blocked: called before a `get` or `wait` blocks, with True for `wait`.
        unblocked: called after it.
        interrupts: holds back the cancellation of what runs, while something must not be left half done.
        group: returns the placement group that it runs in.
        in_vain: tells whether what waits in this thread, an actor's call, was cancelled. Any thread.
    """

    current_task: Callable[[], bytes | None]
    blocked: Callable[[bool], None]
    unblocked: Callable[[], None]
    interrupts: AbstractContextManager[None]
    group: Callable[[], Captured] = in_no_group
    in_vain: Callable[[], bool] = lambda: False
