# /// script
# dependencies = ["dask[dataframe,array]"]
# ///
"""Dask on Ray: an array and a frame, by Ray's scheduler for dask."""

from __future__ import annotations

import time

import dask
import dask.array
import dask.dataframe
import numpy as np
import pandas as pd
from ray.util.dask import disable_dask_on_ray, enable_dask_on_ray, ray_dask_get

from compat.session import start

if __name__ == "__main__":
    start(2)
    array = dask.array.arange(4_000_000, chunks=100_000)
    begin = time.perf_counter()
    print("RESULT", int((array * 2).sum().compute(scheduler=ray_dask_get)))
    print(f"TIMED array {(time.perf_counter() - begin) * 1000:.0f} ms,")
    enable_dask_on_ray()
    rows = pd.DataFrame({"key": np.arange(200_000) % 7, "a": np.arange(200_000)})
    frame = dask.dataframe.from_pandas(rows, npartitions=10)
    begin = time.perf_counter()
    print("RESULT", frame.groupby("key").a.sum().compute().sort_index().tolist())
    print("RESULT", frame.set_index("a").loc[10:12].compute().key.tolist())
    print("RESULT", frame.merge(frame, on="a").key_x.sum().compute())
    print(f"TIMED frame {(time.perf_counter() - begin) * 1000:.0f} ms")
    disable_dask_on_ray()
