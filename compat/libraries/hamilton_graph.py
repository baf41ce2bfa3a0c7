# /// script
# dependencies = ["sf-hamilton[ray]"]
# ///
"""Hamilton: a graph of functions by its adapter for Ray, and parallel items by its executor."""

from __future__ import annotations

import importlib
import time

from hamilton import base, driver
from hamilton.execution import executors
from hamilton.htypes import Collect, Parallelizable
from hamilton.plugins.h_ray import RayGraphAdapter, RayTaskExecutor

from compat.session import start


def source(start_at: int) -> int:
    """Begin."""
    return start_at + 1


def doubled(source: int) -> int:
    """Double."""
    return 2 * source


def both(source: int, doubled: int) -> int:
    """Join."""
    return source + doubled


def item(count: int) -> Parallelizable[int]:
    """Fan out."""
    yield from range(count)


def squared(item: int) -> int:
    """Work on one."""
    return item * item


def summed(squared: Collect[int]) -> int:
    """Bring together."""
    return sum(squared)


if __name__ == "__main__":
    start(2)
    # The module by its name, under which the tasks' processes find it too.
    functions = importlib.import_module("compat.libraries.hamilton_graph")
    begin = time.perf_counter()
    adapter = RayGraphAdapter(result_builder=base.DictResult())
    print("RESULT", driver.Driver({"start_at": 1}, functions, adapter=adapter).execute(["both", "doubled"]))
    many = (
        driver.Builder()
        .enable_dynamic_execution(allow_experimental_mode=True)
        .with_modules(functions)
        .with_remote_executor(RayTaskExecutor(ray_init_config={"ignore_reinit_error": True}))
        .with_local_executor(executors.SynchronousLocalTaskExecutor())
        .build()
    )
    print("RESULT", many.execute(["summed"], inputs={"count": 20}))
    print(f"TIMED {time.perf_counter() - begin:.2f} s")
