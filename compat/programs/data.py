"""map_batches, groupby, sort, parquet, filter, and a pool of actors."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray
import ray.data

from compat.session import start


class Doubled:
    """A stateful batch function."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Add a column."""
        batch["y"] = batch["a"] * 2
        return batch


if __name__ == "__main__":
    start(2)
    numbers = ray.data.range(10_000).map_batches(lambda batch: {"id": batch["id"], "k": batch["id"] % 5})
    print("RESULT", [row["sum(id)"] for row in numbers.groupby("k").sum("id").sort("k").take_all()])
    with tempfile.TemporaryDirectory() as folder:
        for part in range(4):
            frame = pd.DataFrame({"a": np.arange(1000) + part * 1000})
            frame.to_parquet(Path(folder, f"{part}.parquet"))
        rows = ray.data.read_parquet(folder)
        even = rows.filter(lambda row: row["a"] % 2 == 0)
        pool = ray.data.ActorPoolStrategy(size=1)
        print("RESULT", rows.count(), rows.sum("a"), even.count(), rows.map_batches(Doubled, compute=pool).sum("y"))
    ray.shutdown()
