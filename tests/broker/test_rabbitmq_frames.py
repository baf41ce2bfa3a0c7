"""The frames that are marshalled by hand are those that pika would have made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, frame, spec

from rabbitry_broker.queues.rabbitmq.frames import FRAME_OVERHEAD, publisher_of


def marshalled_by_pika(channel: int, queue: str, priority: int, frame_max: int, body: bytes) -> bytes:
    properties = BasicProperties(delivery_mode=2, priority=priority or None)
    largest = frame_max - FRAME_OVERHEAD
    frames = [
        frame.Method(channel, spec.Basic.Publish(exchange="", routing_key=queue, mandatory=True)),
        frame.Header(channel, len(body), properties),
        *(frame.Body(channel, body[at : at + largest]) for at in range(0, len(body), largest)),
    ]
    return b"".join(each.marshal() for each in frames)


@given(
    channel=st.integers(1, 65535),
    queue=st.text(max_size=60),
    priority=st.integers(0, 9),
    frame_max=st.integers(9, 40),
    body=st.binary(max_size=100),
)
def test_the_bytes_are_pikas(channel: int, queue: str, priority: int, frame_max: int, body: bytes) -> None:
    marshal = publisher_of(channel, queue.encode(), priority, frame_max)
    assert marshal(body) == marshalled_by_pika(channel, queue, priority, frame_max, body)
