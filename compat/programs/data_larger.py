# /// script
# [tool.compat.variables]
# RABBITRY_SHARED_MEMORY_LIMIT = "600000000"
# RABBITRY_SPILL_URL = "{folder}"
# COMPAT_SPILL = "{folder}"
# ///
"""Data: 3 GB that stream through a store of 600 MB to a reader in no hurry, and 1.2 GB that are sorted in it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data

from compat.session import start

STORE = 600_000_000
ROW = 128 * 1024  # bytes
STREAMED, SORTED = 3_000_000_000 // ROW, 1_200_000_000 // ROW
SPILL = Path(os.environ["COMPAT_SPILL"])


class Watch:
    """Looks how much lies in the directory for what has no room, ten times a second."""

    def __init__(self) -> None:
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.most = max(self.most, sum(map(size, SPILL.rglob("*"))))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


def size(path: Path) -> int:
    """Return the size of a file, 0 if it went meanwhile or is none."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def grown(batch: dict[str, Any]) -> dict[str, Any]:
    """Make 128 KiB of each number."""
    return {"id": batch["id"], "x": np.repeat(batch["id"][:, None], ROW // 8, axis=1)}


def checked(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the sum over a row, and whether all of it is what was made of its number."""
    right = (batch["x"] == batch["id"][:, None]).all(1)
    return {"id": batch["id"], "right": right}


def large(rows: int) -> Any:
    """Return a dataset of so many large rows, in blocks of 8 MB."""
    return ray.data.range(rows, override_num_blocks=max(1, rows // 64)).map_batches(grown, batch_size=64)


def streamed() -> None:
    """Read as a model would that trains: less quickly than the blocks are made."""
    rows = total = 0
    for batch in large(STREAMED).iter_batches(batch_size=256, prefetch_batches=1):
        rows += len(batch["id"])
        total += int(batch["x"][:, -1].sum())
        time.sleep(0.02)
    print("RESULT streamed", rows, total == STREAMED * (STREAMED - 1) // 2)


def ordered() -> None:
    """Sort what does not fit, which has to be there as a whole."""
    rows = large(SORTED).sort("id", descending=True).map_batches(checked, batch_size=64).take_all()
    right = all(row["right"] for row in rows)
    print("RESULT sorted", len(rows), right, [row["id"] for row in rows] == list(range(SORTED))[::-1])


if __name__ == "__main__":
    start(4, object_store_memory=STORE, object_spilling_directory=str(SPILL))
    ray.data.DataContext.get_current().enable_progress_bars = False
    for part in (streamed, ordered):
        begin = time.perf_counter()
        with Watch() as watch:
            part()
        seconds = time.perf_counter() - begin
        print(f"TIMED {part.__name__} {seconds:.1f} s, {watch.most / 1e6:.0f} MB on disk at most;")
    ray.shutdown()
