"""A driver that leaves work behind: `python driver.py <address> <file of effects> <tag>`; see `test_processes.py`.

It prints a line when everything is submitted, and then waits to be killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import rabbitry
from tests.chaos.workload import Echo, join, long

DETACHED_CHAINS = 5


def names(tag: str) -> set[str]:
    """Return what the detached chains of a driver with that tag leave among the effects."""
    return {f"detached-{tag}{number}.1" for number in range(DETACHED_CHAINS)}


def abandon_work(address: str, path: str, tag: str = "") -> None:
    """Start such a driver, and kill it when it has submitted everything."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, __file__, address, path, tag]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"submitted\n"
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def main(address: str, path: str, tag: str) -> None:
    """Submit detached and other work; the tag is part of all names."""
    rabbitry.init(address=address, namespace="chaos", log_to_driver=False)
    options = {"lifetime": "detached", "max_restarts": -1, "max_task_retries": -1}
    Echo.options(name=f"detached{tag}", **options).remote(path)
    mine = Echo.options(name=f"mine{tag}").remote(path)
    rabbitry.get(mine.say.remote(f"mine{tag}", 1))
    for number in range(DETACHED_CHAINS):
        first = long.options(lifetime="detached").remote(path, f"detached-{tag}{number}.0", 1.0)
        join.options(lifetime="detached").remote(path, f"detached-{tag}{number}.1", first, first)
    time.sleep(0.3)  # the outbox is sent within milliseconds; `.remote()` does not wait for it
    print("submitted", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])
