"""The publisher of the RabbitMQ engine.

HOT PATH (watched by `benchmarks/`, workloads `sync` and `async_*`): `publish` marshals and writes to the socket in the
calling thread, under the loop's lock; the loop's thread only reads confirms.

The life of a message:

    WAITING   --- channel is open ------------------> IN FLIGHT
    IN FLIGHT --- confirmed ------------------------> done
    IN FLIGHT --- returned (no such queue) ---------> IN FLIGHT again, the queue declared anew
    IN FLIGHT --- channel or connection broke ------> WAITING, in the old order
    IN FLIGHT --- refused: channel is opened anew --> WAITING, in the old order

A quorum queue refuses what is sent while it elects a leader, and goes on refusing all that comes over a channel which
began to publish to it then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from pika import spec

from rabbitry_broker.backoff import backoff
from rabbitry_broker.errors import BrokerError
from rabbitry_broker.loop import Loop
from rabbitry_broker.messages import PRIORITIES
from rabbitry_broker.queue_names import amqp_name
from rabbitry_broker.queues.known import QUEUES_KEPT, KnownQueues
from rabbitry_broker.queues.rabbitmq.declaring import declare, queue_declared_otherwise
from rabbitry_broker.queues.rabbitmq.frames import publisher_of
from rabbitry_broker.queues.rabbitmq.link import AMQPConnection, Link, wait_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from pika.channel import Channel

    from rabbitry_broker.endpoint import Endpoint
    from rabbitry_broker.queues.protocol import OnConfirm, OnNewQueue

# publish() waits while so much is unconfirmed.
MAX_UNCONFIRMED_BYTES: Final = 64 * 1024 * 1024

# RabbitMQ 4 takes no larger one unless told otherwise, and closes the channel: it would be sent again for ever, and
# nothing behind it. Batches are much smaller.
MAX_BODY_BYTES: Final = 16 * 1024 * 1024

# A thread of our own reads confirms so late: for one task at a time it would wake up for each, while others need the
# processor. Who waits for them does not wait for that.
_REST_S: Final = 0.005
_CLOSE_TIMEOUT_S: Final = 2.0
_CHANNEL_RETRY_S: Final = 0.5
_FIRST_REFUSAL_S: Final = 0.05
_LONGEST_REFUSAL_S: Final = 1.0

logger = logging.getLogger("rabbitry.queues")


class _Message:
    """A message that RabbitMQ has not confirmed."""

    __slots__ = ("body", "on_confirm", "priority", "queue", "returned")

    def __init__(self, queue: str, body: bytes, priority: int, on_confirm: OnConfirm | None) -> None:
        self.queue = queue
        self.body = body
        self.priority = priority
        self.on_confirm = on_confirm
        self.returned = False


class RabbitMQPublisher:
    """See `rabbitry_broker.queues.protocol.Publisher`."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        on_new_queue: OnNewQueue | None = None,
        loop: Loop | None = None,
        name: str = "",
        patience: float = 60.0,
    ) -> None:
        """Connect.

        Args:
            endpoint: where the queues are.
            on_new_queue: called with a queue before the first message to it, by the publishing thread; and by a thread
                for this alone when a queue that was deleted is declared again.
            loop: where the publisher lives; None for one of its own, run by a thread named "rabbitry-broker".
            name: what RabbitMQ shows for the connection.
            patience: seconds that RabbitMQ may be away before `publish` raises.

        Raises:
            ConnectError: RabbitMQ cannot be reached or refuses us.
        """
        self._loop = loop or Loop()
        self._prefix = endpoint.prefix
        self._on_new_queue = on_new_queue
        self._patience = patience
        self._changed = threading.Condition(self._loop.lock)
        self._known = KnownQueues(on_new_queue)
        self._declared: set[str] = set()
        self._foreign: set[str] = set()
        self._waiting: deque[_Message] = deque()
        self._in_flight: dict[int, _Message] = {}
        self._refused: dict[int, _Message] = {}  # with their tags; they go over the next channel
        self.confirmed = 0
        self._last_tag = 0
        self._marshal: dict[tuple[str, int], Callable[[bytes], bytes]] = {}
        self._unconfirmed_bytes = 0
        self._channel: Channel | None = None
        self._refusing: Channel | None = None  # it is closed in a moment, and another one opened
        self._refusals = 0  # in a row
        self._away_since = time.monotonic()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._link = Link(
            endpoint.broker_url or "",
            self._loop,
            name=name or "rabbitry-publisher",
            on_up=self._open_channel,
            on_down=self._on_down,
        )
        if loop is None:
            self._thread = threading.Thread(target=self._loop.run, name="rabbitry-broker", daemon=True)
            self._thread.start()
        try:
            self._link.open()
        except BaseException:
            self._end_loop()
            raise

    # -- the protocol

    def publish(self, queue: str, body: bytes, *, priority: int = 0, on_confirm: OnConfirm | None = None) -> None:
        """See `Publisher.publish`."""
        if priority not in PRIORITIES:
            raise ValueError(f"priority {priority!r} is not possible: it must be between 0 and 9")
        if len(body) > MAX_BODY_BYTES:
            raise BrokerError(f"a message of {len(body)} bytes is too large for RabbitMQ, which takes {MAX_BODY_BYTES}")
        if queue not in self._known:
            self._known.meet(queue)
        message = _Message(queue, body, priority, on_confirm)
        with self._loop.lock:
            self._check()
            if self._unconfirmed_bytes > MAX_UNCONFIRMED_BYTES:
                self._wait_for_room()
            self._unconfirmed_bytes += len(body)
            if self._channel is None or self._waiting:
                self._waiting.append(message)
            else:
                self._loop.write_inline(lambda: self._send(message))

    def flush(self, timeout: float | None = None) -> bool:
        """See `Publisher.flush`. On the thread that runs the loop it cannot wait and only tells."""
        with self._loop.lock:
            return wait_on(self._loop, self._changed, self._is_idle, timeout)

    def close(self) -> None:
        """See `Publisher.close`."""
        with self._loop.lock:
            if self._closed:
                return
            if not self.flush(_CLOSE_TIMEOUT_S):
                logger.warning("closing the publisher: %s", self._away())
            self._closed = True
            self._channel = None
            self._link.close()
            self._changed.notify_all()
        self._end_loop()

    # -- sending

    def _check(self) -> None:
        if self._closed:
            raise BrokerError("the publisher is closed: nothing can be published")
        if self._away_since and time.monotonic() - self._away_since > self._patience:
            raise self._away()

    def _away(self) -> BrokerError:
        return BrokerError(
            f"RabbitMQ at {self._link.address} could not take messages for more than {self._patience:g} s; "
            f"{self.unconfirmed} wait. Check that it is running and lets us in; they are sent when it is back."
        )

    def _wait_for_room(self) -> None:
        """Wait while too much is unconfirmed.

        The server is slow, or has a memory alarm and blocks us (for as long as that lasts), or is away (until patience
        ends).
        """
        while self._unconfirmed_bytes > MAX_UNCONFIRMED_BYTES:
            if self._loop.running and self._loop.is_current_thread():
                return  # It would wait for itself.
            wait_on(self._loop, self._changed, lambda: self._unconfirmed_bytes <= MAX_UNCONFIRMED_BYTES, 0.5)
            self._check()

    def _send(self, message: _Message) -> None:
        channel, connection = self._channel, self._link.connection
        if channel is None or connection is None:  # Broke while sending those before.
            self._waiting.append(message)
            return
        self._last_tag += 1
        self._in_flight[self._last_tag] = message
        queue = message.queue
        if queue not in self._declared:
            # Nothing waits for the answer: a channel's commands are carried out in order.
            if len(self._declared) >= QUEUES_KEPT:
                self._declared.clear()
                self._foreign.clear()
                self._marshal.clear()
            if queue not in self._foreign:
                declare(channel, self._prefix, queue, quorum=self._link.quorum)
            self._declared.add(queue)
        marshal = self._marshal.get((queue, message.priority))
        if marshal is None:
            name = amqp_name(self._prefix, queue).encode()
            marshal = publisher_of(channel.channel_number, name, message.priority, connection.params.frame_max)
            self._marshal[queue, message.priority] = marshal
        connection.send_marshalled(marshal(message.body))

    @property
    def unconfirmed(self) -> int:
        """Messages that the broker has not confirmed."""
        return len(self._in_flight) + len(self._refused) + len(self._waiting)

    def _is_idle(self) -> bool:
        return not self.unconfirmed

    # -- confirms

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        tag = method.delivery_tag
        in_flight = self._in_flight
        if method.multiple:
            tags = []
            for earlier in in_flight:  # In ascending order.
                if earlier > tag:
                    break
                tags.append(earlier)
        else:
            tags = [tag]
        if isinstance(method, spec.Basic.Nack):
            # No longer in flight: a later confirm of several at once is for those that RabbitMQ has not answered yet.
            self._refused.update({refused: in_flight.pop(refused) for refused in tags if refused in in_flight})
            self._renew_channel()
            return
        again: list[_Message] = []
        for confirmed in tags:
            message = in_flight.pop(confirmed, None)
            if message is None:
                continue
            if message.returned:
                message.returned = False
                again.append(message)
                continue
            self._unconfirmed_bytes -= len(message.body)
            self.confirmed += 1
            if message.on_confirm is not None:
                try:
                    message.on_confirm()
                except Exception:
                    logger.exception("the confirm callback of a message to %s failed", message.queue)
        for queue in {message.queue for message in again} - self._declared:
            self._announce_again(queue)
        for message in again:
            self._send(message)
        if len(again) < len(tags):
            self._away_since = 0.0
            self._refusals = 0
        self._changed.notify_all()

    def _renew_channel(self) -> None:
        """The broker refused a message: it and what is not confirmed go over another channel, soon.

        Nothing is sent meanwhile: it would overtake.
        """
        channel = self._channel
        if channel is None:
            return  # that is under way
        self._on_down()
        self._refusing = channel
        delay = backoff(self._refusals, _FIRST_REFUSAL_S, _LONGEST_REFUSAL_S)
        self._refusals += 1
        if self._refusals == 2:
            logger.info("RabbitMQ refuses messages; they are sent again")
        # Once it is closed, nothing can confirm tags of the next channel by mistake.
        self._loop.call_later(delay, lambda: channel.close() if channel.is_open else None)

    def _announce_again(self, queue: str) -> None:
        """Announce a queue that was deleted, on a thread for this alone.

        The callback may wait for a lock whose holder waits for ours, which the loop's thread holds now.
        """
        if self._on_new_queue is not None:
            threading.Thread(target=self._on_new_queue, args=(queue,), name="rabbitry-announce", daemon=True).start()

    def _queue_called(self, name: str) -> str:
        """Return the queue that RabbitMQ knows by a name: one that was declared here, or published to."""
        for queue in (*self._declared, *(message.queue for message in self._in_flight.values())):
            if amqp_name(self._prefix, queue) == name:
                return queue
        return name.removeprefix(self._prefix)

    def _on_return(self, _channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        """There is no such queue any more. The confirm of the message follows, and then it is sent again."""
        queue = self._queue_called(method.routing_key)
        self._declared.discard(queue)
        self._foreign.discard(queue)
        for message in self._in_flight.values():
            # Which of several equal ones is marked does not matter: all but the confirmed come back too.
            if message.queue == queue and message.body == body and not message.returned:
                message.returned = True
                return

    # -- channels

    def _open_channel(self, connection: AMQPConnection) -> None:
        connection.channel(on_open_callback=self._on_channel_open)

    def _on_channel_open(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._on_channel_close)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm)
        sent = self._refused | self._in_flight
        messages = [*(sent[tag] for tag in sorted(sent)), *self._waiting]
        self._refused.clear()
        self._in_flight.clear()
        self._waiting.clear()
        self._last_tag = 0
        self._marshal.clear()
        self._channel = channel
        if self._thread is not None:
            self._loop.rest = _REST_S
        for message in messages:
            message.returned = False
            self._send(message)
        if not messages:
            self._away_since = 0.0
        self._changed.notify_all()

    def _on_channel_close(self, channel: Any, reason: Any) -> None:
        connection = self._link.connection
        if channel is self._refusing:
            self._refusing = None
            if connection is not None and connection.is_open:
                self._open_channel(connection)
            return
        if channel is not self._channel:
            return
        self._on_down()
        if connection is None or not connection.is_open:
            return
        name = queue_declared_otherwise(reason)
        if name is not None:
            queue = self._queue_called(name)
            logger.warning("queue %s exists with other arguments than rabbitry's; using it as it is", queue)
            self._foreign.add(queue)
            self._open_channel(connection)
        else:
            logger.warning("RabbitMQ closed the channel for publishing: %s", reason)
            self._loop.call_later(_CHANNEL_RETRY_S, lambda: self._open_channel_again(connection))

    def _open_channel_again(self, connection: AMQPConnection) -> None:
        if self._channel is None and self._link.connection is connection and connection.is_open:
            self._open_channel(connection)

    def _on_down(self) -> None:
        if self._channel is not None:
            self._channel = None
            self._loop.rest = 0.0
            self._away_since = self._away_since or time.monotonic()

    def _end_loop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._loop.stop()
            if thread is not threading.current_thread():
                thread.join(_CLOSE_TIMEOUT_S)
                self._loop.close()
