"""Short questions to RabbitMQ, by tools: how deep is a queue, delete it."""

from __future__ import annotations

import pika

from rabbitry_broker import broker_address
from rabbitry_broker.queues.rabbitmq import refusals


def connect(address: str) -> pika.BlockingConnection:
    """Return a connection to the first server of an address that answers; the caller closes it.

    Raises:
        ConnectError: the address cannot be parsed.
        pika.exceptions.AMQPError: no server answers.
    """
    return pika.BlockingConnection([refusals.parse(url) for url in broker_address.parse(address).urls])
