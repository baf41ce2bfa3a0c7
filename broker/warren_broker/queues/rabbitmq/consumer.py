"""The consumer of the RabbitMQ engine: one connection on the agent's loop, one channel for each queue.

A channel for each queue, and not one for all: prefetch stays with the queue, acknowledgements are contiguous more often
and so can be grouped, and what makes RabbitMQ close a channel (a queue whose host is down, a delivery older than
`consumer_timeout`) does not touch the other queues. A channel costs one round trip and is kept for a while after
unsubscribe, since a node without room for a class comes back to it soon.

HOT PATH (watched by `benchmarks/`, workloads `sync` and `async_*`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pika import exceptions

from warren_broker.queues.names import is_exclusive
from warren_broker.queues.protocol import Delivery
from warren_broker.queues.rabbitmq.declaring import declare, queue_declared_otherwise
from warren_broker.queues.rabbitmq.link import AMQPConnection, Link

if TYPE_CHECKING:
    from pika.channel import Channel

    from warren_broker.endpoint import Endpoint
    from warren_broker.loop import Loop
    from warren_broker.queues.protocol import OnDelivery

_RETRY_S: Final = 0.1
_LONGEST_RETRY_S: Final = 2.0
# What was delivered to a node that fell silent is given to others after twice this time (RabbitMQ proposes 60 s).
_HEARTBEAT_S: Final = 15
# How long the channel of an unsubscribed queue is kept.
_LINGER_S: Final = 10.0

logger = logging.getLogger("warren.queues")


class _Subscription:
    """One queue of a consumer.

    Attributes:
        queue: its name.
        prefetch: how many deliveries may be outstanding.
        wanted: False after unsubscribe.
        channel: its open channel; None if there is none yet or any more.
        opening: a channel was asked for.
        foreign: the queue exists with arguments that are not ours, and is not declared.
        tag: of the consumer on the channel; "" if it does not consume.
        tag_prefetch: the prefetch that it began with.
        outstanding: delivery tags, ascending.
        acknowledged: delivery tags to acknowledge at the end of the loop's round.
        retries: failed attempts in a row.
        idle_since: when it was last wanted or had something outstanding.
    """

    __slots__ = (
        "acknowledged",
        "channel",
        "foreign",
        "idle_since",
        "opening",
        "outstanding",
        "prefetch",
        "queue",
        "retries",
        "tag",
        "tag_prefetch",
        "wanted",
    )

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.prefetch = 0
        self.wanted = False
        self.channel: Channel | None = None
        self.opening = False
        self.foreign = False
        self.tag = ""
        self.tag_prefetch = 0
        self.outstanding: dict[int, None] = {}
        self.acknowledged: list[int] = []
        self.retries = 0
        self.idle_since = 0.0

    def reset(self) -> None:
        """Forget the channel and what was delivered over it: the broker gives that to others."""
        self.channel = None
        self.opening = False
        self.tag = ""
        self.outstanding = {}
        self.acknowledged = []


class RabbitMQConsumer:
    """See `warren_broker.queues.protocol.Consumer`."""

    def __init__(self, endpoint: Endpoint, loop: Loop, on_delivery: OnDelivery, *, consumer_name: str) -> None:
        """Connect.

        Args:
            endpoint: where the queues are.
            loop: where the consumer lives.
            on_delivery: called on the loop's thread with each message.
            consumer_name: what RabbitMQ shows for the connection.

        Raises:
            ConnectError: RabbitMQ cannot be reached or refuses us.
        """
        self._loop = loop
        self._prefix = endpoint.prefix
        self._on_delivery = on_delivery
        self._subscriptions: dict[str, _Subscription] = {}
        self._dirty: list[_Subscription] = []
        self._control: Channel | None = None
        self._deletes: list[tuple[str, bool]] = []
        self._tidying = False
        self._closed = False
        self._link = Link(
            endpoint.broker_url or "",
            loop,
            name=consumer_name,
            on_up=self._on_up,
            on_down=self._on_down,
            heartbeat=_HEARTBEAT_S,
        )
        self._link.open()

    # -- the protocol

    def subscribe(self, queue: str, *, prefetch: int, exclusive: bool = False) -> None:
        """See `Consumer.subscribe`. It is the queue's kind that makes it exclusive, as publishers declare it too."""
        if prefetch < 1:
            raise ValueError(f"prefetch={prefetch} of queue {queue!r} must be 1 or more")
        if exclusive and not is_exclusive(queue):
            raise ValueError(f"queue {queue!r} cannot be exclusive: only queues of actors are")
        subscription = self._subscriptions.get(queue)
        if subscription is None:
            subscription = self._subscriptions[queue] = _Subscription(queue)
        subscription.wanted = True
        subscription.prefetch = prefetch
        self._update(subscription)

    def unsubscribe(self, queue: str) -> None:
        """See `Consumer.unsubscribe`."""
        subscription = self._subscriptions.get(queue)
        if subscription is not None and subscription.wanted:
            subscription.wanted = False
            subscription.idle_since = time.monotonic()
            self._update(subscription)
            if not self._tidying:
                self._tidying = True
                self._loop.call_later(_LINGER_S, self._tidy)

    def abandon(self, queue: str) -> None:
        """See `Consumer.abandon`.

        The queue ends the consumer of a closed channel and takes everything back in one step. Rejects would race with
        the next consumer, which gets what is behind them as soon as ours is cancelled.
        """
        self._flush_acks()
        self.unsubscribe(queue)
        subscription = self._subscriptions.get(queue)
        if subscription is not None and subscription.channel is not None:
            channel = subscription.channel
            subscription.reset()
            if channel.is_open:
                self._send(channel.close)

    def ack(self, delivery: Delivery) -> None:
        """See `Consumer.ack`. Sent at the end of the loop's round, several as one where possible."""
        subscription, channel, tag = delivery.tag
        if channel is not subscription.channel or tag not in subscription.outstanding:
            return
        del subscription.outstanding[tag]
        acknowledged = subscription.acknowledged
        if not acknowledged:
            if not self._dirty:
                self._loop.add_callback(self._flush_acks)
            self._dirty.append(subscription)
        acknowledged.append(tag)

    def release(self, delivery: Delivery) -> None:
        """See `Consumer.release`."""
        subscription, channel, tag = delivery.tag
        if channel is subscription.channel and tag in subscription.outstanding:
            del subscription.outstanding[tag]
            if channel.is_open:
                self._loop.write_inline(lambda: channel.basic_reject(tag, requeue=True))

    def delete_queue(self, queue: str, *, if_empty: bool = False) -> None:
        """See `Consumer.delete_queue`."""
        self._deletes.append((queue, if_empty))
        self._send_deletes()

    def close(self) -> None:
        """See `Consumer.close`."""
        with self._loop.lock:
            if not self._closed:
                self._closed = True
                self._flush_acks()
                self._link.close()
                for subscription in self._subscriptions.values():
                    subscription.reset()

    # -- acknowledging

    def _flush_acks(self) -> None:
        dirty, self._dirty = self._dirty, []
        connection = self._link.connection
        if connection is not None and connection.is_open:
            connection.send_as_one(lambda: self._send_acks(dirty))

    def _send_acks(self, dirty: list[_Subscription]) -> None:
        for subscription in dirty:
            tags, subscription.acknowledged = subscription.acknowledged, []
            channel = subscription.channel
            if not tags or channel is None or not channel.is_open:
                continue
            # Up to the first that is outstanding, one frame acknowledges all.
            first = next(iter(subscription.outstanding), None)
            single = []
            through = 0
            for tag in tags:
                if first is None or tag < first:
                    through = max(through, tag)
                else:
                    single.append(tag)
            if through:
                channel.basic_ack(through, multiple=True)
            for tag in single:
                channel.basic_ack(tag)

    # -- consuming

    def _update(self, subscription: _Subscription) -> None:
        """Bring a queue's channel and consumer to what is wanted."""
        connection = self._link.connection
        if self._closed or connection is None or not connection.is_open or subscription.opening:
            return
        channel = subscription.channel
        if channel is None:
            if subscription.wanted:
                subscription.opening = True
                self._send(lambda: connection.channel(on_open_callback=partial(self._on_channel, subscription)))
        elif channel.is_open:
            self._send(lambda: self._consume_or_cancel(subscription, channel))

    def _consume_or_cancel(self, subscription: _Subscription, channel: Channel) -> None:
        wanted = subscription.wanted
        if subscription.tag and (not wanted or subscription.tag_prefetch != subscription.prefetch):
            # What is on its way for a cancelled consumer, pika rejects: it goes back to the queue.
            channel.basic_cancel(subscription.tag)
            subscription.tag = ""
        if wanted and not subscription.tag:
            subscription.tag_prefetch = subscription.prefetch
            channel.basic_qos(prefetch_count=subscription.prefetch)
            subscription.tag = channel.basic_consume(
                self._prefix + subscription.queue, partial(self._on_message, subscription)
            )

    def _send(self, action: Callable[[], object]) -> None:
        connection = self._link.connection
        if connection is not None:
            self._loop.write_inline(lambda: connection.send_as_one(action))

    def _on_channel(self, subscription: _Subscription, channel: Channel) -> None:
        subscription.opening = False
        subscription.channel = channel
        channel.add_on_close_callback(partial(self._on_channel_close, subscription))
        channel.add_on_cancel_callback(lambda _: self._on_cancelled(subscription, channel))
        if subscription.wanted and not subscription.foreign:  # else it may have been deleted meanwhile
            declare(channel, self._prefix, subscription.queue)
        self._update(subscription)

    def _on_message(
        self, subscription: _Subscription, channel: Channel, method: Any, properties: Any, body: bytes
    ) -> None:
        tag = method.delivery_tag
        if self._closed or channel is not subscription.channel:
            return
        subscription.retries = 0
        subscription.outstanding[tag] = None
        delivery = Delivery(
            subscription.queue, body, (subscription, channel, tag), method.redelivered, properties.priority or 0
        )
        try:
            self._on_delivery(delivery)
        except Exception:
            # It stays outstanding: acknowledging would lose it, releasing would have it fail again at once.
            logger.exception("handling a message from %s failed; it is kept", subscription.queue)

    def _on_cancelled(self, subscription: _Subscription, channel: Channel) -> None:
        """The broker ended the consumer: the queue was deleted, or its host went down."""
        if channel is subscription.channel:
            subscription.tag = ""
            if subscription.wanted:
                logger.info("queue %s was deleted while it was consumed", subscription.queue)
                self._retry(subscription)

    def _retry(self, subscription: _Subscription) -> None:
        def again() -> None:
            channel = subscription.channel
            if self._subscriptions.get(subscription.queue) is subscription and subscription.wanted:
                if channel is not None and channel.is_open and not subscription.tag and not subscription.foreign:
                    declare(channel, self._prefix, subscription.queue)
                self._update(subscription)

        delay = min(_LONGEST_RETRY_S, _RETRY_S * 2**subscription.retries)
        subscription.retries = min(subscription.retries + 1, 10)
        self._loop.call_later(delay, again)

    def _on_channel_close(self, subscription: _Subscription, channel: Channel, reason: Any) -> None:
        if channel is not subscription.channel:
            return
        subscription.reset()
        if not isinstance(reason, exceptions.ChannelClosedByBroker):
            return  # By us, or with the connection, which resubscribes when it is back.
        if queue_declared_otherwise(self._prefix, reason):
            logger.warning("queue %s exists with other arguments than warren's; using it as it is", subscription.queue)
            subscription.foreign = True
        else:
            logger.warning("RabbitMQ closed the channel of queue %s: %s", subscription.queue, reason)
        if subscription.wanted:
            self._retry(subscription)

    def _tidy(self) -> None:
        """Close the channels of queues that are not wanted, once nothing of theirs is outstanding."""
        now = time.monotonic()
        left = False
        for subscription in list(self._subscriptions.values()):
            if subscription.wanted:
                continue
            left = True
            if subscription.outstanding or subscription.acknowledged:
                subscription.idle_since = now
            elif now - subscription.idle_since >= _LINGER_S:
                del self._subscriptions[subscription.queue]
                channel = subscription.channel
                subscription.reset()
                if channel is not None and channel.is_open:
                    channel.close()
        self._tidying = left and not self._closed
        if self._tidying:
            self._loop.call_later(_LINGER_S / 2, self._tidy)

    # -- the connection

    def _on_up(self, connection: AMQPConnection) -> None:
        connection.channel(on_open_callback=self._on_control)
        for subscription in self._subscriptions.values():
            self._update(subscription)

    def _on_down(self) -> None:
        self._control = None
        self._dirty.clear()
        for subscription in self._subscriptions.values():
            subscription.reset()

    def _on_control(self, channel: Channel) -> None:
        self._control = channel
        channel.add_on_close_callback(self._on_control_close)
        self._send_deletes()

    def _on_control_close(self, channel: Any, reason: Any) -> None:
        if channel is self._control:
            self._control = None
            connection = self._link.connection
            if isinstance(reason, exceptions.ChannelClosedByBroker) and connection is not None and connection.is_open:
                logger.warning("RabbitMQ refused to delete a queue: %s", reason)
                connection.channel(on_open_callback=self._on_control)

    def _send_deletes(self) -> None:
        channel = self._control
        if channel is not None and channel.is_open and self._deletes:
            deletes, self._deletes = self._deletes, []
            self._send(
                lambda: [channel.queue_delete(self._prefix + queue, if_empty=if_empty) for queue, if_empty in deletes]
            )
