"""Addresses of RabbitMQ: see `rabbitry_broker.broker_address`."""

from __future__ import annotations

import pytest

from rabbitry_broker.broker_address import AUTO, BrokerAddress, parse, with_queue_type


@pytest.mark.parametrize(
    ("address", "urls"),
    [
        ("amqp://mq", ("amqp://mq",)),
        ("amqp://mq:5673/", ("amqp://mq:5673/",)),
        ("amqp://a,b:1", ("amqp://a", "amqp://b:1")),
        ("amqps://u:p%2C@a,b/v?heartbeat=5", ("amqps://u:p%2C@a/v?heartbeat=5", "amqps://u:p%2C@b/v?heartbeat=5")),
        ("amqp://u:p,q@mq/v", ("amqp://u:p,q@mq/v",)),
        ("amqp://u:p@a/v,amqps://q:r@b", ("amqp://u:p@a/v", "amqps://q:r@b")),
        ("amqp://[::1]:5672,[::2]", ("amqp://[::1]:5672", "amqp://[::2]")),
        ("amqp://a, b", ("amqp://a", "amqp://b")),
        ("amqp://a,,b,", ("amqp://a", "amqp://b")),
    ],
)
def test_each_server_has_an_address_of_its_own(address: str, urls: tuple[str, ...]):
    assert parse(address) == BrokerAddress(urls, AUTO)


@pytest.mark.parametrize(
    ("address", "urls", "queue_type"),
    [
        ("amqp://a?queue_type=classic", ("amqp://a",), "classic"),
        ("amqp://a,b/v?x=1&queue_type=quorum&y=2", ("amqp://a/v?x=1&y=2", "amqp://b/v?x=1&y=2"), "quorum"),
        ("amqp://a/v,amqp://b/v?queue_type=quorum", ("amqp://a/v", "amqp://b/v"), "quorum"),
    ],
)
def test_the_type_of_queues_stands_in_the_query(address: str, urls: tuple[str, ...], queue_type: str):
    assert parse(address) == BrokerAddress(urls, queue_type)
    assert parse(with_queue_type(address, "classic")) == BrokerAddress(urls, "classic")


def test_what_cannot_be_parsed_is_not_shown():
    with pytest.raises(ValueError, match="percent-encoded") as caught:
        parse("amqp://ada:[secret@mq")
    assert "secret" not in repr((caught.value, caught.value.__context__))


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="auto, classic, quorum"):
        parse("amqp://ada:secret@a?queue_type=stream")


@pytest.mark.parametrize(
    ("address", "version", "quorum"),
    [
        ("amqp://a,b,c", (4, 0), True),
        ("amqp://a,b,c", (3, 13), False),  # their quorum queues have no priorities
        ("amqp://a,b,c", (), False),  # another product
        ("amqp://a", (4, 1), False),  # one server is no safer with them
        ("amqp://a?queue_type=quorum", (3, 10), True),
        ("amqp://a,b?queue_type=classic", (4, 1), False),
    ],
)
def test_servers_and_their_version_decide_unless_the_address_does(address: str, version: tuple[int, ...], quorum: bool):
    assert parse(address).wants_quorum(version) is quorum
