"""Code written for the standard library, on a cluster: `python examples/pools.py [--address auto]`.

A process pool, an executor, a queue.
"""

import argparse
import os
from concurrent.futures import as_completed

import rabbitry
from rabbitry.util import Executor
from rabbitry.util.multiprocessing import Pool
from rabbitry.util.queue import Queue

words: dict[str, int] = {}


def load(text: str) -> None:
    """Prepare a process, once: what it sets is there for all calls."""
    global words
    words = {word: len(word) for word in text.split()}


def length(word: str) -> tuple[int, int]:
    """Look something up in what the process loaded; also say which process it was."""
    return words[word], os.getpid()


@rabbitry.remote
def produce(queue: Queue, count: int) -> None:
    """Fill a queue that takes few items: `put` waits for the consumer."""
    for number in range(count):
        queue.put(number)


def main() -> None:
    """Use all three."""
    text = "tasks actors objects"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", help="of a cluster (default: one on this machine)")
    options = parser.parse_args()
    with rabbitry.init(options.address):
        with Pool(2, initializer=load, initargs=(text,)) as pool:
            results = pool.map(length, text.split(), chunksize=1)
            print("lengths:", [result for result, _ in results])

        with Executor() as executor:
            futures = {executor.submit(pow, 2, exponent): exponent for exponent in range(5)}
            print("powers:", sorted(future.result() for future in as_completed(futures)))

        queue = Queue(maxsize=2)
        done = produce.remote(queue, 10)
        print("sum of the queue:", sum(queue.get() for _ in range(10)))
        rabbitry.get(done)


if __name__ == "__main__":
    main()
