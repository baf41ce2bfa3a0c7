"""How many messages wait in the queues of a cluster, and how to throw them away."""

from __future__ import annotations

from typing import Final

from rabbitry.cluster import check_cluster
from rabbitry_broker import queue_names as names
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.queues.embedded import streams
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.reader import Reader
from rabbitry_workers.status import depths_of

PURGE_AT_ONCE: Final = 1000


def read_depths(endpoint: Endpoint, *, timeout: float) -> dict[str, int | None]:
    """Return the number of messages that wait in each queue; None for one that is gone.

    Raises:
        ConnectError: a server cannot be reached, or the cluster is not ours.
    """
    check_cluster(endpoint, timeout=timeout)
    with Reader(endpoint, timeout=timeout) as reader:
        queues = names.announced(reader.call(b"SMEMBERS", Keys.of(endpoint).queues))
        return depths_of(endpoint, reader, queues)


def purge(endpoint: Endpoint, queue: str, *, timeout: float) -> int:
    """Delete what waits in a queue and no node has been given; return how many messages that was.

    Raises:
        ConnectError: a server cannot be reached.
    """
    if endpoint.broker_url is None:
        with Reader(endpoint, timeout=timeout) as reader:
            return _purge_stream(endpoint, reader, queue)
    # Slow to import, and the embedded engine has no use for it.
    from rabbitry_broker.queues.rabbitmq.asking import connect

    broker = connect(endpoint.broker_url)
    try:
        purged = broker.channel().queue_purge(names.amqp_name(endpoint.prefix, queue))
        return int(purged.method.message_count)
    finally:
        broker.close()


def _purge_stream(endpoint: Endpoint, reader: Reader, queue: str) -> int:
    of_streams = streams.Keys(endpoint.prefix)
    purged = 0
    for level in {streams.BASE, *reader.call(b"SMEMBERS", of_streams.levels(queue))}:
        stream = of_streams.stream(queue, level)
        if not reader.call(b"EXISTS", stream):
            continue
        taken = b"0"  # the last that was given to a node
        for group in reader.call(b"XINFO", b"GROUPS", stream):
            taken = dict(zip(group[::2], group[1::2], strict=True))[b"last-delivered-id"]
        while found := reader.call(b"XRANGE", stream, b"(" + taken, b"+", b"COUNT", PURGE_AT_ONCE):
            purged += reader.call(b"XDEL", stream, *[each[0] for each in found])
    return purged
