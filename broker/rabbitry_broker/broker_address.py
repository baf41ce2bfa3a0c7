"""The address of RabbitMQ: one server or several of one cluster, and what kind of queues are to be declared there.

| address | servers |
|---|---|
| `amqp://user:password@mq:5672/vhost` | one |
| `amqp://user:password@mq1:5672,mq2:5672,mq3/vhost` | several with one account and virtual host |
| `amqp://ada:pw@mq1/jobs,amqp://ada:pw@mq2/jobs` | several, each with an address of its own |

`?queue_type=quorum` or `classic` says what queues are; without it, or with `auto`, the number of servers and their
version do (`wants_quorum`). It stands in the address so that all processes of a cluster that share one agree on it.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

AUTO: Final = "auto"
CLASSIC: Final = "classic"
QUORUM: Final = "quorum"
QUEUE_TYPES: Final = (AUTO, CLASSIC, QUORUM)

PRIORITIES_SINCE: Final = (4, 0)
"""The version of RabbitMQ whose quorum queues have priorities."""

_PARAMETER: Final = "queue_type"
_BETWEEN: Final = re.compile(r",(?=amqps?://)", re.IGNORECASE)


class BrokerAddress(NamedTuple):
    """An address taken apart.

    Attributes:
        urls: of each server, as pika understands them.
        queue_type: one of `QUEUE_TYPES`.
    """

    urls: tuple[str, ...]
    queue_type: str = AUTO

    def wants_quorum(self, version: tuple[int, ...]) -> bool:
        """True if queues are to be quorum queues on servers of this version of RabbitMQ; () if they are no RabbitMQ.

        Example:
            >>> parse("amqp://a,b,c").wants_quorum((4, 1)), parse("amqp://a,b,c").wants_quorum((3, 10))
            (True, False)
            >>> parse("amqp://a").wants_quorum((4, 1)), parse("amqp://a?queue_type=quorum").wants_quorum((3, 10))
            (False, True)
        """
        if self.queue_type == AUTO:
            return len(self.urls) > 1 and version >= PRIORITIES_SINCE
        return self.queue_type == QUORUM


def parse(address: str) -> BrokerAddress:
    """Take an address apart.

    Raises:
        ValueError: its type of queues is none, or it cannot be parsed.

    Example:
        >>> parse("amqp://ada:pw@mq1:5673,mq2/jobs?heartbeat=5&queue_type=quorum").urls
        ('amqp://ada:pw@mq1:5673/jobs?heartbeat=5', 'amqp://ada:pw@mq2/jobs?heartbeat=5')
        >>> parse("amqp://a@mq1/jobs,amqps://b@mq2/jobs").urls
        ('amqp://a@mq1/jobs', 'amqps://b@mq2/jobs')
    """
    urls: list[str] = []
    queue_type = AUTO
    for url in _BETWEEN.split(address):
        rest, mark, query = url.partition("?")
        if mark:
            given = [each for each in query.split("&") if each.partition("=")[0] == _PARAMETER]
            for _, queue_type in parse_qsl("&".join(given)):
                if queue_type not in QUEUE_TYPES:
                    raise ValueError(f"{_PARAMETER} is none of {', '.join(QUEUE_TYPES)}")
            if given:
                query = "&".join(each for each in query.split("&") if each not in given)
                url = f"{rest}?{query}" if query else rest
        netloc = _netloc(url)
        if netloc is None:
            raise ValueError("it cannot be parsed (is a character of the password not percent-encoded?)")
        account, at, hosts = netloc.rpartition("@")
        scheme, separator, after = url.partition("://")
        if "," not in hosts or not separator:
            urls.append(url)
            continue
        path = after[len(netloc) :]
        urls += [f"{scheme}://{account}{at}{host.strip()}{path}" for host in hosts.split(",") if host.strip()]
    return BrokerAddress(tuple(urls), queue_type)


def _netloc(url: str) -> str | None:
    """Return account and hosts; None if they cannot be told apart: the text of that error may hold a password."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return None


def with_queue_type(address: str, queue_type: str) -> str:
    """Return an address that says what queues are to be, whatever it says now.

    Example:
        >>> with_queue_type("amqp://mq1,mq2/jobs?queue_type=auto", "quorum")
        'amqp://mq1/jobs,amqp://mq2/jobs?queue_type=quorum'
    """
    plain = ",".join(parse(address).urls)
    return f"{plain}{'&' if '?' in parse(address).urls[-1] else '?'}{_PARAMETER}={queue_type}"
