"""What RabbitMQ's answers do to what was sent; connections and channels are fakes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pika import spec

from rabbitry_broker import queue_names as names
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.loop import Loop
from rabbitry_broker.queues.rabbitmq import publisher as publishers

QUEUE = names.task_queue("CPU=1")


class Channel:
    """A channel that keeps the publisher's callbacks, for the test to call."""

    channel_number = 1
    is_open = True

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.confirm: Callable[[Any], None] = lambda frame: None
        self.closed: Callable[[Any, Any], None] = lambda channel, reason: None

    def add_on_close_callback(self, callback: Callable[[Any, Any], None]) -> None:
        self.closed = callback

    def add_on_return_callback(self, callback: Callable[..., None]) -> None:
        pass

    def confirm_delivery(self, callback: Callable[[Any], None]) -> None:
        self.confirm = callback

    def queue_declare(self, *_: Any, **__: Any) -> None:
        pass

    def close(self) -> None:
        self.is_open = False
        self.closed(self, None)

    def answer(self, method: Any) -> None:
        with self._loop.lock:  # as the loop's thread has it
            self.confirm(SimpleNamespace(method=method))


class Connection:
    """A connection that keeps what is sent, and opens channels at once."""

    is_open = True
    params = SimpleNamespace(frame_max=131072)

    def __init__(self) -> None:
        self.loop = Loop()
        self.channels: list[Channel] = []
        self.sent: list[bytes] = []

    def channel(self, on_open_callback: Callable[[Channel], None]) -> None:
        self.channels.append(Channel(self.loop))
        on_open_callback(self.channels[-1])

    def send_marshalled(self, frames: bytes) -> None:
        self.sent.append(frames)


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Connection:
    made = Connection()

    def link(_url: str, _loop: Loop, *, on_up: Callable[[Any], None], **_: Any) -> Any:
        def up() -> None:
            with made.loop.lock:
                on_up(made)

        return SimpleNamespace(connection=made, quorum=False, address="nowhere", open=up)

    monkeypatch.setattr(publishers, "Link", link)
    monkeypatch.setattr(publishers, "_FIRST_REFUSAL_S", 0.0)
    return made


@pytest.mark.parametrize("several", [False, True], ids=["one-refused", "several-refused"])
def test_what_was_refused_is_not_taken_for_confirmed_with_later_ones(connection: Connection, several: bool) -> None:
    loop = connection.loop
    publisher = publishers.RabbitMQPublisher(Endpoint("redis://unused", "amqp://unused"), loop=loop)
    confirmed: list[int] = []
    for number in range(1, 6):
        publisher.publish(QUEUE, b"body %d" % number, on_confirm=lambda number=number: confirmed.append(number))
    (first,) = connection.channels
    first.answer(spec.Basic.Ack(delivery_tag=1))
    first.answer(spec.Basic.Nack(delivery_tag=3, multiple=several))
    first.answer(spec.Basic.Ack(delivery_tag=4, multiple=True))
    refused = [2, 3] if several else [3]
    assert confirmed == [number for number in range(1, 5) if number not in refused]
    assert publisher.unconfirmed == len(refused) + 1
    assert not publisher.flush(0.0)
    publisher.publish(QUEUE, b"body 6", on_confirm=lambda: confirmed.append(6))
    del connection.sent[:]
    while first.is_open:
        loop.run_once(0.01)
    again = [*refused, 5, 6]
    assert [int(frames.partition(b"body ")[2][:1]) for frames in connection.sent] == again, "in their order"
    connection.channels[-1].answer(spec.Basic.Ack(delivery_tag=len(again), multiple=True))
    assert publisher.flush(0.0)
    assert sorted(confirmed) == [1, 2, 3, 4, 5, 6], "each once"
    loop.close()
