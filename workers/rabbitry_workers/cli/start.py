"""`rabbitry start`: run a node."""

from __future__ import annotations

import argparse
import json

from rabbitry_workers.cli.parsing import add_addresses


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    add_addresses(parser)
    parser.add_argument("--num-cpus", type=float, metavar="N", help="CPUs it offers (default: the machine's)")
    parser.add_argument("--num-gpus", type=float, metavar="N", help="GPUs it offers (default: those found)")
    parser.add_argument("--memory", type=int, metavar="BYTES", help="memory it offers (default: most of the machine's)")
    parser.add_argument(
        "--resources", type=amounts, default={}, metavar="JSON", help='custom resources it offers: {"license": 2}'
    )
    parser.add_argument("--labels", type=labels, default={}, metavar="KEY=VALUE,...", help="its labels")
    parser.add_argument("--name", help="what people call it (default: the host's name)")
    parser.add_argument("--node-ip-address", metavar="IP", help="its address (default: what the system says)")
    parser.add_argument("--own-host", action="store_true", help=argparse.SUPPRESS)  # `Cluster` uses it, for tests
    parser.add_argument("--link", type=int, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Run the node until it leaves."""
    from rabbitry_workers.start import StartOptions, run_node

    known = {name: value for name, value in vars(options).items() if name != "command"}
    return run_node(StartOptions(**known))


def amounts(text: str) -> dict[str, float]:
    """Return resources, given as JSON."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise argparse.ArgumentTypeError(f"{text!r} is nested too deeply") from None
    except ValueError as error:  # no JSON, or a number of too many digits
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(value, dict) or not all(type(amount) in (int, float) for amount in value.values()):
        raise argparse.ArgumentTypeError(f'{text!r} is not an object of numbers such as {{"license": 2}}')
    return value


def labels(text: str) -> dict[str, str]:
    """Return labels, given as `key=value,key=value`."""
    found = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"{part!r} is not key=value")
        found[key.strip()] = value.strip()
    return found
