"""Queues: one protocol, two engines. What stands above opens them here and knows only the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rabbitry_broker.endpoint import Endpoint
    from rabbitry_broker.loop import Loop
    from rabbitry_broker.queues.protocol import Consumer, OnDelivery, OnNewQueue, OnQueueGone, Publisher

# The engines are imported where they are opened: pika alone costs 80 ms, and the embedded engine must do without it.


def open_publisher(
    endpoint: Endpoint,
    *,
    on_new_queue: OnNewQueue | None = None,
    loop: Loop | None = None,
    name: str = "",
    patience: float = 60.0,
    expected: bool = False,
) -> Publisher:
    """Return a publisher on the engine of `endpoint`.

    Args:
        endpoint: the cluster.
        on_new_queue: called with the name of a queue before the publisher's first message to it, by the thread that
            publishes (so it may be called by several at once, and must not use what belongs to one thread). A queue
            that turns out to be deleted is announced again, by a thread for this alone.
        loop: where the publisher lives: nothing of it then needs a thread. None: the embedded engine needs none
            either, RabbitMQ gets one named "rabbitry-broker".
        name: what the server shows for the connection.
        patience: seconds that servers may be away before `publish` raises.
        expected: the servers are known to be there. The embedded engine connects with the first message then, and
            waits for a server that is away as `publish` does.

    Raises:
        ConnectError: the server cannot be reached or refuses us; within 5 s.
    """
    if endpoint.embedded:
        from rabbitry_broker.queues.embedded.publisher import EmbeddedPublisher

        return EmbeddedPublisher(
            endpoint, on_new_queue=on_new_queue, loop=loop, name=name, patience=patience, expected=expected
        )
    from rabbitry_broker.queues.rabbitmq.publisher import RabbitMQPublisher

    return RabbitMQPublisher(endpoint, on_new_queue=on_new_queue, loop=loop, name=name, patience=patience)


def open_consumer(
    endpoint: Endpoint,
    loop: Loop,
    on_delivery: OnDelivery,
    *,
    consumer_name: str,
    on_gone: OnQueueGone | None = None,
) -> Consumer:
    """Return a consumer on the engine of `endpoint`, living on `loop`.

    Call it before the loop runs, or from another thread than the loop's.

    Args:
        endpoint: the cluster.
        loop: delivers, on its thread.
        on_delivery: called with each message.
        consumer_name: unique among the consumers of the cluster, also over restarts of the process.
        on_gone: called with a queue of a class of resources that was deleted while it was consumed: it is consumed no
            more. None: it is made again.

    Raises:
        ConnectError: the server cannot be reached or refuses us; within 5 s.
    """
    if endpoint.embedded:
        from rabbitry_broker.queues.embedded.consumer import EmbeddedConsumer

        return EmbeddedConsumer(endpoint, loop, on_delivery, consumer_name=consumer_name, on_gone=on_gone)
    from rabbitry_broker.queues.rabbitmq.consumer import RabbitMQConsumer

    return RabbitMQConsumer(endpoint, loop, on_delivery, consumer_name=consumer_name, on_gone=on_gone)
