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

from rabbitry_broker.queue_names import amqp_name, is_exclusive, is_of_class, parse
from rabbitry_broker.queues.protocol import Delivery
from rabbitry_broker.queues.rabbitmq.declaring import declare, queue_declared_otherwise
from rabbitry_broker.queues.rabbitmq.link import AMQPConnection, Link, close_at_once

if TYPE_CHECKING:
    from pika.channel import Channel

    from rabbitry_broker.endpoint import Endpoint
    from rabbitry_broker.loop import Loop
    from rabbitry_broker.queues.protocol import OnDelivery, OnQueueGone

_NOT_FOUND: Final = 404
_RETRY_S: Final = 0.1
_LONGEST_RETRY_S: Final = 2.0
# What was delivered to a node that fell silent is given to others after twice this time (RabbitMQ proposes 60 s).
_HEARTBEAT_S: Final = 15
# How long the channel of an unsubscribed queue is kept.
_LINGER_S: Final = 10.0

logger = logging.getLogger("rabbitry.queues")


class _Subscription:
    """One queue of a consumer.

    Attributes:
        queue: its name.
        prefetch: how many deliveries may be outstanding.
        wanted: False after unsubscribe.
        channel: its open channel; None if there is none yet or any more.
        opening: a channel was asked for.
        gone: the queue was deleted while it was consumed.
        foreign: the queue exists with arguments that are not ours, and is not declared.
        tag: of the consumer on the channel; "" if it does not consume.
        tag_prefetch: the prefetch that it began with.
        counted_from: the first delivery tag that counts towards it: what was outstanding when it began does not.
        outstanding: delivery tags, ascending.
        acknowledged: delivery tags to acknowledge at the end of the loop's round.
        retries: failed attempts in a row.
        idle_since: when it was last wanted or had something outstanding.
    """

    __slots__ = (
        "acknowledged",
        "channel",
        "counted_from",
        "foreign",
        "gone",
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
        self.gone = False
        self.tag = ""
        self.tag_prefetch = 0
        self.counted_from = 0
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
    """See `rabbitry_broker.queues.protocol.Consumer`."""

    def __init__(
        self,
        endpoint: Endpoint,
        loop: Loop,
        on_delivery: OnDelivery,
        *,
        consumer_name: str,
        on_gone: OnQueueGone | None = None,
    ) -> None:
        """Connect.

        Args:
            endpoint: where the queues are.
            loop: where the consumer lives.
            on_delivery: called on the loop's thread with each message.
            consumer_name: what RabbitMQ shows for the connection.
            on_gone: hears of queues of classes of resources that were deleted, which are consumed no more then.

        Raises:
            ConnectError: RabbitMQ cannot be reached or refuses us.
        """
        self._loop = loop
        self._prefix = endpoint.prefix
        self._on_delivery = on_delivery
        self._on_gone = on_gone
        self._subscriptions: dict[str, _Subscription] = {}
        self._dirty: list[_Subscription] = []
        self._control: Channel | None = None
        self._deletes: list[tuple[str, bool, Callable[[], None] | None]] = []
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

    def allow_more(self, queue: str) -> bool:
        """See `Consumer.allow_more`.

        A consumer that begins anew counts from nought. Nothing is on its way to one that has all that it may have, so
        nothing comes back, behind what was published later.
        """
        subscription = self._subscriptions.get(queue)
        if subscription is None or not subscription.tag or not subscription.wanted:
            return False
        counted = sum(tag >= subscription.counted_from for tag in subscription.outstanding)
        if counted < subscription.prefetch or subscription.tag_prefetch != subscription.prefetch:
            return False
        subscription.tag_prefetch = 0
        self._update(subscription)
        return True

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
        subscription = self._subscriptions.get(queue)
        if subscription is not None and subscription.channel is not None:
            channel = subscription.channel
            subscription.reset()
            if channel.is_open:
                self._send(lambda: close_at_once(channel))
        self.unsubscribe(queue)

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
        self._deletes.append((queue, if_empty, None))
        self._send_deletes()

    def retire_queue(self, queue: str, on_retired: Callable[[], None]) -> None:
        """See `Consumer.retire_queue`. A message that comes then goes back to its publisher, or keeps the queue.

        A quorum queue cannot be deleted on the condition that it is empty. So common ones stay; those of ended jobs, to
        which hardly anybody publishes any more, are looked at and deleted.
        """
        if self._link.quorum and not parse(queue).job:
            return
        self._deletes.append((queue, True, on_retired))
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
                if not self._open_channel(partial(self._on_channel, subscription)):
                    subscription.opening = False
                    if not subscription.retries:
                        most = connection.params.channel_max
                        logger.warning(
                            "queue %s waits for a channel: RabbitMQ allows %d on a connection (channel_max), and each "
                            "queue that is consumed takes one; allow more there",
                            subscription.queue,
                            most,
                        )
                    self._retry(subscription)
        elif channel.is_open:
            self._send(lambda: self._consume_or_cancel(subscription, channel))

    def _consume_or_cancel(self, subscription: _Subscription, channel: Channel) -> None:
        wanted = subscription.wanted
        if subscription.tag and (not wanted or subscription.tag_prefetch != subscription.prefetch):
            # What is on its way for a cancelled consumer, pika rejects: it goes back to the queue.
            channel.basic_cancel(subscription.tag)
            subscription.tag = ""
        if wanted and not subscription.tag:
            if subscription.gone and not subscription.foreign:
                declare(channel, self._prefix, subscription.queue, quorum=self._link.quorum)
            subscription.gone = False
            subscription.tag_prefetch = subscription.prefetch
            subscription.counted_from = next(reversed(subscription.outstanding), 0) + 1
            channel.basic_qos(prefetch_count=subscription.prefetch)
            subscription.tag = channel.basic_consume(
                amqp_name(self._prefix, subscription.queue), partial(self._on_message, subscription)
            )

    def _open_channel(self, on_open: Callable[[Channel], object]) -> bool:
        """Ask for a channel; False if the connection has as many as RabbitMQ allows."""
        connection = self._link.connection
        try:
            if connection is not None:
                self._send(lambda: connection.channel(on_open_callback=on_open))
        except exceptions.NoFreeChannels:
            return False
        return True

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
            declare(channel, self._prefix, subscription.queue, quorum=self._link.quorum)
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
                if self._on_gone is not None and is_of_class(subscription.queue):
                    subscription.gone = True
                    self.unsubscribe(subscription.queue)
                    self._on_gone(subscription.queue)
                else:
                    self._retry(subscription)

    def _retry(self, subscription: _Subscription) -> None:
        def again() -> None:
            channel = subscription.channel
            if self._subscriptions.get(subscription.queue) is subscription and subscription.wanted:
                if channel is not None and channel.is_open and not subscription.tag and not subscription.foreign:
                    declare(channel, self._prefix, subscription.queue, quorum=self._link.quorum)
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
        if queue_declared_otherwise(reason):
            logger.warning(
                "queue %s exists with other arguments than rabbitry's; using it as it is", subscription.queue
            )
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
                logger.info("RabbitMQ did not delete a queue: %s", reason)  # it holds messages
                connection.channel(on_open_callback=self._on_control)

    def _send_deletes(self) -> None:
        channel = self._control
        if channel is not None and channel.is_open and self._deletes:
            deletes, self._deletes = self._deletes, []
            if self._link.quorum:
                for queue, if_empty, on_deleted in deletes:
                    if if_empty:
                        self._delete_if_empty(queue, on_deleted)
                deletes = [each for each in deletes if not each[1]]
            self._send(
                lambda: [
                    channel.queue_delete(amqp_name(self._prefix, queue), if_empty=if_empty, callback=_told(on_deleted))
                    for queue, if_empty, on_deleted in deletes
                ]
            )

    def _delete_if_empty(self, queue: str, on_deleted: Callable[[], None] | None) -> None:
        """Look, then delete: RabbitMQ closes a connection that asks it for both at once of a quorum queue.

        On a channel for this alone: it is closed if there is no such queue.
        """
        name = amqp_name(self._prefix, queue)

        def closed(_: Any, reason: Any) -> None:
            if getattr(reason, "reply_code", 0) == _NOT_FOUND and on_deleted is not None:
                on_deleted()

        def opened(channel: Channel) -> None:
            channel.add_on_close_callback(closed)
            self._send(lambda: channel.queue_declare(name, passive=True, callback=partial(looked, channel)))

        def looked(channel: Channel, frame: Any) -> None:
            if frame.method.message_count:
                channel.close()
            else:
                self._send(lambda: channel.queue_delete(name, callback=partial(deleted, channel)))

        def deleted(channel: Channel, frame: Any) -> None:
            if frame.method.message_count:
                logger.error("%d messages came to queue %s while it was deleted", frame.method.message_count, queue)
            channel.close()
            if on_deleted is not None:
                on_deleted()

        if not self._open_channel(opened):
            logger.info("queue %s is not looked at: there is no channel left", queue)


def _told(on_deleted: Callable[[], None] | None) -> Callable[[Any], None] | None:
    return None if on_deleted is None else lambda _: on_deleted()
