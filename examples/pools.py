"""Code written for the standard library, on a cluster: a process pool, an executor, a queue."""

import os
from concurrent.futures import as_completed

import warren
from warren.util import Executor
from warren.util.multiprocessing import Pool
from warren.util.queue import Queue

words: dict[str, int] = {}


def load(text: str) -> None:
    """Prepare a process, once: what it sets is there for all calls."""
    global words
    words = {word: len(word) for word in text.split()}


def length(word: str) -> tuple[int, int]:
    """Look something up in what the process loaded; also say which process it was."""
    return words[word], os.getpid()


@warren.remote
def produce(queue: Queue, count: int) -> None:
    """Fill a queue that takes few items: `put` waits for the consumer."""
    for number in range(count):
        queue.put(number)


def main() -> None:
    """Use all three."""
    text = "tasks actors objects"
    with warren.init(num_cpus=2):
        with Pool(2, initializer=load, initargs=(text,)) as pool:
            results = pool.map(length, text.split(), chunksize=1)
            print("lengths:", [result for result, _ in results])

        with Executor() as executor:
            futures = {executor.submit(pow, 2, exponent): exponent for exponent in range(5)}
            print("powers:", sorted(future.result() for future in as_completed(futures)))

        queue = Queue(maxsize=2)
        done = produce.remote(queue, 10)
        print("sum of the queue:", sum(queue.get() for _ in range(10)))
        warren.get(done)


if __name__ == "__main__":
    main()
