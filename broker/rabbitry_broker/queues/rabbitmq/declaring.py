"""How queues are declared. Publishers and consumers must agree: RabbitMQ refuses a declaration that differs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from rabbitry_broker.messages import PRIORITIES
from rabbitry_broker.queue_names import amqp_name, is_exclusive

if TYPE_CHECKING:
    from pika.channel import Channel


_PRECONDITION_FAILED: Final = 406
_QUEUE_IN_TEXT: Final = re.compile(r"queue '(.+?)' in vhost")


# RabbitMQ 4 drops a message of a quorum queue that came back 20 times, and work comes back as often as nodes have no
# room for it. No limit at all would put what comes back at the end of the queue, behind calls that were sent later.
_DELIVERY_LIMIT: Final = 2**31 - 1


def declare(channel: Channel, prefix: str, queue: str, *, quorum: bool) -> None:
    """Declare `queue` without waiting for the answer; a refusal closes the channel.

    There is no `x-expires`: it would delete a queue that holds messages as soon as nobody consumes it. Queues of actors
    have no priorities, as their calls keep their order: RabbitMQ makes a queue on disk for each priority, which takes
    it eight times as long as one alone.

    Args:
        channel: to declare it on.
        prefix: of the cluster.
        queue: its name.
        quorum: it is to be a quorum queue; these take no `x-max-priority` (RabbitMQ 4 has two priorities of its own).
    """
    arguments: dict[str, Any]
    exclusive = is_exclusive(queue)
    if quorum:
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": _DELIVERY_LIMIT}
    else:
        # Said also where it is the default: a virtual host may have quorum queues as its own, which take no such
        # arguments, or have no such limit.
        arguments = {"x-queue-type": "classic"}
        if not exclusive:
            arguments["x-max-priority"] = len(PRIORITIES)
    if exclusive:
        arguments["x-single-active-consumer"] = True
    channel.queue_declare(amqp_name(prefix, queue), durable=True, arguments=arguments)


def queue_declared_otherwise(reason: Any) -> str | None:
    """Return RabbitMQ's name of the queue whose declaration closed a channel, as it exists with other arguments.

    None if that was not why it was closed.
    """
    if getattr(reason, "reply_code", 0) != _PRECONDITION_FAILED or "inequivalent arg" not in reason.reply_text:
        return None
    match = _QUEUE_IN_TEXT.search(reason.reply_text)
    return match[1] if match else None
