"""A driver that leaves work behind: `python driver.py <address> <file of effects>`; see `test_processes.py`.

It prints a line when everything is submitted, and then waits to be killed.
"""

from __future__ import annotations

import sys
import time

import warren
from tests.chaos.workload import Echo, join, long

DETACHED_CHAINS = 5


def main(address: str, path: str) -> None:
    """Submit detached and other work."""
    warren.init(address=address, namespace="chaos", log_to_driver=False)
    Echo.options(name="detached", lifetime="detached").remote(path)
    mine = Echo.options(name="mine").remote(path)
    warren.get(mine.say.remote("mine", 1))
    for number in range(DETACHED_CHAINS):
        first = long.options(lifetime="detached").remote(path, f"detached-{number}.0", 1.0)
        join.options(lifetime="detached").remote(path, f"detached-{number}.1", first, first)
    time.sleep(0.3)  # the outbox is sent within milliseconds; `.remote()` does not wait for it
    print("submitted", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
