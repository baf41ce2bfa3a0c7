"""Reads a set of queues over one connection that blocks in `XREADGROUP`, without a thread.

HOT PATH (watched by `benchmarks/`, workloads `sync` and `async_*`).

The reader's states (no other transitions):

    PARKED  --- something to read --------------------------> WAITING | TAKING
    TAKING  --- last reply of the scripts ------------------> WAITING | TAKING | PARKED
    WAITING --- reply: entries, time out, unblocked, error -> WAITING | TAKING | PARKED

WAITING: one XREADGROUP over all queues that have room, which the server holds back until something arrives. TAKING:
queues of several levels are first read by a script that is exact about priorities and room, since one XREADGROUP gives
up to COUNT entries of *each* stream. What changes meanwhile (room by an ack, a subscription) makes `changed` end the
wait by CLIENT UNBLOCK from the control connection, and the next read is sent with the new set.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from rabbitry_broker.errors import StoreError
from rabbitry_broker.queues.embedded import streams
from rabbitry_broker.queues.embedded.channel import Channel
from rabbitry_broker.queues.protocol import Delivery

if TYPE_CHECKING:
    from rabbitry_broker.loop import Loop
    from rabbitry_broker.store.redis.script import Argument, Command

# How long a read waits in the server. Only a safety net: whatever matters ends the wait.
BLOCK_MS: Final = 10_000
_UNBLOCK_RETRY_S: Final = 0.001
_RETRY_S: Final = 0.5

logger = logging.getLogger("rabbitry.queues")


class Subscription:
    """One queue of a consumer, and the deliveries from it that are not acknowledged.

    Attributes:
        queue: its name.
        prefetch: how many deliveries may be outstanding.
        exclusive: whether it must be this consumer's alone.
        wanted: False after unsubscribe, while deliveries are outstanding.
        joined: its streams exist and, if exclusive, it is ours: it may be read.
        recovered: what an earlier connection left in our name has been put back.
        streams: stream -> level, in reading order.
        outstanding: (stream, entry id).
        uncounted: those of them that do not count towards `prefetch`.
        reader: who reads it.
    """

    __slots__ = (
        "exclusive",
        "joined",
        "outstanding",
        "prefetch",
        "queue",
        "reader",
        "recovered",
        "streams",
        "uncounted",
        "wanted",
    )

    def __init__(self, queue: str, prefetch: int, exclusive: bool, reader: Reader) -> None:
        self.queue = queue
        self.prefetch = prefetch
        self.exclusive = exclusive
        self.wanted = True
        self.joined = False
        self.recovered = False
        self.streams: dict[bytes, bytes] = {}
        self.outstanding: set[tuple[bytes, bytes]] = set()
        self.uncounted: set[tuple[bytes, bytes]] = set()
        self.reader = reader

    @property
    def room(self) -> int:
        """How many more deliveries there may be. HOT PATH."""
        return self.prefetch - len(self.outstanding) + len(self.uncounted)


class State(enum.Enum):
    """What a reader is doing, see the module's head."""

    PARKED = "parked"
    TAKING = "taking"
    WAITING = "waiting"


