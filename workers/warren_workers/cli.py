"""The command line: `warren start` runs a node, `warren status` shows the cluster, `warren stop` has nodes leave.

Secrets come from the environment or `.env` only, and passwords better do: a command line is readable by every user of
the machine. What is wrong is said in one line on standard error, with exit code 1 (2 for a wrong command line).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: of the command line; None for the process's own.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    from warren_broker.errors import WarrenBrokerError

    _warn_of_passwords(options)
    try:
        if options.command == "start":
            return _start(options)
        commands = {"stop": _stop, "status": _status, "health": _health}
        return commands[options.command](options)
    except (WarrenBrokerError, ValueError) as error:
        print(f"warren: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="warren", description="Ray's programming model on RabbitMQ and Redis.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    start = commands.add_parser("start", help="run a node of the cluster in the foreground")
    _add_addresses(start)
    start.add_argument("--num-cpus", type=float, metavar="N", help="CPUs it offers (default: the machine's)")
    start.add_argument("--num-gpus", type=float, metavar="N", help="GPUs it offers (default: those found)")
    start.add_argument("--memory", type=int, metavar="BYTES", help="memory it offers (default: most of the machine's)")
    start.add_argument(
        "--resources", type=_amounts, default={}, metavar="JSON", help='custom resources it offers: {"license": 2}'
    )
    start.add_argument("--labels", type=_labels, default={}, metavar="KEY=VALUE,...", help="its labels")
    start.add_argument("--name", help="what people call it (default: the host's name)")
    start.add_argument("--link", type=int, help=argparse.SUPPRESS)
    status = commands.add_parser("status", help="show nodes, queues, clients and messages put aside")
    _add_addresses(status)
    status.add_argument("--json", action="store_true", help="machine-readable")
    health = commands.add_parser("health", help="exit with 0 if this host's node is alive (for health checks)")
    _add_addresses(health)
    health.add_argument("--name", help="of the node (default: the host's name)")
    stop = commands.add_parser("stop", help="have nodes finish what they run and leave")
    _add_addresses(stop)
    stop.add_argument("nodes", nargs="*", metavar="NODE", help="id (or its beginning) or name")
    stop.add_argument("--all", action="store_true", help="all nodes of the cluster")
    return parser


def _add_addresses(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", metavar="URL", help="RabbitMQ (default: WARREN_BROKER_URL), or unix:///directory")
    parser.add_argument("--store", metavar="URL", help="Redis (default: WARREN_STORE_URL)")
    parser.add_argument("--prefix", help="of keys and queues (default: WARREN_PREFIX, else warren:)")


def _warn_of_passwords(options: argparse.Namespace) -> None:
    from urllib.parse import urlsplit

    for argument, variable in (("address", "WARREN_BROKER_URL"), ("store", "WARREN_STORE_URL")):
        try:
            password = urlsplit(getattr(options, argument) or "").password
        except ValueError:
            password = None  # it cannot be taken apart, and is refused further on
        if password:
            logging.getLogger("warren").warning(
                "every user of this machine can read the password in --%s: set %s instead", argument, variable
            )


def _amounts(text: str) -> dict[str, float]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(value, dict) or not all(type(amount) in (int, float) for amount in value.values()):
        raise argparse.ArgumentTypeError(f'{text!r} is not an object of numbers such as {{"license": 2}}')
    return value


def _labels(text: str) -> dict[str, str]:
    labels = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"{part!r} is not key=value")
        labels[key.strip()] = value.strip()
    return labels


def _start(options: argparse.Namespace) -> int:
    from warren_workers.start import StartOptions, run_node

    known = {name: value for name, value in vars(options).items() if name != "command"}
    return run_node(StartOptions(**known))


def _health(options: argparse.Namespace) -> int:
    from warren_workers.health import check
    from warren_workers.joining import find_cluster

    cluster = find_cluster(options.address, options.store, options.prefix)
    wrong = check(cluster.endpoint, options.name, timeout=cluster.connect_timeout)
    if wrong:
        print(wrong, file=sys.stderr)
    return int(bool(wrong))


def _status(options: argparse.Namespace) -> int:
    from warren_workers.joining import find_cluster
    from warren_workers.status import collect, describe

    cluster = find_cluster(options.address, options.store, options.prefix)
    status = collect(cluster.endpoint, timeout=cluster.connect_timeout)
    print(json.dumps(status, indent=1) if options.json else describe(status))
    return 0


def _stop(options: argparse.Namespace) -> int:
    from warren_workers.joining import find_cluster
    from warren_workers.stop import stop_nodes

    if options.all == bool(options.nodes):
        raise ValueError("say which nodes to stop, by name or id as `warren status` shows them, or --all")
    cluster = find_cluster(options.address, options.store, options.prefix)
    for name in stop_nodes(cluster.endpoint, None if options.all else options.nodes, timeout=cluster.connect_timeout):
        print(f"node {name} was asked to leave")
    return 0


if __name__ == "__main__":
    sys.exit(main())
