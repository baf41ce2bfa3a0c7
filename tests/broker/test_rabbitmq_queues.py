"""What is particular to queues on RabbitMQ; what both engines promise stands in `tests/contract`."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pika
import pytest

from rabbitry_broker import broker_address
from rabbitry_broker import queue_names as names
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import BrokerError, ConnectError
from rabbitry_broker.loop import Loop
from rabbitry_broker.queues import known
from rabbitry_broker.queues.protocol import Delivery
from rabbitry_broker.queues.rabbitmq import consumer as consumers
from rabbitry_broker.queues.rabbitmq import link, refusals
from rabbitry_broker.queues.rabbitmq import publisher as publishers
from rabbitry_broker.queues.rabbitmq.consumer import RabbitMQConsumer
from rabbitry_broker.queues.rabbitmq.publisher import RabbitMQPublisher
from tests.servers import RabbitMQServer, free_port

PATIENCE_S = 25.0
QUEUE = names.task_queue("CPU=1")
DEPRECATED = ("amqp_address_v1", "global_qos", "queue_master_locator", "ram_node_type", "transient_nonexcl_queues")
"""Features that RabbitMQ 4.0 still permits unless it is told otherwise."""


class Node:
    """A consumer on a loop that the test drives, and what it received."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.loop = Loop()
        self.got: list[Delivery] = []
        self.consumer = RabbitMQConsumer(endpoint, self.loop, self.got.append, consumer_name="node")

    def run_until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline
            self.loop.run_once(0.01)

    def run_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.loop.run_once(0.01)

    def close(self) -> None:
        self.consumer.close()
        self.loop.close()


@pytest.fixture
def endpoint(rabbitmq_server: RabbitMQServer) -> Iterator[Endpoint]:
    vhost = "particular"
    yield Endpoint("redis://unused", rabbitmq_server.add_vhost(vhost), prefix="r:")
    rabbitmq_server.delete_vhost(vhost)


def test_a_queue_that_exists_with_other_arguments_is_used_as_it_is(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = pika.BlockingConnection(pika.URLParameters(endpoint.broker_url))
    foreign.channel().queue_declare("r:" + QUEUE, durable=True)
    foreign.close()
    publisher, node = RabbitMQPublisher(endpoint), Node(endpoint)
    node.consumer.subscribe(QUEUE, prefetch=5)
    publisher.publish(QUEUE, b"1")
    assert publisher.flush(PATIENCE_S)
    node.run_until(lambda: len(node.got) == 1)
    assert "other arguments" in caplog.text
    publisher.close()
    node.close()


def test_queues_are_durable_and_carry_the_prefix(endpoint: Endpoint, rabbitmq_server: RabbitMQServer) -> None:
    publisher = RabbitMQPublisher(endpoint)
    publisher.publish(QUEUE, b"1")
    assert publisher.flush(PATIENCE_S)
    publisher.close()
    assert rabbitmq_server.queues("particular") == ["r:" + QUEUE]
    # A passive declaration says nothing of durability; declaring it otherwise is refused.
    foreign = pika.BlockingConnection(pika.URLParameters(endpoint.broker_url))
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="durable"):
        foreign.channel().queue_declare("r:" + QUEUE, durable=False)
    foreign.close()


def test_too_old_a_server_is_named_with_what_is_needed(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "OLDEST_RABBITMQ", (99, 0))
    with pytest.raises(ConnectError, match=r"is RabbitMQ \d.*too old.*needs RabbitMQ 99\.0 or newer"):
        RabbitMQPublisher(endpoint)


