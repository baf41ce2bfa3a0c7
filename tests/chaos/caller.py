"""A driver of its own: `python caller.py <address> <actor's name> <calls> <file>`; see `test_durable.py`.

Increments the named actor, a few calls at a time, and writes each number that it is told to the file, one a line.
"""

from __future__ import annotations

import sys
from itertools import islice

import rabbitry

CALLS_IN_FLIGHT = 25


def main(address: str, name: str, calls: int, path: str) -> None:
    """Call as often as asked; every number is on disk before the next batch of calls."""
    rabbitry.init(address=address, namespace="chaos", log_to_driver=False)
    counter = rabbitry.get_actor(name)
    numbers = iter(range(calls))
    with open(path, "w") as file:
        while batch := list(islice(numbers, CALLS_IN_FLIGHT)):
            for told in rabbitry.get([counter.increment.remote() for _ in batch]):
                file.write(f"{told}\n")
            file.flush()
    rabbitry.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
