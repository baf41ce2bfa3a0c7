"""One AMQP connection on a loop that is opened again whenever it breaks.

    CONNECTING --- opened ------------> UP
    CONNECTING --- failed ------------> WAITING     (the first time: `open` raises instead)
    UP         --- broken ------------> WAITING
    WAITING    --- backoff is over ---> CONNECTING
    any        --- close -------------> CLOSED

Where the address names several servers of a RabbitMQ cluster, each attempt is for the next one, and the first is
chosen at random: so clients spread over the servers, and one that loses its server is with another at once.

Everything here runs with the loop's lock held. That lock is what makes pika usable by several threads: pika's
objects are never touched without it.
"""

from __future__ import annotations

import enum
import logging
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pika
from pika import exceptions

from rabbitry_broker import broker_address
from rabbitry_broker.backoff import backoff
from rabbitry_broker.errors import ConnectError, without_password
from rabbitry_broker.loop import Loop, Timer
from rabbitry_broker.queues.rabbitmq import refusals

if TYPE_CHECKING:
    from pika.channel import Channel

CONNECT_TIMEOUT_S: Final = 5.0
_CLOSE_TIMEOUT_S: Final = 1.0
# With several servers to go to. Nobody answers in the place of a machine that is gone: what was sent and is not
# acknowledged for so long tells, and heartbeats see to it that something is sent.
_CONNECT_TIMEOUT_OF_SEVERAL_S: Final = 3.0
_UNACKNOWLEDGED_MS: Final = 4000
_HEARTBEAT_OF_SEVERAL_S: Final = 6
_FIRST_BACKOFF_S: Final = 0.05
_LONGEST_BACKOFF_S: Final = 1.0

logger = logging.getLogger("rabbitry.queues")

# pika logs each failed attempt several times, with stack traces, and what it logs is not ours to vet for passwords.
# Whoever has set a level for it wants to see that.
if logging.getLogger("pika").level == logging.NOTSET:
    logging.getLogger("pika").setLevel(logging.CRITICAL)


class State(enum.Enum):
    """What a link is doing, see the module's head."""

    CONNECTING = "connecting"
    UP = "up"
    WAITING = "waiting"
    CLOSED = "closed"


class AMQPConnection(pika.SelectConnection):  # type: ignore[misc]
    """pika's connection, which can send several frames with one system call."""

    _held_back: list[bytes] | None = None

    def send_as_one(self, action: Callable[[], object]) -> None:
        """Run `action` and send all that it sends in one piece: pika alone calls send() three times a message."""
        if self._held_back is not None:
            action()
            return
        self._held_back = []
        try:
            action()
        finally:
            data, self._held_back = self._held_back, None
            if data:
                super()._adapter_emit_data(b"".join(data))

    def send_marshalled(self, data: bytes) -> None:
        """Send frames that pika did not make."""
        self._adapter_emit_data(data)

    def _close_channels(self, reply_code: int, reply_text: str) -> None:
        for channel in list(self._channels.values()):
            if not (channel.is_closing or channel.is_closed):
                close_at_once(channel, reply_code, reply_text)

    def _adapter_emit_data(self, data: bytes) -> None:
        if self._held_back is None:
            super()._adapter_emit_data(data)
        else:
            self._held_back.append(data)


def close_at_once(channel: Channel, reply_code: int = 0, reply_text: str = "Normal shutdown") -> None:
    """Close a channel with its consumers, so that their queues take everything back in one step.

    pika would cancel the consumers first, and a queue with a single active consumer goes on with the next one then
    (RabbitMQ 4 at once, older ones with its next message): that one would get what is behind before what comes back.
    """
    channel._cancelled.update(channel.consumer_tags)
    channel.close(reply_code, reply_text)


def wait_on(loop: Loop, changed: threading.Condition, done: Callable[[], object], timeout: float | None) -> bool:
    """Wait until `done()`, with the loop's lock held; `changed` is a condition of that lock.

    While no thread runs the loop, the caller drives it. On the thread that runs it nothing can be waited for.

    Returns:
        Whether `done()` holds.
    """
    if loop.running:
        if loop.is_current_thread():
            return bool(done())
        if timeout == 0:
            return bool(done())
        with loop.no_rest():
            return bool(changed.wait_for(done, timeout))
    deadline = None if timeout is None else time.monotonic() + timeout
    while not done():
        left = 1.0 if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return False
        loop.run_once(min(left, 0.1))
    return True


