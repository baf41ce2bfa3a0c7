"""`persist` leaves results in the store, whichever way a program calls it, as in Ray.

A scheduler of dask's is not told what it computes for. So `dask.persist`, which methods of collections call, too, says
so to this one; for all others it is as it was.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import dask
import dask.base

from rabbitry.util.dask.scheduler import ray_dask_get, ray_dask_get_sync


def keep_persisted() -> None:
    """Have `dask.persist` say what it is to the scheduler here, from now on."""
    if not hasattr(dask.base.persist, "_keeps_for_rabbitry"):
        dask.persist = dask.base.persist = _keeping(dask.base.persist)


def _keeping(persist: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(persist)
    def kept(*args: Any, **kwargs: Any) -> Any:
        scheduler = kwargs.get("scheduler") or dask.config.get("scheduler", None)
        if scheduler in (ray_dask_get, ray_dask_get_sync):
            kwargs.setdefault("ray_persist", True)
        return persist(*args, **kwargs)

    kept._keeps_for_rabbitry = True  # type: ignore[attr-defined]
    return kept
