"""The publisher of the embedded engine.

HOT PATH (watched by `benchmarks/`, workloads `sync` and `async_*`): publishing costs one write to the socket. Its reply
is read later: by the next calls, by `flush`, or by the loop if there is one.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from rabbitry_broker.backoff import backoff
from rabbitry_broker.errors import BrokerError, ConnectError, ConnectionLost, ReplyTimeout, StoreError, without_password
from rabbitry_broker.queue_names import is_of_class
from rabbitry_broker.queues.embedded import streams
from rabbitry_broker.queues.known import KnownQueues
from rabbitry_broker.store.redis.connection import Connection
from rabbitry_broker.store.redis.script import Argument

if TYPE_CHECKING:
    from rabbitry_broker.endpoint import Endpoint
    from rabbitry_broker.loop import Loop
    from rabbitry_broker.queues.protocol import OnConfirm, OnNewQueue

# So many messages may be unconfirmed before publish() looks whether replies have come, and before it waits for them.
_LOOK_AFTER: Final = 32
_WAIT_AFTER: Final = 1024
_WAIT_AFTER_BYTES: Final = 64 * 1024 * 1024

_CONNECT_TIMEOUT_S: Final = 5.0
_FIRST_BACKOFF_S: Final = 0.02
_LONGEST_BACKOFF_S: Final = 1.0
_CLOSE_TIMEOUT_S: Final = 2.0
# On a loop, reconnecting must not hold it up for long; the server is local or near.
_REOPEN_TIMEOUT_S: Final = 1.0
_SHORTEST_TIMEOUT_S: Final = 0.2
_RETRY_S: Final = 0.2

# A queue that was announced before may have been retired since: then nothing is added, and the reply is nil.
_MAY_BE_GONE: Final[tuple[bytes, ...]] = (b"NOMKSTREAM",)
_NOT_GONE: Final[tuple[bytes, ...]] = ()

logger = logging.getLogger("rabbitry.queues")


class _Message:
    """A message that Redis has not confirmed."""

    __slots__ = ("body", "on_confirm", "priority", "queue")

    def __init__(self, queue: str, body: bytes, priority: int, on_confirm: OnConfirm | None) -> None:
        self.queue = queue
        self.body = body
        self.priority = priority
        self.on_confirm = on_confirm


class EmbeddedPublisher:
    """See `rabbitry_broker.queues.protocol.Publisher`. Has no thread.

    Without a loop, `on_confirm` is called by the publishing thread before `publish` returns; and a connection that
    breaks is noticed by the next `publish` or `flush`, which send again what was unconfirmed.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        on_new_queue: OnNewQueue | None = None,
        loop: Loop | None = None,
        name: str = "",
        patience: float = 60.0,
        expected: bool = False,
    ) -> None:
        """Connect, or not before the first message.

        Args:
            endpoint: where the queues are.
            on_new_queue: called with a queue before the first message to it, by the publishing thread.
            loop: reads confirms; its lock guards the publisher. None: calls of publisher's methods read them.
            name: what Redis shows for the connection.
            patience: seconds that `publish` waits for a server that is away.
            expected: Redis is known to be there: if it is away now, it comes back. Connects with the first message;
                not for a publisher with a loop.

        Raises:
            ConnectError: Redis cannot be reached.
        """
        self._address = without_password(endpoint.store_url)
        self._keys = streams.Keys(endpoint.prefix)
        self._loop = loop
        self._patience = patience
        self._lock = threading.RLock() if loop is None else loop.lock
        self._known = KnownQueues(on_new_queue)
        self._unconfirmed: deque[_Message] = deque()
        self._unconfirmed_bytes = 0
        self._unsent: deque[_Message] = deque()
        self._closed = False
        self._away_since = 0.0
        self._cause = ""  # why it is away
        self._refused: BrokerError | None = None
        self._source = streams.script("publish")
        name = name or "rabbitry-publisher"
        self._connection = Connection.unopened(endpoint, timeout=_CONNECT_TIMEOUT_S, name=name)
        self._script = self._connection.script(self._source)
        self._fd = -1
        if loop is not None or not expected:
            self._connection.reopen()
            self._watch()

    def publish(self, queue: str, body: bytes, *, priority: int = 0, on_confirm: OnConfirm | None = None) -> None:
        """See `Publisher.publish`."""
        if queue not in self._known:
            self._known.meet(queue)
        if priority:
            streams.level_of_priority(priority)
        message = _Message(queue, body, priority, on_confirm)
        with self._lock:
            self._check()
            if self._unsent or self._connection.closed:
                self._send_later(message)
                return
            unconfirmed = self._unconfirmed
            unconfirmed.append(message)
            self._unconfirmed_bytes += len(body)
            try:
                if priority:
                    self._connection.send(*self._script.command((), self._script_arguments(message)))
                else:
                    condition = self._condition(queue)
                    self._connection.send(b"XADD", self._keys.stream(queue), *condition, b"*", b"b", body)
            except ConnectionLost:
                self._on_lost()
            if self._loop is None:
                if on_confirm is not None or self._unsent:
                    self._settle_with(message)
                elif len(unconfirmed) >= _LOOK_AFTER:
                    self._collect()
            if len(unconfirmed) >= _WAIT_AFTER or self._unconfirmed_bytes > _WAIT_AFTER_BYTES:
                self._settle_with(message)

    def flush(self, timeout: float | None = None) -> bool:
        """See `Publisher.flush`."""
        with self._lock:
            if not self._closed:
                self._settle(timeout)
                self._check()
            return not self._unconfirmed and not self._unsent

    def close(self) -> None:
        """See `Publisher.close`."""
        with self._lock:
            if self._closed:
                return
            self._settle(_CLOSE_TIMEOUT_S)
            if self._unsent or self._unconfirmed:
                logger.warning("%s", self._away())
            self._closed = True
            self._unwatch()
            self._connection.close()

    # -- sending

    def _condition(self, queue: str) -> tuple[bytes, ...]:
        """Return on what an addition depends: a queue may be retired, but for one that was met just now.

        Whoever sends to that first makes it, also if another thread has met it: else what this one sends would have to
        be sent again, behind what it sends later.
        """
        created = self._known.created
        if not is_of_class(queue):
            return _NOT_GONE
        if queue in created:
            return _MAY_BE_GONE
        created.add(queue)
        return _NOT_GONE

    def _script_arguments(self, message: _Message) -> tuple[Argument, ...]:
        level = streams.level_of_priority(message.priority)
        return (*self._keys.script_arguments, message.queue, level, message.body)

    def _check(self) -> None:
        if self._closed:
            raise BrokerError("the publisher is closed: nothing can be published")
        if self._refused is not None:
            refused, self._refused = self._refused, None
            raise refused

    def _send_later(self, message: _Message) -> None:
        """Queue a message behind those that wait for Redis to come back."""
        self._unsent.append(message)
        if self._loop is None or not self._loop.is_current_thread():
            self._settle_with(message)
        elif self._away_since and time.monotonic() - self._away_since > self._patience:
            # The loop cannot wait: it sends what is queued when Redis is back.
            self._unsent.pop()
            raise self._away()

    # -- confirms

    def _collect(self) -> None:
        """Take the replies that are here, without waiting."""
        try:
            replies = self._connection.poll()
        except ConnectionLost:
            self._on_lost()
            return
        for reply in replies:
            self._on_reply(reply)

    def _settle(self, timeout: float | None) -> None:
        """Wait until nothing is unconfirmed; for `timeout` seconds at most, None for `patience`.

        Raises:
            BrokerError: `timeout` is None and it did not come about.
        """
        deadline = time.monotonic() + (self._patience if timeout is None else timeout)
        if self._away_since:
            # A server that was waited for already gets one attempt, not all the patience again with each message.
            deadline = min(deadline, max(time.monotonic(), self._away_since + self._patience))
        attempt = 0
        while self._unconfirmed or self._unsent:
            left = deadline - time.monotonic()
            if self._connection.closed or (self._unsent and not self._unconfirmed):
                if self._recover(left):
                    continue
                delay = backoff(attempt, _FIRST_BACKOFF_S, _LONGEST_BACKOFF_S)
                attempt += 1
                if delay < left:
                    time.sleep(delay)
                    continue
            elif left > 0:
                self._read(left)
                continue
            else:
                self._collect()
            if timeout is None and (self._unconfirmed or self._unsent):
                raise self._away()
            return

    def _settle_with(self, message: _Message) -> None:
        """Settle in a call that publishes. Who is told that the message was not taken sends it again: it goes."""
        try:
            self._settle(None)
        except BrokerError:
            if message in self._unsent:
                self._unsent.remove(message)
            raise

    def _read(self, timeout: float) -> None:
        """Wait for one reply."""
        try:
            self._on_reply(self._connection.read(timeout))
        except ReplyTimeout:
            pass
        except ConnectionLost:
            self._on_lost()
        except StoreError as error:
            self._on_reply(error)

    def _on_reply(self, reply: Any) -> None:
        message = self._unconfirmed.popleft()
        self._unconfirmed_bytes -= len(message.body)
        if reply is None:
            self._announce_again(message)
        elif reply.__class__ is not StoreError:
            self._confirm(message)
        elif self._is_passing(message, reply):
            self._unsent.append(message)
            if self._loop is not None:
                self._loop.call_later(_RETRY_S, self._try_again)

    def _announce_again(self, message: _Message) -> None:
        """The queue was retired: nobody reads it until it is announced. The message was not taken."""
        self._known.forget(message.queue)
        self._unsent.append(message)
        if self._loop is not None:
            self._loop.add_callback(self._try_again)

    def _confirm(self, message: _Message) -> None:
        if message.on_confirm is not None:
            try:
                message.on_confirm()
            except Exception:
                logger.exception("the confirm callback of a message to %s failed", message.queue)

    def _is_passing(self, message: _Message, error: StoreError) -> bool:
        """Return whether the message should be sent again; if not, have the next call raise."""
        text = str(error)
        logger.warning("Redis refused a message to %s: %s", message.queue, text)
        if text.startswith(streams.PASSING):
            return True
        self._refused = BrokerError(f"Redis refused a message to {message.queue}, which is lost: {text}")
        return False

    def _on_readable(self, _fd: int, _events: int) -> None:
        self._collect()

    # -- connections

    def _watch(self) -> None:
        if self._loop is not None:
            self._fd = self._connection.fileno()
            self._loop.add_handler(self._fd, self._on_readable, self._loop.READ)

    def _unwatch(self) -> None:
        if self._loop is not None and self._fd >= 0:
            self._loop.remove_handler(self._fd)
            self._fd = -1

    def _on_lost(self) -> None:
        """Make everything unconfirmed unsent: what arrived without its confirm arrives twice."""
        logger.warning("lost the connection to the queues at %s", self._address)
        self._unwatch()
        self._unsent.extendleft(reversed(self._unconfirmed))
        self._unconfirmed.clear()
        self._unconfirmed_bytes = 0
        self._away_since = time.monotonic()
        if self._loop is not None:
            self._loop.add_callback(self._try_again)

    def _try_again(self) -> None:
        """On the loop: send what is unsent, and come back if that was not possible."""
        with self._lock:
            if self._closed or not (self._unsent or self._connection.closed):
                return
            while self._unconfirmed and not self._connection.closed:
                self._read(_REOPEN_TIMEOUT_S)
            if not self._recover(_REOPEN_TIMEOUT_S):
                assert self._loop is not None
                self._loop.call_later(random.uniform(_RETRY_S, 2 * _RETRY_S), self._try_again)

    def _recover(self, timeout: float) -> bool:
        """Reconnect if need be and send what is unsent, each waiting for its confirm; return whether all was."""
        try:
            if self._connection.closed:
                self._connection.reopen(timeout=min(_CONNECT_TIMEOUT_S, max(_SHORTEST_TIMEOUT_S, timeout)))
                self._watch()
            while self._unsent:
                message = self._unsent[0]
                just_met = message.queue not in self._known
                if just_met:
                    self._known.meet(message.queue)
                stream = self._keys.stream(message.queue)
                try:
                    if message.priority:
                        reply = self._script((), self._script_arguments(message))
                    else:
                        condition = self._condition(message.queue)
                        reply = self._connection.call(b"XADD", stream, *condition, b"*", b"b", message.body)
                    if reply is None:
                        self._known.forget(message.queue)
                        if just_met:
                            return False  # retired again at once, or the announcement is not there yet
                        continue
                except ConnectionLost:
                    self._on_lost()
                    return False
                except StoreError as error:
                    if self._is_passing(message, error):
                        self._away_since = self._away_since or time.monotonic()
                        return False
                    self._unsent.popleft()
                else:
                    self._unsent.popleft()
                    self._confirm(message)
        except ConnectError as error:
            logger.debug("%s", error)
            self._cause = f" ({error.cause})"
            return False
        self._away_since = 0.0
        return True

    def _away(self) -> BrokerError:
        waiting = len(self._unsent) + len(self._unconfirmed)
        return BrokerError(
            f"Redis at {self._address} could not take messages for {self._patience:g} s{self._cause}; {waiting} wait. "
            "Check that it is running and not out of memory; they are sent when it is back."
        )
