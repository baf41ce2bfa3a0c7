"""`rabbitry autoscale`: have a command start and stop nodes, as many as the work needs."""

from __future__ import annotations

import argparse

from rabbitry_workers.cli.parsing import add_addresses, cluster_of
from rabbitry_workers.cli.start import amounts, labels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    add_addresses(parser)
    parser.add_argument("--min", dest="least", type=int, default=1, metavar="N", help="nodes at least (default: 1)")
    parser.add_argument("--max", dest="most", type=int, required=True, metavar="N", help="nodes at most")
    parser.add_argument("--idle", type=float, default=60.0, metavar="S", help="seconds until an idle node may go (60)")
    parser.add_argument("--every", type=float, default=2.0, metavar="S", help="seconds between two looks (2)")
    parser.add_argument("--joining", type=float, default=120.0, metavar="S", help="seconds a node has to join (120)")
    parser.add_argument(
        "--labels", type=labels, default={}, metavar="KEY=VALUE,...", help="count only nodes that have these"
    )
    parser.add_argument(
        "--resources", type=amounts, metavar="JSON", help='what a new node has: {"CPU": 2} (default: as the newest)'
    )
    parser.add_argument("--retire", default="", metavar="LINE", help="has sh stop the node {host} (default: a message)")
    parser.add_argument("run", nargs="+", metavar="COMMAND", help="has there be {n} nodes")


def run(options: argparse.Namespace) -> int:
    """Scale until the process is ended."""
    from rabbitry_workers import autoscale

    named = ("least", "most", "idle", "every", "joining", "labels", "resources", "retire")
    told = autoscale.ScalerOptions(command=options.run, **{name: getattr(options, name) for name in named})
    cluster = cluster_of(options)
    autoscale.run(cluster.endpoint, told, timeout=cluster.connect_timeout)
    return 0
