"""The consumer of the embedded engine: subscriptions, acknowledgements, signs of life.

HOT PATH (watched by `benchmarks/`, workloads `sync` and `async_*`).

A message that was read is *pending* in Redis under this consumer's name until it is acknowledged or released. What
happens to pending messages is decided by signs of life alone: each consumer writes the time to a sorted set every
second; any other consumer of the queue that finds it silent for 5 s puts its pending messages back, marked as
redelivered. A consumer that was taken for dead but only slept goes on: its acknowledgements of what was put back do
nothing, and it asks anew for the queues it had to itself. So a message may be worked on twice, and is never lost.

A broken connection is opened again. Deliveries stay valid across it, acknowledgements without a reply are repeated, and
what Redis had sent but we never saw is put back.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from rabbitry_broker.backoff import backoff
from rabbitry_broker.errors import ConnectError, StoreError
from rabbitry_broker.queue_names import is_exclusive
from rabbitry_broker.queues.embedded import streams
from rabbitry_broker.queues.embedded.channel import Channel
from rabbitry_broker.queues.embedded.reader import Reader, Subscription
from rabbitry_broker.store.redis.script import Argument, Command

if TYPE_CHECKING:
    from collections.abc import Callable

    from rabbitry_broker.endpoint import Endpoint
    from rabbitry_broker.loop import Loop, Timer
    from rabbitry_broker.queues.protocol import Delivery, OnDelivery, OnQueueGone

# A read costs Redis about a microsecond for each queue in it, so many actors on a node share several readers.
QUEUES_PER_READER: Final = 64

_CONNECT_TIMEOUT_S: Final = 5.0
# Reopening blocks the loop; the server is local or near.
ACK_SECONDS = 0.004  # an acknowledgement waits so long for others
_REOPEN_TIMEOUT_S: Final = 1.0
_FIRST_BACKOFF_S: Final = 0.02
_LONGEST_BACKOFF_S: Final = 1.0
_CLOSE_TIMEOUT_S: Final = 2.0
_LEASE_RETRY_S: Final = 0.2
_RETRY_S: Final = 0.5
_TIDY_S: Final = 2.0
# Without a known death, how often to look for messages of consumers that died before anybody knew them.
_RESCUE_ALL_S: Final = 30.0
_QUEUES_PER_RESCUE: Final = 50

logger = logging.getLogger("rabbitry.queues")


class EmbeddedConsumer:
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
            consumer_name: unique among the cluster's consumers.
            on_gone: hears of queues that were retired, which are consumed no more then.

        Raises:
            ConnectError: Redis cannot be reached.
        """
        self._url = endpoint.store_url
        self._loop = loop
        self._on_delivery = on_delivery
        self._on_gone = on_gone
        self._name = consumer_name
        self._keys = streams.Keys(endpoint.prefix)
        self._notices = self._keys.notices(consumer_name)
        self._subscriptions: dict[str, Subscription] = {}
        self._readers: list[Reader] = []
        self._acks: dict[bytes, list[bytes]] = {}
        self._acks_sent: deque[tuple[bytes, list[bytes]]] = deque()
        self._ack_refused = False  # a half of the first of these
        self._ack_halves = False
        self._timers: dict[str, Timer] = {}
        self._closed = False
        self._attempts = 0
        self._rescued_at = time.monotonic()
        self._tidied_at = self._rescued_at
        self._control = Channel(loop, self._url, f"{consumer_name}-control", self._lost)
        with loop.lock:
            try:
                self._open(_CONNECT_TIMEOUT_S)
            except BaseException:
                self._disconnect()
                raise

    # -- the protocol

    def subscribe(self, queue: str, *, prefetch: int, exclusive: bool = False) -> None:
        """See `Consumer.subscribe`."""
        if prefetch < 1:
            raise ValueError(f"prefetch={prefetch} of queue {queue!r} must be 1 or more")
        if exclusive and not is_exclusive(queue):
            raise ValueError(f"queue {queue!r} cannot be exclusive: only queues of actors are")
        subscription = self._subscriptions.get(queue)
        if subscription is None:
            subscription = Subscription(queue, prefetch, exclusive, self._reader_with_room())
            self._subscriptions[queue] = subscription
            subscription.reader.subscriptions[queue] = subscription
            self._join(subscription)
            return
        subscription.prefetch = prefetch
        if not subscription.wanted:
            subscription.wanted = True
            subscription.exclusive = exclusive
            self._join(subscription)
        subscription.reader.changed()

    def allow_more(self, queue: str) -> bool:
        """See `Consumer.allow_more`."""
        subscription = self._subscriptions.get(queue)
        if subscription is None or not subscription.wanted or subscription.room > 0:
            return False
        subscription.uncounted = set(subscription.outstanding)
        subscription.reader.changed()
        return True

    def unsubscribe(self, queue: str) -> None:
        """See `Consumer.unsubscribe`."""
        subscription = self._subscriptions.get(queue)
        if subscription is not None and subscription.wanted:
            subscription.wanted = False
            subscription.reader.changed()

    def abandon(self, queue: str) -> None:
        """See `Consumer.abandon`."""
        self.unsubscribe(queue)
        subscription = self._subscriptions.get(queue)
        if subscription is None:
            return
        levels: dict[bytes, list[bytes]] = {}
        for held in sorted(subscription.outstanding, key=_age):
            levels.setdefault(self._keys.level(queue, held[0]), []).append(held[1])
            self._let_go(subscription, held)
        for level, entry_ids in levels.items():
            self._put_back(subscription, level, entry_ids, unseen=False)

    def ack(self, delivery: Delivery) -> None:
        """See `Consumer.ack`."""
        subscription, stream, entry_id = delivery.tag
        outstanding = subscription.outstanding
        held = (stream, entry_id)
        if held not in outstanding:
            return
        acks = self._acks
        if not acks:
            # Not at once: an acknowledgement costs two turns of the loop, and nobody waits for it.
            self._loop.call_later(ACK_SECONDS, self._flush_acks)
        ids = acks.get(stream)
        if ids is None:
            acks[stream] = [entry_id]
        else:
            ids.append(entry_id)
        self._let_go(subscription, held)

    def release(self, delivery: Delivery) -> None:
        """See `Consumer.release`."""
        subscription, stream, entry_id = delivery.tag
        held = (stream, entry_id)
        if held in subscription.outstanding:
            level = self._keys.level(subscription.queue, stream)
            self._put_back(subscription, level, [entry_id], unseen=False)
            self._let_go(subscription, held)

    def delete_queue(self, queue: str, *, if_empty: bool = False) -> None:
        """See `Consumer.delete_queue`."""
        self._run("delete", queue, int(if_empty))

    def retire_queue(self, queue: str, on_retired: Callable[[], None]) -> None:
        """See `Consumer.retire_queue`."""
        self._flush_acks()

        def answered(reply: Any) -> None:
            if reply == 1:
                on_retired()

        self._run("retire", queue, on_reply=answered)

    def close(self) -> None:
        """See `Consumer.close`."""
        with self._loop.lock:
            if self._closed:
                return
            self._closed = True
            for timer in self._timers.values():
                self._loop.remove_timeout(timer)
            control = self._control.connection
            if control is not None:
                self._flush_acks()
                # First the readers: the server must not hand them more while we leave.
                for reader in self._readers:
                    self._control.send((b"CLIENT", b"KILL", b"ID", reader.channel.client_id))
                for queue in self._subscriptions:
                    self._run("leave", queue, self._name, 1)
                self._control.send((b"ZREM", self._keys.consumers, self._name))
                self._control.send((b"DEL", self._notices))
                self._await_replies()
            self._disconnect()

    # -- acknowledging and putting back

    def _let_go(self, subscription: Subscription, held: tuple[bytes, bytes]) -> None:
        outstanding = subscription.outstanding
        outstanding.discard(held)
        if subscription.uncounted:
            subscription.uncounted.discard(held)
        # Only where it matters: room in a queue that had none, or the end of one that is not wanted any more.
        if subscription.room == 1 or not (outstanding or subscription.wanted):
            subscription.reader.changed()

    def _flush_acks(self) -> None:
        acks, self._acks = self._acks, {}
        commands: list[Command] = []
        for stream, ids in acks.items():
            commands.append((b"XACK", stream, streams.GROUP, *ids))
            commands.append((b"XDEL", stream, *ids))
            self._acks_sent.append((stream, ids))
        if commands:
            self._control.send_many(commands, self._on_ack_reply)

    def _on_ack_reply(self, reply: Any) -> None:
        if reply.__class__ is StoreError:
            logger.warning("Redis refused an acknowledgement: %s", reply)
            self._ack_refused = self._ack_refused or str(reply).startswith(streams.PASSING)
        # Every second reply, that of XDEL, ends an acknowledgement.
        self._ack_halves = not self._ack_halves
        if not self._ack_halves:
            stream, ids = self._acks_sent.popleft()
            if self._ack_refused:
                # Else it stays pending in our name, and runs again when we have gone.
                self._ack_refused = False
                if not self._acks:
                    self._loop.call_later(_RETRY_S, self._flush_acks)
                self._acks.setdefault(stream, [])[:0] = ids

    def _put_back(self, subscription: Subscription, level: bytes, entry_ids: list[bytes], *, unseen: bool) -> None:
        def answered(reply: Any) -> None:
            if reply.__class__ is StoreError and not self._closed:
                # E.g. out of memory. Until it succeeds the messages are pending in our name.
                logger.warning("Redis refused to take messages back, trying again: %s", reply)
                self._loop.call_later(_RETRY_S, lambda: self._put_back(subscription, level, entry_ids, unseen=unseen))

        self._flush_acks()  # In order: what was acknowledged before must not follow.
        self._run("release", subscription.queue, level, int(unseen), *entry_ids, on_reply=answered)

    # -- joining and leaving queues

    def _reader_with_room(self) -> Reader:
        for reader in self._readers:
            if len(reader.subscriptions) < QUEUES_PER_READER:
                return reader
        reader = self._make_reader(None)
        self._readers.append(reader)
        if self._control.connection is not None:
            try:
                reader.channel.open(_REOPEN_TIMEOUT_S)
            except ConnectError:
                self._control.close()
                self._loop.add_callback(self._lost)
        return reader

    def _make_reader(self, notices: bytes | None) -> Reader:
        return Reader(
            self._loop,
            Channel(self._loop, self._url, f"{self._name}-reader", self._lost),
            self._keys,
            self._name,
            notices=notices,
            deliver=self._on_delivery,
            release=partial(self._put_back, unseen=True),
            on_notice=self._on_notice,
            on_vanished=self._on_vanished,
            on_retired=self._retire,
            unblock=lambda client, on_reply: self._control.send((b"CLIENT", b"UNBLOCK", client), on_reply),
        )

    def _join(self, subscription: Subscription) -> None:
        """Have the queue's streams made and learn its levels; then the reader may read it."""

        def joined(reply: Any) -> None:
            if self._subscriptions.get(subscription.queue) is not subscription or not subscription.wanted:
                return
            if reply.__class__ is StoreError:
                logger.warning("joining queue %s failed, trying again: %s", subscription.queue, reply)
                self._loop.call_later(_RETRY_S, lambda: self._join_again(subscription))
            elif reply == 0:
                self._is_gone(subscription)
            elif reply is None:
                subscription.joined = False  # Another has it to itself.
                self._loop.call_later(_LEASE_RETRY_S, lambda: self._join_again(subscription))
            else:
                subscription.recovered = True
                subscription.joined = True
                subscription.reader.set_levels(subscription, reply)
            subscription.reader.changed()

        # Our own pending messages may be put back only before the first read on a connection: later, they may be on
        # their way to us.
        own = b"" if subscription.recovered else self._name
        known = [stream + b" " + entry_id for stream, entry_id in subscription.outstanding]
        exclusive = int(subscription.exclusive)
        self._run("join", subscription.queue, self._name, exclusive, own, *known, on_reply=joined)

    def _is_gone(self, subscription: Subscription) -> None:
        """Its queue was retired, with nothing on it."""
        subscription.joined = subscription.wanted = False
        if self._on_gone is not None:
            self._on_gone(subscription.queue)

    def _join_again(self, subscription: Subscription) -> None:
        if not self._closed and self._subscriptions.get(subscription.queue) is subscription and subscription.wanted:
            self._join(subscription)

    def _on_vanished(self, reader: Reader) -> None:
        self._control.send((b"XGROUP", b"CREATE", self._notices, streams.GROUP, b"0", b"MKSTREAM"), lambda _: None)
        for subscription in reader.subscriptions.values():
            if subscription.wanted:
                self._join(subscription)
        reader.changed()

    def _on_notice(self, entry_id: bytes, queue: str) -> None:
        self._control.send((b"XDEL", self._notices, entry_id))
        self._control.send((b"XACK", self._notices, streams.GROUP, entry_id))
        subscription = self._subscriptions.get(queue)
        if subscription is not None:
            # Also before it has joined: that may have been answered before the level came into being.
            self._learn_levels(subscription)

    def _learn_levels(self, subscription: Subscription) -> None:
        command = (b"SMEMBERS", self._keys.levels(subscription.queue))
        self._control.send(command, lambda reply: self._on_levels(subscription, reply))

    def _on_levels(self, subscription: Subscription, levels: Any) -> None:
        if levels.__class__ is StoreError:
            logger.warning("learning the levels of %s failed, trying again: %s", subscription.queue, levels)
            self._loop.call_later(_RETRY_S, lambda: self._learn_levels(subscription))
        elif self._subscriptions.get(subscription.queue) is subscription and subscription.joined:
            subscription.reader.set_levels(subscription, levels)
            subscription.reader.changed()

    def _retire(self, subscription: Subscription) -> None:
        subscription.reader.forget(subscription)
        del self._subscriptions[subscription.queue]
        self._flush_acks()
        self._run("leave", subscription.queue, self._name, 0)

    # -- signs of life

    def _beat(self) -> None:
        self._timers["beat"] = self._loop.call_later(streams.HEARTBEAT_S, self._beat)
        self._run("heartbeat", self._name, on_reply=self._on_beat)
        now = time.monotonic()
        if now - self._rescued_at > _RESCUE_ALL_S:
            self._rescue()
        if now - self._tidied_at > _TIDY_S:
            self._tidied_at = now
            for subscription in self._subscriptions.values():
                if subscription.joined and len(subscription.streams) > 1:
                    self._prune(subscription)

    def _on_beat(self, reply: Any) -> None:
        if reply.__class__ is StoreError:
            logger.warning("Redis refused a sign of life: %s", reply)
            return
        late, *dead = reply
        if late:
            logger.warning("was silent for more than %g s: others may have taken over its work", streams.DEAD_AFTER_S)
            # What was announced meanwhile we were not told of: new levels, too, if Redis has forgotten us.
            for subscription in self._subscriptions.values():
                if subscription.wanted:
                    self._join(subscription)
        if dead and time.monotonic() - self._rescued_at > _TIDY_S:
            # As long as they are listed, not once: one that only sleeps may have been handed more meanwhile.
            self._rescue()

    def _rescue(self) -> None:
        self._rescued_at = time.monotonic()
        queues = list(self._subscriptions)
        for at in range(0, len(queues), _QUEUES_PER_RESCUE):
            self._run("rescue", *queues[at : at + _QUEUES_PER_RESCUE])

    def _prune(self, subscription: Subscription) -> None:
        self._run("prune", subscription.queue, on_reply=lambda reply: self._on_levels(subscription, reply))

    # -- connections

    def _open(self, timeout: float) -> None:
        """Connect everything, which blocks, and take up all subscriptions."""
        control = self._control
        control.open(timeout)
        if not self._readers:
            self._readers.append(self._make_reader(self._notices))
        for reader in self._readers:
            reader.reset()
            reader.channel.open(timeout)
        self._run("heartbeat", self._name)
        # Its error (the group exists) is expected.
        control.send((b"XGROUP", b"CREATE", self._notices, streams.GROUP, b"0", b"MKSTREAM"), lambda _: None)
        # What was acknowledged before the connection broke may not have arrived; doing it again does no harm.
        unsure, self._acks_sent = self._acks_sent, deque()
        self._ack_refused = False
        self._ack_halves = False
        for stream, ids in unsure:
            self._acks.setdefault(stream, []).extend(ids)
        self._flush_acks()
        for subscription in self._subscriptions.values():
            subscription.joined = subscription.recovered = False
            if subscription.wanted:
                self._join(subscription)
        for reader in self._readers:
            reader.changed()
        self._attempts = 0
        self._beat()

    def _lost(self) -> None:
        if self._closed or "reopen" in self._timers:
            return
        logger.warning("lost the connection to the queues, reconnecting")
        self._disconnect()
        self._reopen_later()

    def _reopen_later(self) -> None:
        delay = backoff(self._attempts, _FIRST_BACKOFF_S, _LONGEST_BACKOFF_S)
        self._attempts += 1
        self._timers["reopen"] = self._loop.call_later(delay, self._reopen)

    def _reopen(self) -> None:
        del self._timers["reopen"]
        try:
            self._open(_REOPEN_TIMEOUT_S)
        except (ConnectError, StoreError) as error:
            logger.info("%s", error)
            self._disconnect()
            self._reopen_later()
        else:
            logger.warning("connected to the queues again")

    def _disconnect(self) -> None:
        if "beat" in self._timers:
            self._loop.remove_timeout(self._timers.pop("beat"))
        self._control.close()
        for reader in self._readers:
            reader.reset()
            reader.channel.close()
        for subscription in self._subscriptions.values():
            subscription.joined = False

    def _await_replies(self) -> None:
        """Block until all that was sent has been done, shortly."""
        control = self._control.connection
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        while control is not None and control.owed and not control.closed and time.monotonic() < deadline:
            try:
                control.read(max(0.01, deadline - time.monotonic()))
            except StoreError as error:
                logger.info("while closing: %s", error)

    def _run(self, name: str, *args: Argument, on_reply: Any = None) -> None:
        self._control.run(streams.script(name), (*self._keys.script_arguments, *args), on_reply)


def _age(held: tuple[bytes, bytes]) -> tuple[int, ...]:
    """Return what orders messages: their ids in the stream are two numbers."""
    return tuple(map(int, held[1].split(b"-")))
