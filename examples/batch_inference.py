"""Batch inference over images: `python examples/batch_inference.py [--address auto] [--images 2000]`.

Several actors load a model once each, and share the batches through an ActorPool. The images are drawn here: circles,
squares and crosses with noise. The model compares with the mean image of each class. Needs numpy.
"""

from __future__ import annotations

import argparse

import rabbitry
from rabbitry.util import ActorPool

try:
    import numpy
except ImportError:
    raise SystemExit("this example needs numpy: pip install 'rabbitry[examples]'") from None

SIDE = 16
SHAPES = ("circle", "square", "cross")
SHADES = " .:-=+*#%@"


def draw(count: int, seed: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return images and the numbers of their shapes."""
    at_random = numpy.random.default_rng(seed)
    labels = at_random.integers(len(SHAPES), size=count)
    rows, columns = numpy.mgrid[:SIDE, :SIDE]
    images = at_random.normal(0.0, 0.6, size=(count, SIDE, SIDE)).astype(numpy.float32)
    for image, label in zip(images, labels, strict=True):
        row, column = at_random.integers(6, 10, size=2)
        down, right = numpy.abs(rows - row), numpy.abs(columns - column)
        if label == 0:
            image[(down**2 + right**2 >= 9) & (down**2 + right**2 <= 25)] += 1
        elif label == 1:
            image[(numpy.maximum(down, right) >= 4) & (numpy.maximum(down, right) <= 5)] += 1
        else:
            image[(numpy.minimum(down, right) == 0) & (numpy.maximum(down, right) <= 5)] += 1
    return images, labels


@rabbitry.remote(num_cpus=0.5)
class Classifier:
    """Holds the model. A real one would load its weights from a file, and say `num_gpus=1`."""

    def __init__(self, samples: numpy.ndarray, labels: numpy.ndarray) -> None:
        self.means = numpy.stack([samples[labels == label].mean(axis=0) for label in range(len(SHAPES))])

    def predict(self, images: numpy.ndarray) -> numpy.ndarray:
        """Return the number of the nearest shape for each image."""
        distances = ((images[:, None] - self.means[None]) ** 2).sum(axis=(2, 3))
        return distances.argmin(axis=1)


def main() -> None:
    """Classify, and show how often the model was right."""
    parser = argparse.ArgumentParser(description="Batch inference over images with a pool of actors.")
    parser.add_argument("--address", help="of a cluster (default: one on this machine)")
    parser.add_argument("--images", type=int, default=2000, help="how many")
    parser.add_argument("--actors", type=int, default=2, help="that share the work")
    parser.add_argument("--batch", type=int, default=100, help="images in one call")
    options = parser.parse_args()
    samples, sample_labels = draw(600, seed=1)
    images, labels = draw(options.images, seed=2)
    with rabbitry.init(options.address):
        training = rabbitry.put(samples)
        pool = ActorPool([Classifier.remote(training, sample_labels) for _ in range(options.actors)])
        batches = [images[start : start + options.batch] for start in range(0, len(images), options.batch)]
        predicted = numpy.concatenate(list(pool.map(lambda actor, batch: actor.predict.remote(batch), batches)))

    darkest = images[0].clip(0, 1.99) / 2 * len(SHADES)
    print("\n".join("".join(SHADES[int(each)] * 2 for each in row) for row in darkest))
    print(f"the first image: a {SHAPES[labels[0]]}, taken for a {SHAPES[predicted[0]]}\n")
    print("is a      taken for " + "".join(f"{shape:>9}" for shape in SHAPES))
    for number, shape in enumerate(SHAPES):
        counts = [int(((labels == number) & (predicted == other)).sum()) for other in range(len(SHAPES))]
        print(f"{shape:<20}" + "".join(f"{count:>9}" for count in counts))
    print(f"{len(images)} images, {100 * (predicted == labels).mean():.1f}% right")


if __name__ == "__main__":
    main()
