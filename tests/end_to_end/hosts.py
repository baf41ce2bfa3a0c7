"""Clusters on RabbitMQ and Redis whose nodes may be as on hosts of their own: they share no memory."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rabbitry.cluster_utils import Cluster, ClusterNode
from rabbitry.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@contextmanager
def cluster_without_nodes(request: pytest.FixtureRequest, **options: Any) -> Iterator[Cluster]:
    """Yield a cluster on a virtual host of its own; at the end nothing of it may be left in the store."""
    store, broker = request.getfixturevalue("store"), request.getfixturevalue("rabbitmq_server")
    vhost = f"hosts-{secrets.token_hex(4)}"
    before = store.keys()
    url = broker.add_vhost(vhost)
    try:
        with Cluster(engine="rabbitmq", broker_url=url, store_url=store.url, **options) as cluster:
            yield cluster
        assert store.keys() <= before
    finally:
        broker.delete_vhost(vhost)


def on(node: ClusterNode, function: Any) -> Any:
    """Return a remote function or class that runs on that node alone."""
    return function.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False))
