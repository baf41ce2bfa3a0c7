# /// script
# dependencies = ["modin[ray]"]
# ///
"""Modin: a frame of a million rows; each operation is timed by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from compat.session import start

ROWS = 1_000_000


def timed(name: str, operation: Callable[[], Any], times: int = 5) -> Any:
    """Run an operation, print the shortest of its times, return its result as pandas has it."""
    from modin.utils import execute

    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        result = operation()
        execute(result)
        seconds.append(time.perf_counter() - begin)
    print(f"TIMED {name} {min(seconds) * 1000:.0f} ms,")
    return result.modin.to_pandas() if hasattr(result, "modin") else result


if __name__ == "__main__":
    start(2)
    import modin.config
    import modin.pandas as pd

    modin.config.NPartitions.put(4)
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "key": random.integers(0, 100, ROWS),
            "a": random.integers(0, 1000, ROWS),
            "b": random.random(ROWS),
        }
    )
    other = pd.DataFrame({"key": np.arange(100), "weight": np.arange(100) * 2})
    print("RESULT", timed("map", lambda: frame * 2)["a"].sum())
    print("RESULT", timed("sum", frame.sum)["a"])
    print("RESULT", timed("groupby", lambda: frame.groupby("key").sum())["a"].tolist()[:5])
    print("RESULT", timed("counts", lambda: frame["key"].value_counts()).tolist()[:5])
    print("RESULT", timed("sort", lambda: frame.sort_values("b"))["a"].tolist()[:5])
    print("RESULT", timed("merge", lambda: frame.merge(other, on="key"))["weight"].sum())
    print("RESULT", timed("filter", lambda: frame[frame["a"] > 500]).shape)
    print("RESULT", timed("apply", lambda: frame.apply(lambda column: column.max()))["key"])
