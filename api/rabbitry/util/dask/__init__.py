"""Dask's collections, computed on the cluster; dask 2025.1 or newer must be installed.

    with enable_dask_on_ray():
        frame.groupby("key").sum().compute()
    array.sum().compute(scheduler=ray_dask_get)

Each task of a graph is a task here; results stay in the store until the last one is read.
"""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec

if find_spec("dask") is None:
    raise ImportError("rabbitry.util.dask needs dask: `pip install dask`, or `pip install 'dask[complete]'`.")
if int(metadata.version("dask").partition(".")[0]) < 2025:  # graphs are made of other nodes there
    raise ImportError(
        f"rabbitry.util.dask needs dask 2025.1 or newer, and {metadata.version('dask')} is installed: "
        "`pip install --upgrade dask`."
    )

from rabbitry.util.dask.callbacks import (
    ProgressBarCallback,
    RayDaskCallback,
    local_ray_callbacks,
    unpack_ray_callbacks,
)
from rabbitry.util.dask.persisting import keep_persisted
from rabbitry.util.dask.scheduler import (
    dataframe_optimize,
    disable_dask_on_ray,
    enable_dask_on_ray,
    ray_dask_get,
    ray_dask_get_sync,
    ray_dask_persist,
)

__all__ = [
    "ProgressBarCallback",
    "RayDaskCallback",
    "dataframe_optimize",
    "disable_dask_on_ray",
    "enable_dask_on_ray",
    "local_ray_callbacks",
    "ray_dask_get",
    "ray_dask_get_sync",
    "ray_dask_persist",
    "unpack_ray_callbacks",
]

keep_persisted()