class Link:
    """Keeps a connection. `on_up(connection)` and `on_down()` tell its owner; both run with the loop's lock held."""

    def __init__(
        self,
        url: str,
        loop: Loop,
        *,
        name: str,
        on_up: Callable[[AMQPConnection], None],
        on_down: Callable[[], None],
        heartbeat: int | None = None,
    ) -> None:
        """Prepare; `open` connects.

        Args:
            url: of the broker, see `broker_address`.
            loop: where the connection lives.
            name: what RabbitMQ shows for it.
            on_up: called with each new connection.
            on_down: called when one is lost.
            heartbeat: seconds of silence after which the broker begins to doubt that we live, if the URL does not say
                so; None for what the broker proposes.

        Raises:
            ConnectError: `url` is malformed.
        """
        self.address = without_password(url)
        try:
            self._address = broker_address.parse(url)
        except ValueError as error:
            problem = ConnectError(url, str(error), "Write ?queue_type=quorum, classic or auto after the address.")
            raise problem from None
        self._parameters = [refusals.parse(each) for each in self._address.urls]
        several = len(self._parameters) > 1
        self._timeout = _CONNECT_TIMEOUT_OF_SEVERAL_S if several else CONNECT_TIMEOUT_S
        for parameters in self._parameters:
            parameters.connection_attempts = 1
            parameters.socket_timeout = parameters.stack_timeout = self._timeout - 0.5
            parameters.client_properties = {"connection_name": name}
            if parameters.heartbeat is None and heartbeat is not None:
                parameters.heartbeat = min(heartbeat, _HEARTBEAT_OF_SEVERAL_S) if several else heartbeat
            if several and not parameters.tcp_options and hasattr(socket, "TCP_USER_TIMEOUT"):
                parameters.tcp_options = {"TCP_USER_TIMEOUT": _UNACKNOWLEDGED_MS}
        self._at = random.randrange(len(self._parameters))
        self._tried = 0
        self._loop = loop
        self._on_up = on_up
        self._on_down = on_down
        self._changed = threading.Condition(loop.lock)
        self._state = State.CONNECTING
        self._was_up = False
        self._attempts = 0
        self._error: ConnectError | None = None
        self._timer: Timer | None = None
        self._connecting: AMQPConnection | None = None
        self.connection: AMQPConnection | None = None
        """The open connection; None while there is none."""
        self.quorum = False
        """Queues are to be quorum queues: known with the first connection."""

    def open(self) -> None:
        """Connect for the first time, to the first server that will have us.

        On the thread that runs the loop this returns at once, and a failure is logged and tried again.

        Raises:
            ConnectError: within 5 s, or 3 s for each of several servers, if none would.
        """
        with self._loop.lock:
            self._connect()
            timeout = self._timeout * len(self._parameters)
            settled = wait_on(self._loop, self._changed, lambda: self._was_up or self._error, timeout)
            if self._was_up:
                return
            if self._loop.running and self._loop.is_current_thread():
                self._was_up = True  # From now on, failures are those of a reconnect.
                return
            error = self._error if settled else refusals.no_answer(self._url, timeout)
            self.close()
        assert error is not None
        raise error

    def close(self) -> None:
        """Close the connection, and wait shortly for that if possible. May be called again."""
        with self._loop.lock:
            if self._state is State.CLOSED:
                return
            self._state = State.CLOSED
            if self._timer is not None:
                self._loop.remove_timeout(self._timer)
            connection = self.connection or self._connecting
            self.connection = None
            if connection is not None and not (connection.is_closing or connection.is_closed):
                with suppress(exceptions.ConnectionWrongStateError):
                    connection.close()
                wait_on(self._loop, self._changed, lambda: connection.is_closed, _CLOSE_TIMEOUT_S)

    @property
    def _url(self) -> str:
        """The server that is used, or tried."""
        return self._address.urls[self._at]

    def _connect(self) -> None:
        self._state = State.CONNECTING
        self._connecting = AMQPConnection(
            self._parameters[self._at],
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_open_error,
            on_close_callback=self._on_close,
            custom_ioloop=self._loop,
        )

    def _on_open(self, connection: Any) -> None:
        self._connecting = None
        if self._state is State.CLOSED:
            connection.close()
            return
        properties = connection.server_properties or {}
        version = properties.get("version", "0")
        version = version.decode() if isinstance(version, bytes) else str(version)
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        is_rabbitmq = properties.get("product", "RabbitMQ") in ("RabbitMQ", b"RabbitMQ")
        if is_rabbitmq and numbers < refusals.OLDEST_RABBITMQ:
            self._fail(refusals.too_old(self._url, version))
            connection.close()
            return
        self.quorum = self._address.wants_quorum(numbers if is_rabbitmq else ())
        if self._was_up:
            logger.warning("connected to RabbitMQ at %s again", without_password(self._url))
        self._state = State.UP
        self._was_up = True
        self._attempts = 0
        self.connection = connection
        try:
            self._on_up(connection)
        finally:
            self._changed.notify_all()

    def _on_open_error(self, _connection: Any, error: Any) -> None:
        self._connecting = None
        if isinstance(error, str):
            error = exceptions.AMQPConnectionError(error)
        self._fail(refusals.explain(self._url, error, self._timeout))

    def _fail(self, error: ConnectError) -> None:
        self._tried += 1
        if self._state is not State.CLOSED:
            if self._was_up:
                logger.info("%s", error)
                self._connect_later()
            elif self._tried < len(self._parameters):
                self._connect_later()
            else:
                self._state = State.WAITING
                self._error = error
        self._changed.notify_all()

    def _on_close(self, connection: Any, reason: Any) -> None:
        if self._state is State.UP and connection is self.connection:
            logger.warning("lost the connection to RabbitMQ at %s: %s", without_password(self._url), reason)
            self.connection = None
            self._connect_later()
            self._on_down()
        self._changed.notify_all()

    def _connect_later(self) -> None:
        self._state = State.WAITING
        self._at = (self._at + 1) % len(self._parameters)
        delay = backoff(self._attempts // len(self._parameters), _FIRST_BACKOFF_S, _LONGEST_BACKOFF_S)
        self._attempts += 1
        self._timer = self._loop.call_later(delay, self._connect_again)

    def _connect_again(self) -> None:
        if self._state is State.WAITING:
            self._connect()
