"""rabbitry: Ray's programming model on RabbitMQ and Redis.

    import rabbitry as ray

    @ray.remote
    def square(x):
        return x * x

    print(ray.get([square.remote(i) for i in range(4)]))

Public names are listed in `__all__`; submodules mirror Ray's (`rabbitry.exceptions`, `rabbitry.util`, ...).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rabbitry import client, exceptions, library_finder
from rabbitry.calls import cancel, free, get, put, wait
from rabbitry.client_module import CallableModule
from rabbitry.cluster import available_resources, cluster_resources, nodes
from rabbitry.context import VERSION
from rabbitry.decorator import remote
from rabbitry.generators import DynamicObjectRefGenerator, ObjectRefGenerator
from rabbitry.object_ref import ObjectRef
from rabbitry.runtime_context import get_runtime_context
from rabbitry.session import init, is_initialized, shutdown

if TYPE_CHECKING:
    from rabbitry import (
        actor as actor,
    )
    from rabbitry import (
        as_ray as as_ray,
    )
    from rabbitry import (
        cloudpickle as cloudpickle,
    )
    from rabbitry import (
        cluster_utils as cluster_utils,
    )
    from rabbitry import (
        ids as ids,
    )
    from rabbitry import (
        job_config as job_config,
    )
    from rabbitry import (
        remote_function as remote_function,
    )
    from rabbitry import (
        runtime_context as runtime_context,
    )
    from rabbitry import (
        runtime_env as runtime_env,
    )
    from rabbitry import (
        scheduling as scheduling,
    )
    from rabbitry import (
        util as util,
    )
    from rabbitry.actor import (
        checkpoint as checkpoint,
    )
    from rabbitry.actor import (
        exit_actor as exit_actor,
    )
    from rabbitry.actor import (
        get_actor as get_actor,
    )
    from rabbitry.actor import (
        kill as kill,
    )
    from rabbitry.actor import (
        method as method,
    )
    from rabbitry.ids import (
        ActorClassID as ActorClassID,
    )
    from rabbitry.ids import (
        ActorID as ActorID,
    )
    from rabbitry.ids import (
        ClusterID as ClusterID,
    )
    from rabbitry.ids import (
        FunctionID as FunctionID,
    )
    from rabbitry.ids import (
        JobID as JobID,
    )
    from rabbitry.ids import (
        NodeID as NodeID,
    )
    from rabbitry.ids import (
        PlacementGroupID as PlacementGroupID,
    )
    from rabbitry.ids import (
        TaskID as TaskID,
    )
    from rabbitry.ids import (
        UniqueID as UniqueID,
    )
    from rabbitry.ids import (
        WorkerID as WorkerID,
    )
    from rabbitry.logging_config import (
        LoggingConfig as LoggingConfig,
    )
    from rabbitry.state.timeline import timeline as timeline
# `ray.client("...")` is a function in Ray, and a module here: the module may be called.
client.__class__ = CallableModule

ObjectID = ObjectRef
__version__ = VERSION

_LAZY = {
    "ClientBuilder": "client_builder",
    "LoggingConfig": "logging_config",
    "checkpoint": "actor",
    "exit_actor": "actor",
    "get_actor": "actor",
    "kill": "actor",
    "method": "actor",
    "timeline": "state.timeline",
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
_SUBMODULES = frozenset(
    (
        "actor",
        "as_ray",
        "autoscaler",
        "client_builder",
        "cloudpickle",
        "cluster_utils",
        "dag",
        "experimental",
        "ids",
        "job_config",
        "remote_function",
        "runtime_context",
        "runtime_env",
        "scheduling",
        "util",
    )
)

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


def get_gpu_ids() -> list[int] | list[str]:
    """Return the ids of the GPUs that the running task holds: numbers, or text if one is no number ("GPU-8f3a...")."""
    ids = get_runtime_context().get_accelerator_ids()["GPU"]
    return [int(each) for each in ids] if all(each.isdecimal() for each in ids) else ids


def _lazy(name: str) -> Any:
    """Import rarely used names when they are asked for (import time is kept below 0.3 s)."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"rabbitry.{_LAZY[name]}"), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"rabbitry.{name}")
    from rabbitry.not_there import LIBRARIES, missing, under_the_alias

    if name in LIBRARIES and (library := under_the_alias(__name__, name)) is not None:
        return library
    raise missing(__name__, name, __dir__())


if not TYPE_CHECKING:  # a name that is not there is an error to checkers
    __getattr__ = _lazy


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_SUBMODULES})


library_finder.install()
