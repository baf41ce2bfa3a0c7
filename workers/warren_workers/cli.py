"""The command line: `warren start` runs a node, `warren status` shows the cluster.

Secrets and passwords come from the environment or `.env` only: a command line is readable by every user of the machine.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

DRAIN_VARIABLE = "WARREN_DRAIN_SECONDS"
DRAIN_SECONDS = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="warren", description="Ray's programming model on RabbitMQ and Redis.")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="run a node of the cluster in the foreground")
    _add_addresses(start)
    start.add_argument("--num-cpus", type=float, help="CPUs it offers (default: the machine's)")
    start.add_argument("--num-gpus", type=float, help="GPUs it offers (default: those found)")
    start.add_argument("--memory", type=int, help="memory it offers, in bytes (default: most of the machine's)")
    start.add_argument("--resources", type=_json_object, default={}, help='custom resources, as JSON: {"license": 2}')
    start.add_argument("--labels", type=_labels, default={}, help="labels: key=value,key=value")
    start.add_argument("--name", help="name of the node (default: the host's name)")
    status = commands.add_parser("status", help="show nodes, queues and messages put aside")
    _add_addresses(status)
    status.add_argument("--json", action="store_true", help="machine-readable")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        return _start(options) if options.command == "start" else _status(options)
    except Exception as error:
        from warren_broker.errors import WarrenBrokerError

        if isinstance(error, (WarrenBrokerError, ValueError)):
            print(f"warren: {error}", file=sys.stderr)
            return 1
        raise


def _add_addresses(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", help="RabbitMQ's URL without password (default: WARREN_BROKER_URL)")
    parser.add_argument("--store", help="Redis' URL without password (default: WARREN_STORE_URL)")
    parser.add_argument("--prefix", help="prefix of keys and queues (default: WARREN_PREFIX, else warren:)")


def _json_object(text: str) -> dict[str, float]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is not an object such as {{"license": 2}}')
    return value


def _labels(text: str) -> dict[str, str]:
    labels = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"{part!r} is not key=value")
        labels[key.strip()] = value.strip()
    return labels


def _start(options: argparse.Namespace) -> int:
    from warren.labels import check_labels
    from warren_workers.node.forker import fork_template

    labels = check_labels(options.labels)
    # First of all: the template must be forked before this process has threads or connections.
    template = fork_template()
    from warren.cluster import check_cluster
    from warren_broker.resources import detect_totals
    from warren_broker.settings import Settings
    from warren_broker.store.host import shared_session

    settings = Settings.load(options.address, options.store, prefix=options.prefix)
    totals = detect_totals(options.num_cpus, options.num_gpus, options.memory, options.resources).to_floats()
    endpoint = settings.endpoint()
    check_cluster(endpoint, timeout=settings.connect_timeout)
    from warren_workers.node.agent import Agent
    from warren_workers.node.config import NodeConfig

    log = logging.getLogger("warren.node")
    config = NodeConfig(
        endpoint=endpoint,
        totals=totals,
        labels=labels,
        session=shared_session(endpoint),
        object_ttl=settings.object_ttl or 0.0,
        lease=settings.node_lease,
    )
    if options.name:
        config.name = options.name
    agent = Agent(
        config,
        template,
        ready=lambda: log.info("node %s takes work: %s", config.node_id.hex()[:8], _resources(totals)),
    )
    _drain_on_signals(agent)
    agent.run()
    log.info("node %s has left", config.node_id.hex()[:8])
    return 0


def _drain_on_signals(agent: Any) -> None:
    """The first SIGTERM or SIGINT drains, the second ends at once."""
    asked = False
    limit = float(os.environ.get(DRAIN_VARIABLE, DRAIN_SECONDS))

    def on_signal(*_: Any) -> None:
        nonlocal asked
        if asked:
            agent.loop.add_callback(agent.stop)
            return
        asked = True
        agent.loop.add_callback(agent.drain)
        agent.loop.add_callback(lambda: agent.loop.call_later(limit, agent.stop))

    # Python runs the handler between two bytecodes of the main thread, which is the loop's: a wakeup descriptor gets it
    # out of its poll.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)


def _resources(amounts: dict[str, float]) -> str:
    return ", ".join(f"{name}={amount:g}" for name, amount in amounts.items())


def _status(options: argparse.Namespace) -> int:
    from warren.cluster import check_cluster
    from warren_broker.settings import Settings
    from warren_workers.status import collect

    settings = Settings.load(options.address, options.store, prefix=options.prefix)
    endpoint = settings.endpoint()
    check_cluster(endpoint, timeout=settings.connect_timeout)
    status = collect(endpoint)
    if options.json:
        print(json.dumps(status, indent=1))
        return 0
    print(f"{len(status['nodes'])} nodes")
    for node in status["nodes"]:
        used = ", ".join(
            f"{name} {total - node['available'].get(name, 0.0):g}/{total:g}" for name, total in node["totals"].items()
        )
        state = "alive" if node["alive"] else "dead"
        print(f"  {node['id'][:8]}  {node['name']:<20} {state:<6} {used}  up {time.time() - node['started']:.0f} s")
    print(f"{len(status['queues'])} queues")
    for queue, depth in status["queues"].items():
        print(f"  {queue:<48} {depth if depth is not None else '?':>8} waiting")
    print(f"{status['clients']} clients, {status['actors']} actors")
    print(f"{status['put_aside']} messages put aside")
    for line in status["put_aside_last"]:
        print(f"  {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
