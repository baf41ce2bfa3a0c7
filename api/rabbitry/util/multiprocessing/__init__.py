"""`multiprocessing.Pool` of the standard library, on a cluster: `from rabbitry.util.multiprocessing import Pool`."""

from __future__ import annotations

from multiprocessing import JoinableQueue, TimeoutError

from rabbitry.util.multiprocessing.pool import Pool

__all__ = ["JoinableQueue", "Pool", "TimeoutError"]
