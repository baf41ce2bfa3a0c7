"""Data: files of four kinds, map of every kind, groups, joins, sorting, splits, and batches of torch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import ray
import ray.data
from PIL import Image

from compat.session import start

ROWS = 20_000


class Multiplied:
    """A stateful batch function with arguments."""

    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        """Add a column."""
        return batch.assign(y=batch["id"] * self.by)


@ray.remote
class Consumer:
    """Reads one part of a split stream."""

    def total(self, part: Any) -> tuple[int, int]:
        """Return how many rows there were, and their sum."""
        rows = total = 0
        for batch in part.iter_batches(batch_size=100):
            rows += len(batch["id"])
            total += int(batch["id"].sum())
        return rows, total


def files(folder: Path) -> None:
    """Write and read parquet, csv, json and images."""
    numbers = ray.data.range(2000, override_num_blocks=4).map(lambda row: {"id": row["id"], "name": f"n{row['id']}"})
    for kind in ("parquet", "csv", "json"):
        place = str(folder / kind)
        getattr(numbers, f"write_{kind}")(place)
        read = getattr(ray.data, f"read_{kind}")(place)
        print("RESULT", kind, read.count(), read.sum("id"), read.sort("id").take(2))
    (folder / "images").mkdir()
    for number in range(6):
        Image.fromarray(np.full((8, 8, 3), number * 10, np.uint8)).save(folder / "images" / f"{number}.png")
    images = ray.data.read_images(str(folder / "images"), include_paths=True)
    bright = images.map(lambda row: {"sum": int(row["image"].sum()), "name": Path(row["path"]).name})
    print("RESULT images", [row["sum"] for row in bright.sort("name").take_all()])
    partitioned = numbers.map(lambda row: {**row, "part": row["id"] % 3})
    partitioned.write_parquet(str(folder / "partitioned"), partition_cols=["part"])
    some = ray.data.read_parquet(str(folder / "partitioned"), columns=["id"])
    print("RESULT partitioned", some.sum("id"), some.columns())


def maps(folder: Path) -> None:
    """Rows and batches, by tasks and actors, as numpy, pandas and arrow."""
    numbers = ray.data.range(ROWS, override_num_blocks=8)
    print("RESULT numpy", numbers.map_batches(lambda batch: {"x": batch["id"] ** 2}).sum("x"))
    arrow = numbers.map_batches(lambda table: pa.table({"x": table["id"]}), batch_format="pyarrow", batch_size=500)
    print("RESULT arrow", arrow.max("x"))
    pool = numbers.map_batches(
        Multiplied, fn_constructor_args=(3,), compute=ray.data.ActorPoolStrategy(size=2), batch_format="pandas"
    )
    print("RESULT pool", pool.sum("y"), pool.columns())
    print("RESULT flat", numbers.flat_map(lambda row: [row] * (row["id"] % 3)).count())
    print("RESULT filter", numbers.filter(expr="id > 100").count(), numbers.filter(lambda row: row["id"] < 10).count())
    print("RESULT limit", numbers.limit(5).take_all())
    both = numbers.rename_columns({"id": "a"}).zip(numbers)
    print("RESULT zip", both.filter(lambda row: row["a"] != row["id"]).count(), numbers.union(numbers).count())
    print("RESULT schema", str(numbers.schema()).splitlines()[-1])


def groups(folder: Path) -> None:
    """Groups, joins, sorts and shuffles."""
    numbers = ray.data.range(ROWS, override_num_blocks=8).map_batches(lambda batch: {**batch, "key": batch["id"] % 5})
    grouped = numbers.groupby("key").mean("id").sort("key").take_all()
    print("RESULT mean", [row["mean(id)"] for row in grouped])
    largest = numbers.groupby("key").map_groups(lambda group: {"key": group["key"][:1], "most": [group["id"].max()]})
    print("RESULT groups", [row["most"] for row in largest.sort("key").take_all()])
    names = ray.data.from_items([{"key": key, "name": f"k{key}"} for key in range(3)])
    joined = numbers.join(names, join_type="inner", num_partitions=4, on=("key",))
    print("RESULT join", joined.count(), sorted(joined.unique("name")))
    print("RESULT sort", [row["id"] for row in numbers.sort("id", descending=True).take(3)])
    shuffled = numbers.random_shuffle(seed=1)
    print("RESULT shuffle", shuffled.sum("id"), [row["id"] for row in shuffled.take(3)] != [0, 1, 2])
    print("RESULT std", round(numbers.std("id"), 3), numbers.repartition(3).materialize().num_blocks())


def splits(folder: Path) -> None:
    """Parts for several readers, and batches for a model."""
    import torch

    numbers = ray.data.range(ROWS, override_num_blocks=8)
    print("RESULT split", [part.count() for part in numbers.split(2, equal=True)])
    train, test = numbers.train_test_split(0.25)
    print("RESULT halves", train.count(), test.count())
    consumers = [Consumer.options(num_cpus=0).remote() for _ in range(2)]
    parts = numbers.streaming_split(2, equal=True)
    read = ray.get([consumer.total.remote(part) for consumer, part in zip(consumers, parts, strict=True)])
    print("RESULT streams", [rows for rows, _ in read], sum(total for _, total in read))
    batches = list(numbers.iter_torch_batches(batch_size=3000, dtypes=torch.float32))
    print("RESULT torch", [len(batch["id"]) for batch in batches], batches[0]["id"].dtype)
    print("RESULT total", float(sum(batch["id"].sum() for batch in batches)))


if __name__ == "__main__":
    start(4)
    ray.data.DataContext.get_current().enable_progress_bars = False
    parts: tuple[Callable[[Path], None], ...] = (files, maps, groups, splits)
    for part in parts:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            part(Path(folder))
        print(f"TIMED {part.__name__} {time.perf_counter() - begin:.1f} s,")
    ray.shutdown()