class Reader:
    """Reads some queues of one consumer. Lives on the loop.

    Args:
        loop: where it lives.
        channel: its own connection.
        keys: the engine's keys.
        consumer: the consumer's name.
        notices: a stream of the consumer's own to read along; None for none.
        deliver: takes each entry.
        release: takes what was read but must not be delivered: subscription, level, entry ids.
        on_notice: called with (entry id, queue) for entries of `notices`.
        on_vanished: called when a stream or group has gone; must have the queues joined again.
        on_retired: called with a subscription that is neither wanted nor outstanding nor being read.
        unblock: ends the wait of a client id, and calls back with whether it did.
    """

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        keys: streams.Keys,
        consumer: str,
        *,
        notices: bytes | None,
        deliver: Callable[[Delivery], None],
        release: Callable[[Subscription, bytes, list[bytes]], None],
        on_notice: Callable[[bytes, str], None],
        on_vanished: Callable[[Reader], None],
        on_retired: Callable[[Subscription], None],
        unblock: Callable[[int, Callable[[Any], object]], None],
    ) -> None:
        self.channel = channel
        self.subscriptions: dict[str, Subscription] = {}
        self._loop = loop
        self._keys = keys
        self._consumer = consumer
        self._notices = notices
        self._deliver = deliver
        self._release = release
        self._on_notice = on_notice
        self._on_vanished = on_vanished
        self._on_retired = on_retired
        self._unblock = unblock
        self._state = State.PARKED
        self._by_stream: dict[bytes, Subscription] = {}
        self._reading: list[bytes] = []
        self._reading_count = 0
        self._reads = 0
        self._takes = 0
        self._drained: set[Subscription] = set()
        self._unblocking = False
        self._reacting = False

    def changed(self) -> None:
        """Tell that there may be more, or less, to read than there was. Takes effect at the end of the loop's round."""
        if not self._reacting:
            self._reacting = True
            self._loop.add_callback(self._react)

    def reset(self) -> None:
        """Forget what was being read: the connection is gone."""
        self._state = State.PARKED
        self._reads += 1
        self._reading = []
        self._unblocking = False
        self._drained.clear()

    def forget(self, subscription: Subscription) -> None:
        """Take a subscription out."""
        self.subscriptions.pop(subscription.queue, None)
        for stream in subscription.streams:
            self._by_stream.pop(stream, None)

    def set_levels(self, subscription: Subscription, levels: list[bytes]) -> None:
        """Fix which levels of a queue there are to read."""
        for stream in subscription.streams:
            self._by_stream.pop(stream, None)
        queue = subscription.queue
        subscription.streams = {self._keys.stream(queue, level): level for level in streams.in_reading_order(levels)}
        for stream in subscription.streams:
            self._by_stream[stream] = subscription

    def _lately(self, stream: bytes) -> Subscription | None:
        """Return whose level a stream is that was read a moment ago.

        It was forgotten, since it had nothing, before the read's reply came: meanwhile it came into being again.
        """
        for subscription in self.subscriptions.values():
            base = self._keys.stream(subscription.queue)
            if stream.startswith(base) and streams.is_level(self._keys.level(subscription.queue, stream)):
                return subscription
        return None

    # -- what to read

    def _react(self) -> None:
        self._reacting = False
        if self._state is State.PARKED:
            self._next()
        elif self._state is State.WAITING and not self._unblocking:
            several, reading, count = self._plan()
            if several or reading != self._reading or count < self._reading_count:
                self._unblocking = True
                self._end_wait(self._reads)
            else:
                self._retire()

    def _end_wait(self, read: int, ended: Any = None) -> None:
        """Unblock the read until it is: it may not have reached the server when the first try does."""
        if ended or read != self._reads or self._state is not State.WAITING:
            return
        if ended is None:
            self._unblock(self.channel.client_id, lambda reply: self._end_wait(read, reply))
        else:
            self._loop.call_later(_UNBLOCK_RETRY_S, lambda: self._end_wait(read))

    def _plan(self) -> tuple[list[Subscription], list[bytes], int]:
        """Return the queues to read by script, the streams to read otherwise, and how much of each."""
        several: list[Subscription] = []
        reading: list[bytes] = []
        count = 1 << 30
        drained = self._drained
        for subscription in self.subscriptions.values():
            room = subscription.room
            if room <= 0 or not subscription.joined or not subscription.wanted:
                continue
            levels = len(subscription.streams)
            if levels > 1:
                if subscription not in drained:
                    several.append(subscription)
                room = max(1, room // levels)
            if room < count:
                count = room
            reading.extend(subscription.streams)
        return several, reading, count

    def _next(self) -> None:
        """Send the next read. None is outstanding."""
        if self.channel.connection is None:
            return
        self._reading = []
        self._retire()
        several, reading, count = self._plan()
        if several:
            self._state = State.TAKING
            self._takes = len(several)
            source = streams.script("take")
            for subscription in several:
                room = subscription.room
                args: tuple[Argument, ...] = (*self._keys.script_arguments, self._consumer, room, *subscription.streams)
                self.channel.run(source, args, partial(self._on_taken, subscription, room))
            return
        self._drained.clear()
        if not reading and self._notices is None:
            self._state = State.PARKED
            return
        self._state = State.WAITING
        self._reads += 1
        self._unblocking = False
        self._reading = reading
        self._reading_count = count
        keys = reading if self._notices is None else [*reading, self._notices]
        command: Command = (
            b"XREADGROUP", b"GROUP", streams.GROUP, self._consumer, b"COUNT", count, b"BLOCK", BLOCK_MS,
            b"STREAMS", *keys, *([b">"] * len(keys)),
        )  # fmt: skip
        self.channel.send(command, self._on_read)

    def _retire(self) -> None:
        for subscription in [s for s in self.subscriptions.values() if not s.wanted and not s.outstanding]:
            if any(stream in subscription.streams for stream in self._reading):
                continue  # The read under way may still bring entries.
            self._on_retired(subscription)

    # -- what came

    def _on_taken(self, subscription: Subscription, room: int, reply: Any) -> None:
        if reply.__class__ is StoreError:
            self._on_error(reply)
            self._drained.add(subscription)
        elif sum(len(entries) for _, entries in reply) < room:
            self._drained.add(subscription)
        self._takes -= 1
        try:
            if reply.__class__ is not StoreError:
                self._on_entries(reply)
        finally:
            if not self._takes and self._state is State.TAKING:
                self._next()

    def _on_read(self, reply: Any) -> None:
        self._state = State.PARKED
        self._reading = []
        if reply.__class__ is StoreError:
            self._on_error(reply)
            return
        try:
            if reply:
                self._on_entries(reply)
        finally:
            if self._state is State.PARKED:
                self._next()

    def _on_error(self, error: StoreError) -> None:
        text = str(error)
        if text.startswith(("NOGROUP", "UNBLOCKED")) or "no longer exists" in text or "NOGROUP" in text:
            for subscription in self.subscriptions.values():
                subscription.joined = False
            self._on_vanished(self)
        else:
            logger.warning("reading queues failed, trying again: %s", text)
            self._loop.call_later(_RETRY_S, self.changed)

    def _on_entries(self, reply: list[tuple[bytes, list[tuple[bytes, list[bytes]]]]]) -> None:
        for stream, entries in reply:
            if stream == self._notices:
                for entry_id, fields in entries:
                    self._on_notice(entry_id, fields[1].decode())
                continue
            subscription = self._by_stream.get(stream) or self._lately(stream)
            if subscription is None:
                # Cannot be: a subscription stays until no read includes it. Left pending, it is put back when we end.
                logger.error("entries from %r, which is not subscribed", stream)
                continue
            level = subscription.streams.get(stream)
            if level is None:
                level = self._keys.level(subscription.queue, stream)
            priority = streams.priority_of_level(level)
            outstanding = subscription.outstanding
            refused: list[bytes] = []
            for entry_id, fields in entries:
                if self.channel.connection is None:
                    return  # Closed by a callback, which put back all that was ours.
                if not subscription.wanted or subscription.room <= 0:
                    refused.append(entry_id)
                    continue
                outstanding.add((stream, entry_id))
                delivery = Delivery(
                    subscription.queue, fields[1], (subscription, stream, entry_id), len(fields) > 2, priority
                )
                try:
                    self._deliver(delivery)
                except Exception:
                    # It stays outstanding: acknowledging would lose it, releasing would have it fail again at once.
                    logger.exception("handling a message from %s failed; it is kept", subscription.queue)
            if refused:
                self._release(subscription, level, refused)
