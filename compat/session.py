"""How the programs start a session: on this machine, or on the cluster that the environment names."""

from __future__ import annotations

import os
from typing import Any

import ray


def start(cpus: int, **options: Any) -> None:
    """Start a session with so many CPUs and these options of `init`, or join the cluster of `RABBITRY_ADDRESS`."""
    if os.environ.get("RABBITRY_ADDRESS"):
        ray.init()
    else:
        ray.init(num_cpus=cpus, **options)
