"""`rabbitry microbenchmark`: how fast a cluster, or an embedded session, does small things."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from rabbitry_workers.cli.acting import driver
from rabbitry_workers.cli.output import print_data, print_table
from rabbitry_workers.cli.parsing import add_addresses, add_format


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    parser.add_argument("--seconds", type=float, default=1.0, help="for each measurement, about (default 1)")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only measurements whose name holds this")
    add_format(parser)
    add_addresses(parser)


def run(options: argparse.Namespace) -> int:
    """Measure; without an address, an embedded session of its own."""
    if not options.seconds > 0:
        raise ValueError(f"--seconds {options.seconds:g} must be more than 0")
    options.address = options.address or "local"
    with driver(options):
        found = [
            {"what": name, "per_second": round(rate(operation, count, options.seconds), 1)}
            for name, (operation, count) in _operations().items()
            if options.filter in name
        ]
    if options.format == "table":
        print_table(("PER SECOND", "WHAT"), [(f"{each['per_second']:,.0f}", str(each["what"])) for each in found])
    else:
        print_data(found, options.format)
    return 0


def rate(operation: Callable[[], object], count: int, seconds: float) -> float:
    """Return how often something happens a second.

    Args:
        operation: does it `count` times; it is called once before the clock starts.
        count: how often it does.
        seconds: to go on for, at least.
    """
    operation()
    begin, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - begin) < seconds:
        operation()
        done += count
    return done / passed


def _operations() -> dict[str, tuple[Callable[[], object], int]]:
    import rabbitry

    @rabbitry.remote
    def nothing() -> None:
        return None

    @rabbitry.remote(num_cpus=0)
    class Counter:
        def nothing(self) -> None:
            return None

    actor = Counter.remote()  # type: ignore[attr-defined]
    small, large = rabbitry.put(b"x"), bytes(10 << 20)
    return {
        "get of a small object": (lambda: rabbitry.get(small), 1),
        "put of a small object": (lambda: rabbitry.put(b"x"), 1),
        "put of 10 MiB": (lambda: rabbitry.put(large), 1),
        "one task at a time": (lambda: rabbitry.get(nothing.remote()), 1),
        "1,000 tasks at once": (lambda: rabbitry.get([nothing.remote() for _ in range(1000)]), 1000),
        "one call of an actor at a time": (lambda: rabbitry.get(actor.nothing.remote()), 1),
        "1,000 calls of an actor at once": (lambda: rabbitry.get([actor.nothing.remote() for _ in range(1000)]), 1000),
    }
