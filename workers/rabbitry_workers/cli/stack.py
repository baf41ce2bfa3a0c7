"""`rabbitry stack`: where executors are in their code now."""

from __future__ import annotations

import argparse
import sys

from rabbitry_workers.cli.parsing import add_addresses, cluster_of

STACK_SECONDS = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    add_addresses(parser)
    parser.add_argument("--node", metavar="NODE", help="only of this node: id (or its beginning), name or host")
    parser.add_argument("--pid", type=int, default=0, help="only of this process")
    parser.add_argument("--native", action="store_true", help="frames of C code too")
    parser.add_argument("--locals", action="store_true", help="local variables too")
    parser.add_argument("--idle", action="store_true", help="of executors that run nothing, too")


def run(options: argparse.Namespace) -> int:
    """Print them; exit code 1 if a node cannot say."""
    from rabbitry.node_logs import living_nodes
    from rabbitry.node_requests import NodeRefused, NodeRequests
    from rabbitry_broker.terminal import printable

    cluster = cluster_of(options)
    asked = {name: getattr(options, name) for name in ("pid", "native", "locals", "idle")}
    code, count = 0, 0
    with NodeRequests(cluster.endpoint, timeout=cluster.connect_timeout) as requests:
        nodes = living_nodes(requests, cluster.endpoint, options.node)
        answers = requests.ask_all([each["id"] for each in nodes], "stack", asked, timeout=STACK_SECONDS)
    for node in nodes:
        answer = answers.get(node["id"], NodeRefused("it did not answer"))
        if isinstance(answer, NodeRefused):
            print(f"rabbitry: node {node['name']}: {answer}", file=sys.stderr)
            code = 1
            continue
        for pid, what, text, error in answer:
            count += 1
            print(f"node {node['id'].hex()[:8]} ({printable(node['name'])}), {printable(what)}")
            print(printable(text, keep="\n\t") if text else f"process {pid}")
            if error:
                print(f"rabbitry: process {pid}: {printable(error)}", file=sys.stderr)
                code = 1
    if not count and not code:
        print("no executor runs anything; --idle shows those that wait", file=sys.stderr)
    return code
