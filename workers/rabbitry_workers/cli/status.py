"""`rabbitry status`: the cluster at a glance."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from rabbitry_workers.cli.output import print_data
from rabbitry_workers.cli.parsing import add_addresses, add_format, cluster_of

if TYPE_CHECKING:
    from rabbitry_workers.joining import Joining

NO_NODE = 3  # the exit code for a cluster that can be reached, and has no node


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    add_addresses(parser)
    add_format(parser, ("text", "json", "yaml"))
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")


def run(options: argparse.Namespace) -> int:
    """Print it; exit code 3 if no node lives."""
    from rabbitry_workers.status import collect, describe

    cluster = cluster_of(options)
    status = collect(cluster.endpoint, timeout=cluster.connect_timeout)
    status["tasks"] = _tasks(cluster)
    if options.format == "text":
        print(describe(status))
        counts = ", ".join(f"{count} {state}" for state, count in status["tasks"].items())
        print(f"tasks: {counts or 'none that is known'}")
    else:
        print_data(status, options.format)
    if any(node["state"] != "dead" for node in status["nodes"]):
        return 0
    print("rabbitry: no node is alive, so nothing runs: start one with `rabbitry start`", file=sys.stderr)
    return NO_NODE


def _tasks(cluster: Joining) -> dict[str, int]:
    """Return how many tasks are in which state, as events tell."""
    from collections import Counter

    from rabbitry.state.cluster import ClusterState

    with ClusterState(cluster.endpoint, timeout=cluster.connect_timeout) as state:
        rows, _ = state.tasks()
    return dict(Counter(row["state"] for row in rows).most_common())
