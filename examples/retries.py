"""Tasks that fail: which errors are tried again, how often, and what `get` raises in the end."""

import os
import tempfile
from pathlib import Path

import warren


class ServiceBusy(Exception):
    """What an overloaded service answers."""


def attempt_number(counter: str) -> int:
    """Return how often this was called with this file; attempts may run in different processes."""
    with open(counter, "a", encoding="ascii") as file:
        file.write(".")
    return Path(counter).stat().st_size


@warren.remote(max_retries=5, retry_exceptions=[ServiceBusy], retry_delay=0.05)
def fetch(counter: str) -> str:
    """Fail twice with an error that is worth another try; the pauses double: 0.05 s, 0.1 s, ..."""
    attempt = attempt_number(counter)
    if attempt < 3:
        raise ServiceBusy(f"attempt {attempt}")
    return f"answered at attempt {attempt}"


@warren.remote(max_retries=5, retry_exceptions=[ServiceBusy])
def parse(text: str) -> int:
    """Fail with an error that no retry will cure: it is not in the list, so it is final."""
    return int(text)


@warren.remote(max_retries=1)
def crash(counter: str) -> str:
    """Kill the process at the first attempt: `max_retries` covers that without further ado."""
    if attempt_number(counter) == 1:
        os._exit(1)
    return "survived a crash"


def main() -> None:
    """Run all three and print what came of them."""
    with tempfile.TemporaryDirectory() as directory, warren.init(num_cpus=2):
        print(warren.get(fetch.remote(os.path.join(directory, "fetch"))))
        print(warren.get(crash.remote(os.path.join(directory, "crash"))))
        try:
            warren.get(parse.remote("twelve"))
        except ValueError as error:  # the user's own class, and a TaskError with the remote traceback too
            print("failed for good:", str(error).splitlines()[-1])


if __name__ == "__main__":
    main()
