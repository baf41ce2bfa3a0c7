"""A parameter sweep: `python examples/parameter_sweep.py [--address auto] [--widths 12] [--plot sweep.png]`.

How wide should a smoothing window be? Each width is tried by cross-validation on noisy data: one task for each width
and fold, and one that averages the folds of a width. Ends with a table; `--plot` also draws it (needs matplotlib).
"""

from __future__ import annotations

import argparse
import math
import random
from importlib.util import find_spec

import rabbitry

Points = list[tuple[float, float]]

FOLDS = 5
NOISE = 0.3


def noisy_sine(count: int) -> Points:
    """Return the data: points of a sine with noise."""
    at_random = random.Random(1)
    places = [at_random.uniform(0, 10) for _ in range(count)]
    return [(x, math.sin(x) + at_random.gauss(0, NOISE)) for x in places]


@rabbitry.remote
def error_of_fold(points: Points, width: float, fold: int) -> float:
    """Return the mean squared error on every FOLDS-th point of a smoother that knows only the others."""
    known = [point for number, point in enumerate(points) if number % FOLDS != fold]
    errors = []
    for x, y in points[fold::FOLDS]:
        weights = [math.exp(-(((x - other) / width) ** 2)) for other, _ in known]
        total = sum(weights) or 1.0
        errors.append((sum(w * value for w, (_, value) in zip(weights, known, strict=True)) / total - y) ** 2)
    return sum(errors) / len(errors)


@rabbitry.remote
def mean(*values: float) -> float:
    """Average what other tasks computed: their refs are passed."""
    return sum(values) / len(values)


def plot(file: str, widths: list[float], errors: list[float]) -> None:
    """Draw the curve."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    axes.semilogx(widths, errors, marker="o")
    axes.set_xlabel("width of the window")
    axes.set_ylabel("cross-validated error")
    figure.savefig(file)
    print(f"drawn in {file}")


def main() -> None:
    """Sweep, and show the curve."""
    parser = argparse.ArgumentParser(description="A parameter sweep by cross-validation.")
    parser.add_argument("--address", help="of a cluster (default: one on this machine)")
    parser.add_argument("--widths", type=int, default=12, help="how many to try")
    parser.add_argument("--points", type=int, default=400, help="of data")
    parser.add_argument("--plot", metavar="FILE", help="draw the curve into it (needs matplotlib)")
    options = parser.parse_args()
    if options.plot and not find_spec("matplotlib"):
        raise SystemExit("--plot needs matplotlib: pip install 'rabbitry[examples]'")
    widths = [0.02 * (5.0 / 0.02) ** (number / (options.widths - 1)) for number in range(options.widths)]
    with rabbitry.init(options.address):
        points = rabbitry.put(noisy_sine(options.points))  # stored once, read by all tasks
        refs = [mean.remote(*[error_of_fold.remote(points, width, fold) for fold in range(FOLDS)]) for width in widths]
        errors = rabbitry.get(refs)

    print(" width   error")
    for width, error in zip(widths, errors, strict=True):
        best = "  <- best" if error == min(errors) else ""
        print(f"{width:>6.3f}  {error:.4f}  {'#' * round(40 * error / max(errors))}{best}")
    print(f"noise alone would be {NOISE**2:.4f}")
    if options.plot:
        plot(options.plot, widths, errors)


if __name__ == "__main__":
    main()
