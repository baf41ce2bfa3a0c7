"""How queues are declared. Publishers and consumers must agree: RabbitMQ refuses a declaration that differs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from warren_broker.queues.names import is_exclusive

if TYPE_CHECKING:
    from pika.channel import Channel

PRIORITIES: Final = range(10)

_PRECONDITION_FAILED: Final = 406
_QUEUE_IN_TEXT: Final = re.compile(r"queue '(.+?)' in vhost")


def declare(channel: Channel, prefix: str, queue: str) -> None:
    """Declare `queue` without waiting for the answer; a refusal closes the channel.

    There is no `x-expires`: it would delete a queue that holds messages as soon as nobody consumes it.
    """
    arguments: dict[str, Any] = {"x-max-priority": len(PRIORITIES)}
    if is_exclusive(queue):
        arguments["x-single-active-consumer"] = True
    channel.queue_declare(prefix + queue, durable=True, arguments=arguments)


def queue_declared_otherwise(prefix: str, reason: Any) -> str | None:
    """Return the queue whose declaration closed a channel because it exists with other arguments; None if not so."""
    if getattr(reason, "reply_code", 0) != _PRECONDITION_FAILED or "inequivalent arg" not in reason.reply_text:
        return None
    match = _QUEUE_IN_TEXT.search(reason.reply_text)
    return match[1].removeprefix(prefix) if match else None
