"""The queue protocol on quorum queues: what holds on other queues of RabbitMQ holds there, but for priorities.

Each version of RabbitMQ is held to what it can: see `docs/decisions/008-quorum-queues.md`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace

import pika
import pytest

from rabbitry_broker.broker_address import PRIORITIES_SINCE
from rabbitry_broker.queue_names import amqp_name
from rabbitry_broker.queues import open_publisher
from rabbitry_broker.queues.protocol import Delivery
from tests.conftest import Engine
from tests.contract.test_queues import (  # noqa: F401  these are collected here, too, with the engine below
    ACTOR,
    OTHER,
    PATIENCE_S,
    QUEUE,
    QUIET_S,
    Party,
    numbered,
    party,
    test_a_deleted_queue_forgets_its_messages_and_works_again,
    test_a_message_may_be_released_to_the_same_consumer,
    test_acknowledged_messages_are_gone_and_others_come_back,
    test_an_abandoned_queue_gives_all_to_the_next_consumer_in_order,
    test_an_exclusive_queue_has_one_consumer_until_that_leaves,
    test_messages_arrive_in_publishing_order,
    test_nothing_is_lost_when_the_server_cuts_all_connections,
    test_released_messages_come_again_at_once_before_later_ones,
)
from tests.servers import RabbitMQServer, RedisServer


@pytest.fixture
def engine(redis_server: RedisServer, rabbitmq_server: RabbitMQServer) -> Iterator[Engine]:
    vhost = f"quorum-{secrets.token_hex(4)}"
    url = rabbitmq_server.add_vhost(vhost) + "?queue_type=quorum"
    secret = (secrets.token_bytes(32),)
    yield Engine("rabbitmq", redis_server.url, url, "q:", secret, redis_server, rabbitmq_server, vhost)
    rabbitmq_server.delete_vhost(vhost)


def arguments(engine: Engine, queue: str) -> str:
    assert engine.rabbitmq_server is not None
    name = amqp_name(engine.prefix, queue)
    return engine.rabbitmq_server.evaluate(
        f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{engine.vhost}">>, queue, <<"{name}">>)), '
        "{amqqueue:get_type(Q), amqqueue:is_durable(Q), lists:sort(amqqueue:get_arguments(Q))}."
    )


def test_queues_of_tasks_and_actors_are_quorum_queues(party: Party, engine: Engine) -> None:  # noqa: F811
    publisher = party.publisher()
    for queue in (QUEUE, ACTOR):
        publisher.publish(queue, b"x", priority=7)
    assert publisher.flush(PATIENCE_S)
    for queue in (QUEUE, ACTOR):
        told = arguments(engine, queue)
        assert told.startswith("{rabbit_quorum_queue,true") and "x-delivery-limit" in told
        assert ("x-single-active-consumer" in told) is (queue == ACTOR)


def test_work_may_come_back_any_number_of_times_and_keeps_its_place(party: Party) -> None:  # noqa: F811
    publisher, receiver = party.publisher(), party.receiver()
    for body in numbered(2):
        publisher.publish(QUEUE, body)
    receiver.consumer.subscribe(QUEUE, prefetch=1)
    for _ in range(30):  # RabbitMQ 4 drops what came back 20 times, unless told otherwise
        (delivery,) = receiver.take(1)
        assert delivery.body == b"0"
        receiver.consumer.release(delivery)
    for body in numbered(2):
        (delivery,) = receiver.take(1)
        assert delivery.body == body
        receiver.consumer.ack(delivery)


def test_a_queue_is_deleted_if_it_is_empty_and_stays_if_it_is_not(party: Party, engine: Engine) -> None:  # noqa: F811
    publisher, receiver = party.publisher(), party.receiver()
    publisher.publish(QUEUE, b"x")
    publisher.publish(OTHER, b"x")
    receiver.consumer.subscribe(OTHER, prefetch=1)
    receiver.consumer.ack(receiver.take(1)[0])
    receiver.consumer.unsubscribe(OTHER)
    receiver.run_for(QUIET_S)
    names = {queue: amqp_name(engine.prefix, queue) for queue in (QUEUE, OTHER)}
    receiver.consumer.delete_queue("task.CPU=99", if_empty=True)  # there is none
    for queue in (QUEUE, OTHER):
        receiver.consumer.delete_queue(queue, if_empty=True)
    receiver.run_until(lambda: engine.queues() == [names[QUEUE]])
    receiver.consumer.subscribe(QUEUE, prefetch=1)
    assert receiver.take(1)[0].body == b"x", "it is there, and the connection is"


def test_what_is_refused_is_sent_again_in_its_order(party: Party, engine: Engine) -> None:  # noqa: F811
    """By a queue that is full: as good as one that elects a leader."""
    assert engine.rabbitmq_server is not None and engine.broker_url is not None
    broker = pika.BlockingConnection(pika.URLParameters(engine.broker_url.partition("?")[0]))
    full = {"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-max-length": 1}
    broker.channel().queue_declare(amqp_name(engine.prefix, QUEUE), durable=True, arguments=full)
    broker.close()
    publisher = party.publisher()
    confirmed: list[bytes] = []
    sent = 0
    while publisher.flush(QUIET_S):  # a few more find room than there should be
        assert sent < 200, "it takes all"
        body = b"%d" % sent
        publisher.publish(QUEUE, body, on_confirm=lambda body=body: confirmed.append(body))
        sent += 1
    for body in numbered(5, start=sent):
        publisher.publish(QUEUE, body, on_confirm=lambda body=body: confirmed.append(body))
    sent += 5
    receiver = party.receiver()
    receiver.consumer.subscribe(QUEUE, prefetch=1)
    taken: list[bytes] = []
    while len(set(taken)) < sent:
        (delivery,) = receiver.take(1)
        taken.append(delivery.body)
        receiver.consumer.ack(delivery)
    assert list(dict.fromkeys(taken)) == numbered(sent), "one may come twice, and none too early"
    assert publisher.flush(PATIENCE_S)
    assert sorted(confirmed) == sorted(numbered(sent)), "each once"


def test_urgent_messages_come_first_as_far_as_the_server_can(party: Party, rabbitmq_server: RabbitMQServer) -> None:  # noqa: F811
    """RabbitMQ 4 knows two kinds, and gives two urgent ones for each other one; older ones know no difference."""
    publisher, receiver = party.publisher(), party.receiver()
    ordinary, urgent = [b"n%d" % number for number in range(6)], [b"u%d" % number for number in range(6)]
    for at, body in enumerate(ordinary):
        publisher.publish(QUEUE, body, priority=at % 2 * 4)
    for at, body in enumerate(urgent):
        publisher.publish(QUEUE, body, priority=5 + at % 2 * 4)
    assert publisher.flush(PATIENCE_S)
    receiver.consumer.subscribe(QUEUE, prefetch=1)
    received: list[Delivery] = []
    for _ in ordinary + urgent:
        received += receiver.take(1)
        receiver.consumer.ack(received[-1])
    bodies = [each.body for each in received]
    if rabbitmq_server.version < PRIORITIES_SINCE:
        assert bodies == ordinary + urgent
        return
    assert [body for body in bodies if body in ordinary] == ordinary, "4 is as good as 0"
    assert [body for body in bodies if body in urgent] == urgent, "5 is as good as 9"
    assert bodies.index(urgent[0]) <= 1 and bodies.index(urgent[-1]) <= 8


def test_several_servers_have_quorum_queues_if_these_have_priorities(
    engine: Engine, rabbitmq_server: RabbitMQServer
) -> None:
    assert engine.vhost is not None
    url = rabbitmq_server.vhost_url(engine.vhost)
    for address, several in ((url, False), (f"{url},{url}", True)):
        publisher = open_publisher(replace(engine.endpoint, broker_url=address))
        queue = OTHER if several else QUEUE
        publisher.publish(queue, b"x")
        assert publisher.flush(PATIENCE_S)
        publisher.close()
        quorum = several and rabbitmq_server.version >= PRIORITIES_SINCE
        assert arguments(engine, queue).startswith("{rabbit_quorum_queue," if quorum else "{rabbit_classic_queue,")
