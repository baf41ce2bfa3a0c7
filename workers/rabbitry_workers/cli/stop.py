"""`rabbitry stop`: have nodes leave."""

from __future__ import annotations

import argparse

from rabbitry_workers.cli.parsing import add_addresses, cluster_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    add_addresses(parser)
    parser.add_argument("nodes", nargs="*", metavar="NODE", help="id (or its beginning) or name")
    parser.add_argument("--all", action="store_true", help="all nodes of the cluster")


def run(options: argparse.Namespace) -> int:
    """Ask them to leave."""
    from rabbitry_workers.stop import stop_nodes

    if options.all == bool(options.nodes):
        raise ValueError("say which nodes to stop, by name or id as `rabbitry status` shows them, or --all")
    cluster = cluster_of(options, newest=False)
    for name in stop_nodes(cluster.endpoint, None if options.all else options.nodes, timeout=cluster.connect_timeout):
        print(f"node {name} was asked to leave")
    return 0