def test_publishing_waits_out_a_memory_alarm(start_rabbitmq: Callable[..., RabbitMQServer]) -> None:
    server = start_rabbitmq()
    endpoint = Endpoint("redis://unused", server.url)
    publisher, node = RabbitMQPublisher(endpoint, patience=1.0), Node(endpoint)
    publisher.publish(QUEUE, b"0")
    assert publisher.flush(PATIENCE_S)
    server.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.000001).")
    errors: list[BaseException] = []

    def publish() -> None:
        try:
            for _ in range(150):  # More than may be unconfirmed at once.
                publisher.publish(QUEUE, b"x" * 1_000_000)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    thread.join(2.0)
    assert thread.is_alive()  # It is not taken for a server that is away.
    assert not errors
    server.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.9).")
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert not errors
    assert publisher.flush(PATIENCE_S)
    node.consumer.subscribe(QUEUE, prefetch=500)
    node.run_until(lambda: len(node.got) == 151)
    publisher.close()
    node.close()


def test_the_largest_message_passes_and_a_larger_one_is_refused_before_it_is_sent(endpoint: Endpoint) -> None:
    """Whatever its own limit is (16 MiB with RabbitMQ 4, 128 MiB before): it would close the channel for ever."""
    publisher, node = RabbitMQPublisher(endpoint), Node(endpoint)
    node.consumer.subscribe(QUEUE, prefetch=5)
    largest = bytes(publishers.MAX_BODY_BYTES)
    publisher.publish(QUEUE, largest)
    with pytest.raises(BrokerError, match="16777217 bytes is too large"):
        publisher.publish(QUEUE, largest + b"x")
    publisher.publish(QUEUE, b"after it")
    node.run_until(lambda: len(node.got) == 2)
    assert [each.body for each in node.got] == [largest, b"after it"]
    assert publisher.flush(PATIENCE_S)
    publisher.close()
    node.close()


def test_closing_ends_the_thread(endpoint: Endpoint) -> None:
    before = set(threading.enumerate())
    publisher = RabbitMQPublisher(endpoint)
    assert {thread.name for thread in set(threading.enumerate()) - before} == {"rabbitry-broker"}
    publisher.close()
    assert set(threading.enumerate()) <= before


def test_a_publisher_does_not_remember_every_queue_it_ever_had(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishers, "QUEUES_KEPT", 3)
    monkeypatch.setattr(known, "QUEUES_KEPT", 3)
    announced: list[str] = []
    publisher, node = RabbitMQPublisher(endpoint, on_new_queue=announced.append), Node(endpoint)
    queues = [names.task_queue(f"CPU={number}") for number in range(1, 8)]
    for body in (b"1", b"2"):
        for queue in queues:
            publisher.publish(queue, body)
    assert publisher.flush(PATIENCE_S)
    for queue in queues:
        node.consumer.subscribe(queue, prefetch=5)
    node.run_until(lambda: len(node.got) == 2 * len(queues))
    for queue in queues:
        assert [each.body for each in node.got if each.queue == queue] == [b"1", b"2"]
    assert set(announced) == set(queues)
    assert max(map(len, (publisher._known, publisher._declared, publisher._marshal))) <= 3
    node.close()
    publisher.close()


