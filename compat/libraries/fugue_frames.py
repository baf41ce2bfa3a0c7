# /// script
# dependencies = ["fugue[ray]", "fugue-sql-antlr"]
# ///
"""Fugue: a transformer and SQL on its engine for Ray."""

from __future__ import annotations

import time

import fugue.api as fa
import pandas as pd

from compat.session import start


def spread(frame: pd.DataFrame) -> pd.DataFrame:
    """Add how far a group's values are apart."""
    return frame.assign(spread=frame["a"].max() - frame["a"].min())


if __name__ == "__main__":
    start(2)
    rows = pd.DataFrame({"key": [number % 4 for number in range(1000)], "a": range(1000)})
    begin = time.perf_counter()
    with fa.engine_context("ray"):
        out = fa.transform(rows, spread, schema="*,spread:int", partition={"by": "key"}, as_fugue=True)
        frame = fa.as_pandas(out).sort_values("a")
        print("RESULT", frame["spread"].tolist()[:4], len(frame))
        joined = fa.inner_join(rows, rows.rename(columns={"key": "other"}), as_fugue=True)
        print("RESULT", fa.count(joined), fa.as_pandas(joined)["other"].sum())
        best = fa.take(rows, 1, presort="a desc", partition={"by": "key"}, as_fugue=True)
        print("RESULT", sorted(fa.as_pandas(best)["a"].tolist()))
    print(f"TIMED {time.perf_counter() - begin:.2f} s")
