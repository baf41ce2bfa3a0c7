"""What commands that look at a cluster's state share: which cluster, kinds of things, filters."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rabbitry_workers.cli.parsing import add_addresses, cluster_of

if TYPE_CHECKING:
    from rabbitry.state.cluster import ClusterState
    from rabbitry.state.schemas import Filter

KINDS = (
    "actors", "cluster-events", "jobs", "nodes", "objects", "placement-groups", "runtime-envs", "tasks", "workers",
)  # fmt: skip


def add_seeing(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that all of these commands take."""
    add_addresses(parser)
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="to wait for Redis (default 30)")


@contextmanager
def state_of(options: argparse.Namespace) -> Iterator[ClusterState]:
    """Read the state of the cluster that the arguments name."""
    from rabbitry.state.cluster import ClusterState

    cluster = cluster_of(options)
    with ClusterState(cluster.endpoint, timeout=options.timeout) as state:
        yield state


def filter_of(text: str) -> Filter:
    """Return what `key=value` or `key!=value` means.

    Raises:
        argparse.ArgumentTypeError: it is neither.

    >>> filter_of("state=RUNNING"), filter_of("name!=f")
    (('state', '=', 'RUNNING'), ('name', '!=', 'f'))
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip("! "):
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value or key!=value")
    if key.endswith("!"):
        return key[:-1].strip(), "!=", value
    return key.strip(), "=", value
