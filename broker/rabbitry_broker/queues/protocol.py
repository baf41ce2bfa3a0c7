"""The queue protocol: what every engine offers and all that the code above it may assume.

An engine carries opaque message bodies on named queues, at least once, in publishing order per queue,
publisher and priority. Two exist: `rabbitmq` (pika) and `embedded` (Redis streams). Both pass `tests/contract`.

Who may call what: a `Publisher` may be used by any thread. A `Consumer` lives on one `Loop`; its methods are
called, and its deliveries arrive, on that loop's thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

OnConfirm = Callable[[], None]
OnDelivery = Callable[["Delivery"], None]
OnNewQueue = Callable[[str], None]
OnQueueGone = Callable[[str], None]


@dataclass(slots=True)
class Delivery:
    """One message handed to this consumer and not yet acknowledged.

    Attributes:
        queue: the queue it came from.
        body: the bytes that were published.
        tag: the engine's own handle on the message.
        redelivered: True if it may have been handed to a consumer before (which then died or lost its connection).
        priority: 0 (default) to 9, as published.
    """

    queue: str
    body: bytes
    tag: Any
    redelivered: bool = False
    priority: int = 0


class Publisher(Protocol):
    """Sends messages, durably, in order. Every method may be called from any thread."""

    def publish(self, queue: str, body: bytes, *, priority: int = 0, on_confirm: OnConfirm | None = None) -> None:
        """Send `body` to `queue` from the calling thread and return without waiting for the confirm.

        A queue not yet seen by this publisher is declared first and announced by the callback `on_new_queue` that the
        publisher was opened with, so that nodes find it. What is unconfirmed when a connection breaks is sent again
        after reconnecting (so it may arrive twice). `on_confirm` is called once, on any thread, when the broker has
        accepted the message; it must not block. The embedded engine without a loop notices only in calls that a
        connection broke or a queue was deleted: who publishes nothing for a while calls `flush(0)` now and then.

        Raises:
            BrokerError: the publisher is closed, or the servers stayed away longer than its `patience`.
            ValueError: a priority that is none.
        """

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was published so far is confirmed, `timeout` seconds at most (None: for ever).

        Returns:
            True if nothing is left unconfirmed.
        """

    def close(self) -> None:
        """Send what is buffered, wait shortly for confirms, and let go of the connection. May be called twice."""


class Consumer(Protocol):
    """Takes messages from any number of queues. Every method belongs to the loop's thread."""

    def subscribe(self, queue: str, *, prefetch: int, exclusive: bool = False) -> None:
        """Start consuming `queue` (declared if missing), with at most `prefetch` unacknowledged deliveries from it.

        `exclusive` asks that only one consumer of the cluster receives from the queue at a time (actor queues).
        Subscribing again changes `prefetch`; on RabbitMQ, what is outstanding then does not count towards the new one.

        Raises:
            ValueError: `prefetch` below 1, or `exclusive` for a queue that is not an actor's.
        """

    def allow_more(self, queue: str) -> bool:
        """If `prefetch` deliveries from `queue` are outstanding, allow as many again beside those.

        Returns:
            False if there are not so many: more come anyway, then.
        """

    def unsubscribe(self, queue: str) -> None:
        """Stop consuming `queue`. What was delivered stays delivered: ack or release it."""

    def abandon(self, queue: str) -> None:
        """Stop consuming `queue`, and put back all that is delivered and not acknowledged, as if this process ended.

        Another consumer gets that first, in its order, marked redelivered. Acknowledging it later is a no-op.
        """

    def ack(self, delivery: Delivery) -> None:
        """Done with it: the broker may forget the message. Acknowledging after a reconnect is a no-op."""

    def release(self, delivery: Delivery) -> None:
        """Put it back for any consumer, at once; the next delivery is marked redelivered."""

    def delete_queue(self, queue: str, *, if_empty: bool = False) -> None:
        """Delete `queue` with all it holds (a dead actor's queue, a removed bundle).

        With `if_empty` it stays if messages wait on it.
        """

    def retire_queue(self, queue: str, on_retired: Callable[[], None]) -> None:
        """Delete a queue of a class of resources that nobody has used for long, if no message waits on it.

        Whoever publishes to it afterwards announces it anew, and its consumers hear that it is gone (`on_gone`).
        `on_retired` is called when it is deleted; never if it stays.
        """

    def close(self) -> None:
        """Stop consuming; unacknowledged deliveries go back to their queues."""
