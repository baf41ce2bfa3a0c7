"""What is kept of jobs and drivers that have ended, and for how long."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rabbitry import current
from rabbitry_workers.jobs.manager import JobManager, Request
from tests.end_to_end.conftest import node_environment
from tests.servers import wait_until


def test_ended_jobs_and_drivers_are_forgotten(start_cluster: Any) -> None:
    cluster = start_cluster({"num_cpus": 1}, environment={"RABBITRY_JOB_TTL": "1"})
    with cluster_driver(cluster.address):
        pass
    manager = JobManager(current.client)
    job = manager.submit(Request("echo hello"))
    wait_until(lambda: (found := manager.find(job)) is None or found.directory, "it has begun", 30)
    found = manager.find(job)
    wait_until(lambda: (found := manager.find(job)) is None or found.status.is_final, "it has ended", 30)
    wait_until(lambda: manager.find(job) is None, "it is forgotten", 30)
    wait_until(lambda: [each for each in manager.drivers() if each[2]] == [], "the driver is forgotten", 30)
    assert len(manager.drivers()) == 1
    if found is not None:  # else it was all over before a look
        wait_until(lambda: not Path(found.directory).exists(), "its log is gone", 30)


@contextlib.contextmanager
def cluster_driver(address: str) -> Iterator[None]:
    """A driver of a cluster in a process of its own, that leaves at the end."""
    driver = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import rabbitry, sys; rabbitry.init({address!r}); print(1, flush=True); sys.stdin.read()",
        ],
        env=node_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert driver.stdout is not None
    driver.stdout.readline()
    yield
    driver.communicate()
