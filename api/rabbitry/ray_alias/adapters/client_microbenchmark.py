"""`ray._private.ray_client_microbenchmark`: the part of `ray._private.ray_perf` about remote drivers.

There is no protocol for those here, so there is nothing to measure; the rest of `python -m ray._private.ray_perf` runs.
"""

from __future__ import annotations

from typing import Any


def main(results: list[Any] | None = None) -> list[Any]:
    """Return the results of what was measured before."""
    return results or []
