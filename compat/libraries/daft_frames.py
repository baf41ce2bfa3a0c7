# /// script
# dependencies = ["daft[ray]"]
# ///
"""Daft: its runner on Ray."""

from __future__ import annotations

import tempfile
import time

import daft
from daft import col

from compat.session import start

if __name__ == "__main__":
    start(2)
    daft.set_runner_ray()
    rows = {"key": [number % 5 for number in range(50_000)], "a": list(range(50_000))}
    begin = time.perf_counter()
    frame = daft.from_pydict(rows).into_partitions(4)
    print("RESULT", frame.groupby("key").agg(col("a").sum()).sort("key").to_pydict())
    print("RESULT", frame.sort("a", desc=True).limit(3).to_pydict())
    print("RESULT", frame.where(col("a") % 2 == 0).count_rows())
    with tempfile.TemporaryDirectory() as folder:
        frame.write_parquet(folder)
        read = daft.read_parquet(f"{folder}/*.parquet")
        print("RESULT", read.join(frame, on="a").agg(col("a").sum()).to_pydict())

    @daft.func
    def doubled(a: int) -> int:
        """Return twice a number."""
        return 2 * a

    print("RESULT", frame.select(doubled(col("a"))).agg(col("a").sum()).to_pydict())
    print(f"TIMED {time.perf_counter() - begin:.2f} s")
