"""`rabbitry health`: whether this host's node is alive."""

from __future__ import annotations

import argparse
import sys

from rabbitry_workers.cli.parsing import add_addresses, cluster_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    add_addresses(parser)
    parser.add_argument("--name", help="of the node (default: the host's name)")


def run(options: argparse.Namespace) -> int:
    """Say what is wrong; exit code 1 if anything is."""
    from rabbitry_workers.health import check

    # The newest session of this machine would not be the node of this container.
    cluster = cluster_of(options, newest=False)
    wrong = check(cluster.endpoint, options.name, timeout=cluster.connect_timeout)
    if wrong:
        print(wrong, file=sys.stderr)
    return int(bool(wrong))
