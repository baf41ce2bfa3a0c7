"""The first program: a function, four tasks, their results. Run it: `python examples/hello.py [--address auto]`."""

import argparse
import os

import rabbitry


@rabbitry.remote
def square(x: int) -> tuple[int, int]:
    """Return x squared, and the process that did it."""
    return x * x, os.getpid()


def main() -> None:
    """Run four tasks at the same time as this process goes on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", help="of a cluster (default: one on this machine)")
    options = parser.parse_args()
    with rabbitry.init(options.address):
        refs = [square.remote(x) for x in range(4)]  # returns at once: refs stand for results to come
        results = rabbitry.get(refs)  # waits for them
        print("squares:", [value for value, _ in results])
        print("done by other processes:", os.getpid() not in {pid for _, pid in results})


if __name__ == "__main__":
    main()