@pytest.mark.parametrize("first", [0, 1, 2])
def test_the_next_server_is_tried_when_one_does_not_answer(
    endpoint: Endpoint, rabbitmq_server: RabbitMQServer, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """Also after a connection is lost, when the next server may be the one that is gone."""
    monkeypatch.setattr(link.random, "randrange", lambda servers: first % servers)
    assert endpoint.broker_url is not None
    port = f":{rabbitmq_server.port}/"
    several = endpoint.broker_url.replace(port, f":{free_port()},127.0.0.1:{free_port()},127.0.0.1{port}")
    publisher, node = RabbitMQPublisher(replace(endpoint, broker_url=several)), Node(endpoint)
    node.consumer.subscribe(QUEUE, prefetch=5)
    publisher.publish(QUEUE, b"1")
    assert publisher.flush(PATIENCE_S)
    close = 'fun(C) -> rabbit_networking:close_connection(C, "test") end'
    rabbitmq_server.evaluate(f"lists:foreach({close}, rabbit_networking:connections()).")
    publisher.publish(QUEUE, b"2")
    assert publisher.flush(PATIENCE_S)
    node.run_until(lambda: {each.body for each in node.got} == {b"1", b"2"})
    publisher.close()
    node.close()


def test_no_server_of_several_that_answers_is_an_error(endpoint: Endpoint) -> None:
    ports = [free_port(), free_port()]
    several = f"amqp://ada:secret@127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}/v"
    with pytest.raises(ConnectError, match="nothing is listening") as caught:
        RabbitMQPublisher(replace(endpoint, broker_url=several))
    assert "secret" not in str(caught.value)


def test_an_impossible_type_of_queues_is_refused(endpoint: Endpoint) -> None:
    with pytest.raises(ConnectError, match="auto, classic, quorum"):
        RabbitMQPublisher(replace(endpoint, broker_url=f"{endpoint.broker_url}?queue_type=stream"))


def test_queues_of_actors_have_no_priorities(endpoint: Endpoint, rabbitmq_server: RabbitMQServer) -> None:
    calls = names.actor_queue(bytes(16))
    publisher, node = RabbitMQPublisher(endpoint), Node(endpoint)
    node.consumer.subscribe(calls, prefetch=5, exclusive=True)
    for queue in (calls, QUEUE):
        publisher.publish(queue, b"1")
    assert publisher.flush(PATIENCE_S)
    node.run_until(lambda: len(node.got) == 1)
    arguments = rabbitmq_server.evaluate(
        f"[{{element(4, amqqueue:get_name(Q)), lists:sort([K || {{K, _, _}} <- amqqueue:get_arguments(Q)])}} "
        f'|| Q <- rabbit_amqqueue:list(<<"{endpoint.broker_url.rpartition("/")[2]}">>)].'
    )
    assert f'{{<<"r:{calls}">>,[<<"x-queue-type">>,<<"x-single-active-consumer">>]}}' in arguments
    assert f'{{<<"r:{QUEUE}">>,[<<"x-max-priority">>,<<"x-queue-type">>]}}' in arguments
    publisher.close()
    node.close()


def test_queues_are_classic_also_where_the_virtual_host_has_others_by_default(rabbitmq_server: RabbitMQServer) -> None:
    vhost = "of-quorum-queues"
    url = rabbitmq_server.add_vhost(vhost, default_queue_type="quorum")
    endpoint = Endpoint("redis://unused", url, prefix="r:")
    calls = names.actor_queue(bytes(16))
    publisher, node = RabbitMQPublisher(endpoint), Node(endpoint)
    node.consumer.subscribe(calls, prefetch=5, exclusive=True)
    node.consumer.subscribe(QUEUE, prefetch=5)
    for queue in (calls, QUEUE):
        publisher.publish(queue, b"1")
    node.run_until(lambda: len(node.got) == 2)
    types = f'[amqqueue:get_type(Q) || Q <- rabbit_amqqueue:list(<<"{vhost}">>)].'
    assert rabbitmq_server.evaluate(types) == "[rabbit_classic_queue,rabbit_classic_queue]"
    publisher.close()
    node.close()
    rabbitmq_server.delete_vhost(vhost)


def test_queues_beyond_the_channels_of_a_connection_wait_for_one(
    start_rabbitmq: Callable[..., RabbitMQServer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(consumers, "_LINGER_S", 0.1)
    server = start_rabbitmq(config={"channel_max": "6"})
    endpoint = Endpoint("redis://unused", f"{server.url}?queue_type=classic", prefix="r:")
    publisher, node = RabbitMQPublisher(endpoint), Node(endpoint)
    queues = [names.actor_queue(bytes([number]) * 16) for number in range(8)]
    for queue in queues:
        node.consumer.subscribe(queue, prefetch=1, exclusive=True)
        publisher.publish(queue, b"x")
    node.run_until(lambda: len(node.got) == 5)  # one channel is for deleting
    assert "RabbitMQ allows 6 on a connection (channel_max)" in caplog.text
    served = [delivery.queue for delivery in node.got]
    for delivery in node.got[:3]:
        node.consumer.ack(delivery)
        node.consumer.unsubscribe(delivery.queue)
    node.run_until(lambda: len(node.got) == 8)
    assert {delivery.queue for delivery in node.got} == set(queues)
    for delivery in node.got[5:]:
        assert delivery.queue not in served
    publisher.close()
    node.close()


def test_the_server_takes_the_settings_that_are_given_for_it(start_rabbitmq: Callable[..., RabbitMQServer]) -> None:
    text = (Path(__file__).parents[2] / "broker" / "rabbitmq.conf").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    settings = dict(line.split(" = ") for line in lines)
    del settings["listeners.tcp.default"]  # a port of its own
    server = start_rabbitmq(config=settings)
    told = server.evaluate(
        "[application:get_env(rabbit, K) || K <- [max_message_size, consumer_timeout, channel_max]]."
    )
    assert told == "[{ok,67108864},{ok,1800000},{ok,32767}]"


@pytest.mark.parametrize("leaves", ["breaks off", "closes"])
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_calls_of_an_actor_keep_their_order_when_its_node_is_gone(
    endpoint: Endpoint, queue_type: str, leaves: str
) -> None:
    endpoint = replace(endpoint, broker_url=f"{endpoint.broker_url}?queue_type={queue_type}")
    calls = names.actor_queue(bytes(16))
    publisher, first, second = RabbitMQPublisher(endpoint), Node(endpoint), Node(endpoint)
    first.consumer.subscribe(calls, prefetch=4, exclusive=True)
    bodies = [b"%d" % number for number in range(30)]
    for body in bodies:
        publisher.publish(calls, body)
    first.run_until(lambda: len(first.got) == 4)
    second.consumer.subscribe(calls, prefetch=40, exclusive=True)
    second.run_for(0.25)
    first.consumer.ack(first.got[1])
    first.run_for(0.25)
    if leaves == "closes":
        first.consumer.close()
    else:
        first.consumer._link.connection._transport._sock.shutdown(socket.SHUT_RDWR)  # nobody runs its loop any more
    second.run_until(lambda: len(second.got) == 29)
    assert [each.body for each in second.got] == [bodies[0], *bodies[2:]]
    for each in (publisher, first, second):
        each.close()


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_all_goes_on_where_nothing_deprecated_is_permitted(
    rabbitmq_server: RabbitMQServer, start_rabbitmq: Callable[..., RabbitMQServer], queue_type: str
) -> None:
    if rabbitmq_server.version < broker_address.PRIORITIES_SINCE:
        pytest.skip("RabbitMQ 3.10 deprecates nothing")
    server = start_rabbitmq(config={f"deprecated_features.permit.{name}": "false" for name in DEPRECATED})
    endpoint = Endpoint("redis://unused", f"{server.url}?queue_type={queue_type}", prefix="r:")
    calls = names.actor_queue(bytes(16))
    publisher, node = RabbitMQPublisher(endpoint), Node(endpoint)
    node.consumer.subscribe(calls, prefetch=5, exclusive=True)
    node.consumer.subscribe(QUEUE, prefetch=5)
    for queue in (calls, QUEUE):
        publisher.publish(queue, b"1", priority=3)
    node.run_until(lambda: len(node.got) == 2)
    node.consumer.subscribe(QUEUE, prefetch=2)
    for delivery in node.got:
        node.consumer.release(delivery)
    node.run_until(lambda: len(node.got) == 4)
    for delivery in node.got[2:]:
        node.consumer.ack(delivery)
    node.consumer.delete_queue(calls)
    node.consumer.delete_queue(QUEUE, if_empty=True)
    node.run_until(lambda: server.queues("tests") == [])
    publisher.close()
    node.close()


def test_confirms_are_awaited_without_rest(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishers, "_REST_S", 1000 * PATIENCE_S)
    publisher = RabbitMQPublisher(endpoint)
    for number in range(3):
        publisher.publish(QUEUE, b"%d" % number)
        assert publisher.flush(PATIENCE_S)
        assert publisher.unconfirmed == 0
    publisher.close()
