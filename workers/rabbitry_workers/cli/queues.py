"""`rabbitry queues`: what waits in them; `purge` throws that away."""

from __future__ import annotations

import argparse
import sys

from rabbitry_workers.cli.output import confirm, print_data, print_table
from rabbitry_workers.cli.parsing import add_addresses, add_format, cluster_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="action")
    listing = commands.add_parser("list", help="show the queues and how many messages wait in each")
    add_addresses(listing)
    add_format(listing)
    purge = commands.add_parser("purge", help="throw away the messages that wait in queues, for good")
    purge.add_argument("queues", nargs="+", metavar="QUEUE", help="as `rabbitry queues list` shows it")
    purge.add_argument("-y", "--yes", action="store_true", help="do not ask")
    add_addresses(purge)


def run(options: argparse.Namespace) -> int:
    """List, or ask and purge."""
    from rabbitry_workers.queue_depths import purge, read_depths

    cluster = cluster_of(options)
    depths = read_depths(cluster.endpoint, timeout=cluster.connect_timeout)
    if options.action == "list":
        if options.format == "table":
            rows = sorted(depths.items(), key=lambda each: (-(each[1] or 0), each[0]))
            print_table(("MESSAGES", "QUEUE"), [(str(0 if depth is None else depth), queue) for queue, depth in rows])
        else:
            print_data(depths, options.format)
        return 0
    for queue in options.queues:
        if depths.get(queue) is None:
            from rabbitry.suggestions import closest

            raise ValueError(f"there is no queue {queue!r}.{closest(queue, depths)}")
    total = sum(depths[queue] or 0 for queue in options.queues)
    what = f"{total} messages in {', '.join(options.queues)}"
    print("Their tasks never run, and whoever waits for their results waits for ever.", file=sys.stderr)
    if not confirm(f"Throw away {what}?", yes=options.yes):
        print("nothing was done", file=sys.stderr)
        return 1
    for queue in options.queues:
        print(f"{queue}: {purge(cluster.endpoint, queue, timeout=cluster.connect_timeout)} messages were thrown away")
    return 0
