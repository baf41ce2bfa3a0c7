"""What is particular to queues on Redis streams; what both engines promise stands in `tests/contract`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rabbitry_broker import queue_names as names
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import BrokerError, ConnectError
from rabbitry_broker.loop import Loop
from rabbitry_broker.queues.embedded import streams
from rabbitry_broker.queues.embedded.consumer import QUEUES_PER_READER, EmbeddedConsumer
from rabbitry_broker.queues.embedded.publisher import EmbeddedPublisher
from rabbitry_broker.queues.protocol import Delivery
from tests.servers import RedisServer

PATIENCE_S = 20.0
QUEUE = names.task_queue("CPU=1")
ACTOR = names.actor_queue(b"\1" * 16)


class Node:
    """A consumer on a loop that the test drives, and what it received."""

    def __init__(self, endpoint: Endpoint, name: str) -> None:
        self.loop = Loop()
        self.got: list[Delivery] = []
        self.on_first: Callable[[], object] = lambda: None
        self.consumer = EmbeddedConsumer(endpoint, self.loop, self._on_delivery, consumer_name=name)

    def _on_delivery(self, delivery: Delivery) -> None:
        if not self.got:
            self.on_first()
        self.got.append(delivery)

    def run_until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline
            self.loop.run_once(0.01)

    def close(self) -> None:
        self.consumer.close()
        self.loop.close()


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis(config={"lua-time-limit": "50"})


@pytest.fixture
def endpoint(server: RedisServer) -> Endpoint:
    return Endpoint(server.unix_url, prefix="e:")


@pytest.fixture
def publisher(endpoint: Endpoint) -> Iterator[EmbeddedPublisher]:
    publisher = EmbeddedPublisher(endpoint)
    yield publisher
    publisher.close()


@pytest.fixture
def make_node(endpoint: Endpoint) -> Iterator[Callable[[str], Node]]:
    nodes: list[Node] = []

    def make(name: str) -> Node:
        nodes.append(Node(endpoint, name))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()


@pytest.fixture
def short_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "DEAD_AFTER_S", 0.4)
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.1)


@pytest.mark.usefixtures("short_lives")
@pytest.mark.parametrize("queue", [QUEUE, ACTOR], ids=["shared", "exclusive"])
def test_a_consumer_that_slept_too_long_loses_its_work_and_goes_on(
    make_node: Callable[[str], Node], publisher: EmbeddedPublisher, queue: str
) -> None:
    sleeper, other = make_node("sleeper"), make_node("other")
    exclusive = queue == ACTOR
    sleeper.consumer.subscribe(queue, prefetch=2, exclusive=exclusive)
    publisher.publish(queue, b"1")
    publisher.publish(queue, b"2")
    sleeper.run_until(lambda: len(sleeper.got) == 2)
    other.consumer.subscribe(queue, prefetch=5, exclusive=exclusive)
    other.run_until(lambda: len(other.got) == 2)
    assert [(delivery.body, delivery.redelivered) for delivery in other.got] == [(b"1", True), (b"2", True)]
    for delivery in sleeper.got:
        sleeper.consumer.ack(delivery)  # Too late, and harmless.
    for _ in range(30):
        sleeper.loop.run_once(0.01)
        other.loop.run_once(0.01)
    other.consumer.close()
    sleeper.run_until(lambda: len(sleeper.got) == 4)
    assert [delivery.body for delivery in sleeper.got[2:]] == [b"1", b"2"]


def test_queues_come_back_after_everything_was_flushed(
    make_node: Callable[[str], Node], publisher: EmbeddedPublisher, server: RedisServer
) -> None:
    node = make_node("node")
    node.consumer.subscribe(QUEUE, prefetch=5)
    publisher.publish(QUEUE, b"1", priority=4)
    node.run_until(lambda: len(node.got) == 1)
    with server.client() as client:
        client.flushall()
        client.script_flush()
    publisher.publish(QUEUE, b"2")
    publisher.publish(QUEUE, b"3", priority=4)
    assert publisher.flush(PATIENCE_S)
    node.run_until(lambda: len(node.got) == 3)
    node.consumer.release(node.got[1])
    node.run_until(lambda: len(node.got) == 4)


def test_a_level_that_came_while_redis_had_forgotten_its_readers_is_read_all_the_same(
    make_node: Callable[[str], Node], publisher: EmbeddedPublisher, server: RedisServer
) -> None:
    node = make_node("node")
    node.consumer.subscribe(QUEUE, prefetch=5)
    publisher.publish(QUEUE, b"1")
    node.run_until(lambda: len(node.got) == 1)
    with server.client() as client:
        client.flushall()
        publisher.publish(QUEUE, b"2")
        assert publisher.flush(PATIENCE_S)
        node.run_until(lambda: len(node.got) == 2)
        client.delete("e:qc")  # it gives its next sign of life within a second
        publisher.publish(QUEUE, b"3", priority=7)
        publisher.publish(QUEUE, b"4", priority=4)
        assert publisher.flush(PATIENCE_S)
    node.run_until(lambda: len(node.got) == 4)
    assert [each.body for each in node.got[2:]] == [b"3", b"4"]


def test_hundreds_of_queues_share_readers(make_node: Callable[[str], Node], publisher: EmbeddedPublisher) -> None:
    node = make_node("node")
    queues = [names.task_queue(f"CPU={number}") for number in range(1, 3 * QUEUES_PER_READER)]
    for queue in queues:
        node.consumer.subscribe(queue, prefetch=3)
        publisher.publish(queue, queue.encode(), priority=1)
    node.run_until(lambda: len(node.got) == len(queues))
    for delivery in node.got:
        node.consumer.ack(delivery)
    for queue in queues:
        node.consumer.unsubscribe(queue)
    del node.got[:]
    node.consumer.subscribe(queues[0], prefetch=1)
    publisher.publish(queues[0], b"again")
    node.run_until(lambda: node.got)


def test_levels_are_forgotten_when_empty(
    make_node: Callable[[str], Node], publisher: EmbeddedPublisher, server: RedisServer
) -> None:
    node = make_node("node")
    node.consumer.subscribe(QUEUE, prefetch=2)
    publisher.publish(QUEUE, b"x", priority=9)
    node.run_until(lambda: node.got)
    node.consumer.ack(node.got.pop())
    with server.client() as client:
        assert client.keys("e:q:*:p9")
        node.run_until(lambda: not client.keys("e:q:*:p9"))
    for priority in (0, 9):
        publisher.publish(QUEUE, b"y", priority=priority)
    node.run_until(lambda: len(node.got) == 2)


def full_node(make_node: Callable[[str], Node], publisher: EmbeddedPublisher, priorities: tuple[int, int]) -> Node:
    """Return a node that has as much as it may, a message of each priority, while one more of the first waits."""
    node = make_node("node")
    node.consumer.subscribe(QUEUE, prefetch=2)
    for priority in priorities:
        publisher.publish(QUEUE, b"taken", priority=priority)
    node.run_until(lambda: len(node.got) == 2)
    publisher.publish(QUEUE, b"again", priority=priorities[0])
    assert publisher.flush(PATIENCE_S)
    return node


def test_what_is_read_before_a_level_that_is_gone_is_delivered(
    make_node: Callable[[str], Node], publisher: EmbeddedPublisher, server: RedisServer
) -> None:
    """A reader learns a moment later that an empty level was forgotten; then it would be pending, and wait for ever."""
    node = full_node(make_node, publisher, (9, 1))
    with server.client() as client:
        client.delete(f"e:q:{QUEUE}:p1")
        client.srem(f"e:ql:{QUEUE}", ":p1")
    for delivery in list(node.got):
        node.consumer.ack(delivery)
    node.run_until(lambda: len(node.got) == 3)
    publisher.publish(QUEUE, b"less so, too", priority=1)
    node.run_until(lambda: len(node.got) == 4)


def test_a_level_that_comes_again_while_its_reader_forgets_it_is_read(
    make_node: Callable[[str], Node], publisher: EmbeddedPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = full_node(make_node, publisher, (9, 8))
    subscription = node.consumer._subscriptions[QUEUE]
    run = subscription.reader.channel.run

    def run_and_forget(*args: Any) -> None:
        run(*args)
        subscription.reader.set_levels(subscription, [])  # as they were when this was asked for

    monkeypatch.setattr(subscription.reader.channel, "run", run_and_forget)
    for delivery in list(node.got):
        node.consumer.ack(delivery)
    node.run_until(lambda: len(node.got) == 3)
    node.consumer.release(node.got[2])
    node.run_until(lambda: len(node.got) == 4)
    assert (node.got[3].body, node.got[3].priority, node.got[3].redelivered) == (b"again", 9, True)


@pytest.mark.parametrize("on_loop", [False, True])
def test_a_full_redis_holds_messages_up_and_loses_none(
    endpoint: Endpoint, make_node: Callable[[str], Node], server: RedisServer, on_loop: bool
) -> None:
    node = make_node("node")
    publisher = EmbeddedPublisher(endpoint, loop=node.loop if on_loop else None)
    confirmed: list[bytes] = []
    with server.client() as client:
        client.config_set("maxmemory", 1)
        publisher.publish(QUEUE, b"first", on_confirm=(lambda: confirmed.append(b"first")) if on_loop else None)
        assert not publisher.flush(0.3)
        client.config_set("maxmemory", 0)
    publisher.publish(QUEUE, b"last")
    assert publisher.flush(PATIENCE_S)
    assert confirmed == [b"first"] * on_loop
    node.consumer.subscribe(QUEUE, prefetch=10)
    node.run_until(lambda: len(node.got) == 2)
    assert {delivery.body for delivery in node.got} == {b"first", b"last"}
    publisher.close()


def test_levels_are_read_by_priority_and_returned_ones_first() -> None:
    assert streams.in_reading_order([b":p2", b":r", b":p9:r", b":p2:r", b"nonsense"]) == [
        b":p9:r", b":p2:r", b":p2", b":r", b"",
    ]  # fmt: skip
    assert [streams.priority_of_level(level) for level in (b"", b":r", b":p7", b":p7:r")] == [0, 0, 7, 7]


def test_a_queue_that_another_thread_has_met_is_made_by_who_sends_first(
    make_node: Callable[[str], Node], publisher: EmbeddedPublisher, endpoint: Endpoint
) -> None:
    """What this thread sends would come to nothing, and go again behind what it sends later."""
    publisher._known.meet(QUEUE)
    publisher.publish(QUEUE, b"1")
    another = EmbeddedPublisher(endpoint)
    another.publish(QUEUE, b"of another")
    another.close()
    publisher.publish(QUEUE, b"2")
    assert publisher.flush(PATIENCE_S)
    node = make_node("node")
    node.consumer.subscribe(QUEUE, prefetch=5)
    node.run_until(lambda: len(node.got) == 3)
    assert [each.body for each in node.got] == [b"1", b"of another", b"2"]


def test_what_was_read_and_never_looked_at_does_not_count_as_redelivered(
    make_node: Callable[[str], Node], publisher: EmbeddedPublisher
) -> None:
    """Its reader looks at what came again only after a while: what is less urgent would run before it."""
    node = make_node("node")
    node.on_first = lambda: node.consumer.subscribe(QUEUE, prefetch=1)
    for body in (b"1", b"2"):
        publisher.publish(QUEUE, body)
    node.consumer.subscribe(QUEUE, prefetch=5)
    node.run_until(lambda: node.got)
    node.consumer.ack(node.got[0])
    node.run_until(lambda: len(node.got) == 2)
    assert [(each.body, each.redelivered) for each in node.got] == [(b"1", False), (b"2", False)]
    node.consumer.release(node.got[1])
    node.run_until(lambda: len(node.got) == 3)
    assert node.got[2].redelivered  # this one was looked at


def test_what_a_busy_server_refuses_is_done_later(
    server: RedisServer, publisher: EmbeddedPublisher, make_node: Callable[[str], Node]
) -> None:
    node = make_node("one")
    node.consumer.subscribe(QUEUE, prefetch=10)
    publisher.publish(QUEUE, b"first")
    node.run_until(lambda: node.got)
    with server.busy():
        publisher.publish(QUEUE, b"second")
        node.consumer.ack(node.got[0])
        ends = time.monotonic() + 0.3
        while time.monotonic() < ends:
            node.loop.run_once(0.01)
    node.run_until(lambda: publisher.flush(0.0) and len(node.got) == 2)
    node.consumer.ack(node.got[1])
    assert [each.body for each in node.got] == [b"first", b"second"]
    stream = streams.Keys("e:").stream(QUEUE)
    with server.client() as client:
        node.run_until(lambda: client.xlen(stream) == 0 and client.xpending(stream, "nodes")["pending"] == 0)


def test_who_is_told_that_a_message_was_not_taken_may_send_it_again(
    endpoint: Endpoint, make_node: Callable[[str], Node], server: RedisServer
) -> None:
    node = make_node("node")
    publisher = EmbeddedPublisher(endpoint, patience=0.05)
    publisher.publish(QUEUE, b"accepted")
    server.stop()
    for _ in range(20):
        with pytest.raises(BrokerError, match="the socket does not exist"):
            publisher.publish(QUEUE, b"refused")
    assert len(publisher._unsent) <= 1
    server.start()
    publisher.publish(QUEUE, b"again")
    assert publisher.flush(PATIENCE_S)
    node.consumer.subscribe(QUEUE, prefetch=50)
    node.run_until(lambda: any(delivery.body == b"again" for delivery in node.got))
    assert {delivery.body for delivery in node.got} <= {b"accepted", b"again"}
    publisher.close()


def test_a_publisher_that_knows_its_server_waits_for_one_that_is_away(
    endpoint: Endpoint, server: RedisServer, make_node: Callable[[str], Node]
):
    server.kill()
    with pytest.raises(ConnectError):
        EmbeddedPublisher(endpoint)
    publisher = EmbeddedPublisher(endpoint, expected=True)
    sender = threading.Thread(target=publisher.publish, args=(QUEUE, b"sent"))
    sender.start()
    try:
        server.start()
        sender.join(PATIENCE_S)
        node = make_node("n")
        node.consumer.subscribe(QUEUE, prefetch=5)
        node.run_until(lambda: [each.body for each in node.got] == [b"sent"])
    finally:
        publisher.close()
