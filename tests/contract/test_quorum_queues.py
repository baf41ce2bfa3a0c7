"""The queue protocol on quorum queues: what holds on other queues of RabbitMQ holds there, but for priorities."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pika
import pytest

from rabbitry_broker.queue_names import amqp_name
from tests.conftest import Engine
from tests.contract.test_queues import (  # noqa: F401  these are collected here, too, with the engine below
    ACTOR,
    OTHER,
    PATIENCE_S,
    QUEUE,
    QUIET_S,
    Party,
    abandoned,
    numbered,
    party,
    test_a_deleted_queue_forgets_its_messages_and_works_again,
    test_a_message_may_be_released_to_the_same_consumer,
    test_acknowledged_messages_are_gone_and_others_come_back,
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


def test_an_actor_s_queue_gives_all_to_the_next_consumer_once_the_first_has_left(party: Party) -> None:  # noqa: F811
    """One at a time; but what the first had may come behind what it had not, unlike on other queues."""
    _, second, _ = abandoned(party)
    second.run_for(QUIET_S)
    assert sorted(each.body for each in second.got) == [b"0", b"2", b"3", b"4", b"5"]
