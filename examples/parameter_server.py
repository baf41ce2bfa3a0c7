"""A parameter server: `python examples/parameter_server.py [--address auto] [--rounds 30]`.

The weights of a model live in an actor. Workers, each with a part of the data, fetch the weights, compute a gradient
and send it back, without waiting for each other. The model is a logistic regression in plain Python.
"""

from __future__ import annotations

import argparse
import math
import random

import rabbitry

FEATURES = 8
RATE = 0.05


def data(count: int, seed: int) -> list[tuple[list[float], int]]:
    """Return examples of a rule with some noise: features, and 0 or 1."""
    at_random = random.Random(seed)
    rule = [random.Random(each).uniform(-2, 2) for each in range(FEATURES)]
    examples = []
    for _ in range(count):
        features = [at_random.gauss(0, 1) for _ in range(FEATURES)]
        score = sum(w * x for w, x in zip(rule, features, strict=True)) + at_random.gauss(0, 0.5)
        examples.append((features, int(score > 0)))
    return examples


def probability(weights: list[float], features: list[float]) -> float:
    """Return how sure the model is of a 1."""
    score = sum(w * x for w, x in zip(weights, features, strict=True))
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))


@rabbitry.remote(num_cpus=0)
class Server:
    """Holds the weights."""

    def __init__(self) -> None:
        self.weights = [0.0] * FEATURES
        self.updates = 0

    def fetch(self) -> list[float]:
        """Return the weights."""
        return self.weights

    def push(self, gradient: list[float]) -> list[float]:
        """Take one step; return the new weights."""
        self.weights = [w - RATE * g for w, g in zip(self.weights, gradient, strict=True)]
        self.updates += 1
        return self.weights


@rabbitry.remote
def gradient(weights: list[float], examples: list[tuple[list[float], int]]) -> list[float]:
    """Return the gradient of the loss on some examples."""
    total = [0.0] * FEATURES
    for features, label in examples:
        error = probability(weights, features) - label
        total = [t + error * x for t, x in zip(total, features, strict=True)]
    return [t / len(examples) for t in total]


def accuracy(weights: list[float], examples: list[tuple[list[float], int]]) -> float:
    """Return the share of examples that the model gets right."""
    return sum((probability(weights, features) > 0.5) == bool(label) for features, label in examples) / len(examples)


def main() -> None:
    """Train, and show how the model gets better."""
    parser = argparse.ArgumentParser(description="A parameter server with workers that do not wait for each other.")
    parser.add_argument("--address", help="of a cluster (default: one on this machine)")
    parser.add_argument("--rounds", type=int, default=30, help="of each worker")
    parser.add_argument("--workers", type=int, default=4, help="each with a part of the data")
    options = parser.parse_args()
    unseen = data(500, seed=1000)
    history = []
    with rabbitry.init(options.address):
        server = Server.remote()
        parts = [rabbitry.put(data(200, seed)) for seed in range(options.workers)]
        # A chain for each worker: fetch -> gradient -> push. Only refs are passed; the driver sees no gradient.
        steps = {server.push.remote(gradient.remote(server.fetch.remote(), part)): part for part in parts}
        left = dict.fromkeys(range(options.workers), options.rounds - 1)
        while steps:
            [done], _ = rabbitry.wait(list(steps), num_returns=1)
            part = steps.pop(done)
            history.append(accuracy(rabbitry.get(done), unseen))
            worker = parts.index(part)
            if left[worker]:
                left[worker] -= 1
                steps[server.push.remote(gradient.remote(server.fetch.remote(), part))] = part

    print("updates   right on unseen data")
    for number in range(0, len(history), max(1, len(history) // 8)):
        print(f"{number + 1:>7}   {100 * history[number]:5.1f}%  {'#' * round(40 * history[number])}")
    print(f"{len(history):>7}   {100 * history[-1]:5.1f}%  {'#' * round(40 * history[-1])}")


if __name__ == "__main__":
    main()
