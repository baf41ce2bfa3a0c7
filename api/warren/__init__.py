"""warren: Ray's programming model on RabbitMQ and Redis.

    import warren as ray

    @ray.remote
    def square(x):
        return x * x

    print(ray.get([square.remote(i) for i in range(4)]))

Public names are listed in `__all__`; submodules mirror Ray's (`warren.exceptions`, `warren.util`, ...).
"""

from __future__ import annotations

import importlib
from typing import Any

from warren import exceptions
from warren.calls import cancel, free, get, put, wait
from warren.cluster import available_resources, cluster_resources, nodes
from warren.context import VERSION
from warren.decorator import remote
from warren.generators import DynamicObjectRefGenerator, ObjectRefGenerator
from warren.object_ref import ObjectRef
from warren.runtime_context import get_runtime_context
from warren.session import init, is_initialized, shutdown

ObjectID = ObjectRef
__version__ = VERSION

_LAZY = {
    "checkpoint": "actor",
    "exit_actor": "actor",
    "get_actor": "actor",
    "kill": "actor",
    "method": "actor",
    "ActorClassID": "ids",
    "ActorID": "ids",
    "ClusterID": "ids",
    "FunctionID": "ids",
    "JobID": "ids",
    "NodeID": "ids",
    "PlacementGroupID": "ids",
    "TaskID": "ids",
    "UniqueID": "ids",
    "WorkerID": "ids",
}
_SUBMODULES = frozenset(("actor", "util", "cluster_utils", "as_ray", "ids", "internal", "scheduling"))

__all__ = [
    "DynamicObjectRefGenerator",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "__version__",
    "available_resources",
    "cancel",
    "cluster_resources",
    "exceptions",
    "free",
    "get",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "wait",
    *_LAZY,
]


def get_gpu_ids() -> list[str]:
    """Return the ids of the GPUs that the running task holds."""
    return get_runtime_context().get_accelerator_ids()["GPU"]


def __getattr__(name: str) -> Any:
    """Import rarely used names when they are asked for (import time is kept below 0.3 s)."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"warren.{_LAZY[name]}"), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"warren.{name}")
    raise AttributeError(f"module 'warren' has no attribute {name!r}")
