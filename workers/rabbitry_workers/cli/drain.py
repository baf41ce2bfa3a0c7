"""`rabbitry drain`: have one node finish what it runs and leave."""

from __future__ import annotations

import argparse

from rabbitry_workers.cli.parsing import add_addresses, cluster_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    parser.add_argument("node", metavar="NODE", help="id (or its beginning) or name")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="wait so long for it to be gone")
    add_addresses(parser)


def run(options: argparse.Namespace) -> int:
    """Ask it to leave; exit code 1 if it is still there after `--wait`."""
    import sys

    from rabbitry_workers.stop import stop_nodes, wait_until_gone

    cluster = cluster_of(options)
    asked = stop_nodes(cluster.endpoint, [options.node], timeout=cluster.connect_timeout)
    for name in asked:
        print(f"node {name} was asked to leave")
    if options.wait and not wait_until_gone(cluster.endpoint, options.node, options.wait):
        print(f"rabbitry: node {options.node} is still at work after {options.wait:g} s", file=sys.stderr)
        return 1
    return 0
