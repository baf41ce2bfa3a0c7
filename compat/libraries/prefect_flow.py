# /// script
# dependencies = ["prefect-ray", "fastapi<0.125"]
# ///
"""Prefect: a flow whose tasks run by prefect-ray."""

from __future__ import annotations

import os
import tempfile
import time

os.environ.setdefault("PREFECT_HOME", tempfile.mkdtemp())
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")  # the default is 20

from prefect import flow, task
from prefect_ray import RayTaskRunner
from prefect_ray.context import remote_options


@task
def squared(x: int) -> int:
    """Work on one."""
    return x * x


@task
def summed(numbers: list[int]) -> int:
    """Bring together."""
    return sum(numbers)


@task(retries=2)
def unsteady(folder: str) -> str:
    """Fail once."""
    try:
        os.mkdir(os.path.join(folder, "tried"))
    except FileExistsError:
        return "second"
    raise ValueError("first")


ADDRESS = None if not os.environ.get("RABBITRY_ADDRESS") else "auto"


@flow(task_runner=RayTaskRunner(ADDRESS, init_kwargs={} if ADDRESS else {"num_cpus": 2}))
def numbers(folder: str) -> tuple[int, str]:
    """Square numbers and sum them."""
    with remote_options(num_cpus=1):
        squares = squared.map(range(5))
    return summed.submit(squares).result(), unsteady.submit(folder).result()


if __name__ == "__main__":
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        print("RESULT", numbers(folder))
    print(f"TIMED {time.perf_counter() - begin:.2f} s")
