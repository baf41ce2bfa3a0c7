r"""A diamond of tasks: `python examples/dependencies.py [--address auto]`.

Refs are passed as arguments, and each task runs when its arguments are there.

         numbers
        /       \
    total      largest
        \       /
         report

Nothing waits here for `numbers`: whoever finishes it lets the next two go, whatever this program does meanwhile.
"""

import argparse

import rabbitry


@rabbitry.remote
def numbers(count: int) -> list[int]:
    """Return what the others work on."""
    return [(7 * i) % 101 for i in range(count)]


@rabbitry.remote
def total(values: list[int]) -> int:
    """Return the sum."""
    return sum(values)


@rabbitry.remote
def largest(values: list[int]) -> int:
    """Return the largest."""
    return max(values)


@rabbitry.remote
def report(count: int, summed: int, most: int) -> str:
    """Put the two branches together."""
    return f"{count} numbers, sum {summed}, largest {most}"


def main() -> None:
    """Submit all four tasks at once and wait for the last one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", help="of a cluster (default: one on this machine)")
    options = parser.parse_args()
    with rabbitry.init(options.address):
        values = numbers.remote(1000)
        text = report.remote(1000, total.remote(values), largest.remote(values))
        print(rabbitry.get(text))


if __name__ == "__main__":
    main()
