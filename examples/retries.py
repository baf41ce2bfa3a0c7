"""Tasks that fail: `python examples/retries.py [--address auto]`.

Which errors are tried again, how often, and what `get` raises in the end.
"""

import argparse
import os

import rabbitry
from rabbitry.actor import ActorHandle


class ServiceBusy(Exception):
    """What an overloaded service answers."""


@rabbitry.remote(num_cpus=0)
class Attempts:
    """Counts the attempts at something: they run in different processes, perhaps on different machines."""

    def __init__(self) -> None:
        self.count = 0

    def another(self) -> int:
        """Return how often this was called."""
        self.count += 1
        return self.count


@rabbitry.remote(max_retries=5, retry_exceptions=[ServiceBusy], retry_delay=0.05)
def fetch(attempts: ActorHandle) -> str:
    """Fail twice with an error that is worth another try; the pauses double: 0.05 s, 0.1 s, ..."""
    attempt = rabbitry.get(attempts.another.remote())
    if attempt < 3:
        raise ServiceBusy(f"attempt {attempt}")
    return f"answered at attempt {attempt}"


@rabbitry.remote(max_retries=5, retry_exceptions=[ServiceBusy])
def parse(text: str) -> int:
    """Fail with an error that no retry will cure: it is not in the list, so it is final."""
    return int(text)


@rabbitry.remote(max_retries=1)
def crash(attempts: ActorHandle) -> str:
    """Kill the process at the first attempt: `max_retries` covers that without further ado."""
    if rabbitry.get(attempts.another.remote()) == 1:
        os._exit(1)
    return "survived a crash"


def main() -> None:
    """Run all three and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", help="of a cluster (default: one on this machine)")
    options = parser.parse_args()
    with rabbitry.init(options.address):
        print(rabbitry.get(fetch.remote(Attempts.remote())))
        print(rabbitry.get(crash.remote(Attempts.remote())))
        try:
            rabbitry.get(parse.remote("twelve"))
        except ValueError as error:  # the user's own class, and a TaskError with the remote traceback too
            print("failed for good:", str(error).splitlines()[-1])


if __name__ == "__main__":
    main()
