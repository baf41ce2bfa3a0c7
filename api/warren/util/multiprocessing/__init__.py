"""`multiprocessing.Pool` of the standard library, on a cluster: `from warren.util.multiprocessing import Pool`."""

from __future__ import annotations

from multiprocessing import JoinableQueue, TimeoutError

from warren.util.multiprocessing.pool import Pool

__all__ = ["JoinableQueue", "Pool", "TimeoutError"]
