"""A pipeline that outlives the program which submits it: `python examples/detached_pipeline.py [--address auto]`.

Three programs: the first submits detached tasks and ends at once; the second, later, collects the result by the text of
its ref; this one starts both, one after the other. On the embedded engine it also holds the session that they join,
which ends with the program that started it; with `--address` the cluster is there anyway.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

import rabbitry

WORDS = "the quick brown fox jumps over the lazy dog and the dog sleeps on"


@rabbitry.remote(lifetime="detached", num_cpus=0.5)
def split(text: str) -> list[str]:
    """Take a text apart."""
    return text.split()


@rabbitry.remote(lifetime="detached", num_cpus=0.5)
def count(words: list[str]) -> dict[str, int]:
    """Count words."""
    return {word: words.count(word) for word in dict.fromkeys(words)}


@rabbitry.remote(lifetime="detached", num_cpus=0.5)
def merge(*counts: dict[str, int]) -> list[tuple[str, int]]:
    """Merge counts; most frequent first."""
    total: dict[str, int] = {}
    for each in counts:
        for word, number in each.items():
            total[word] = total.get(word, 0) + number
    return sorted(total.items(), key=lambda item: (-item[1], item[0]))


def submit(parts: int) -> None:
    """Submit the pipeline, print the text of its last ref, and leave."""
    result = merge.remote(*[count.remote(split.remote(WORDS)) for _ in range(parts)])
    print(result.hex())


def collect(text: str) -> None:
    """Print the result as a table."""
    rows = rabbitry.get(rabbitry.ObjectRef.from_hex(text), timeout=60)
    for word, number in rows[:5]:
        print(f"{word:<8}{number:>6}  {'#' * round(30 * number / rows[0][1])}")


def run(*arguments: str, address: str) -> str:
    """Run this program in a process of its own; return what it printed."""
    command = [sys.executable, __file__, "--address", address, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ).stdout


def main() -> None:
    """Play the part that the command line names."""
    parser = argparse.ArgumentParser(description="Detached tasks: submitted by one program, collected by another.")
    parser.add_argument("--address", help="of a cluster (default: one on this machine)")
    parser.add_argument("--parts", type=int, default=10, help="of the pipeline")
    parser.add_argument("--submit", action="store_true", help="submit, print the ref, leave")
    parser.add_argument("--collect", metavar="REF", help="wait for the result of a ref")
    options = parser.parse_args()
    with rabbitry.init(options.address) as context:
        if options.submit:
            submit(options.parts)
        elif options.collect:
            collect(options.collect)
        else:
            address = options.address or context.address_info["address"]
            text = run("--submit", "--parts", str(options.parts), address=address).strip()
            print("the program that submitted the work has ended\n")
            print(run("--collect", text, address=address), end="")


if __name__ == "__main__":
    main()
