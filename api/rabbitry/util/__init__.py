"""Helpers around tasks, actors and objects, under the names that Ray gives them.

Names are imported when they are asked for: `import rabbitry` stays light.
"""

import importlib
from typing import TYPE_CHECKING, Any

# Before anybody imports the module of that name: here the name is the function's, as in Ray.
from rabbitry.util.placement_group import get_current_placement_group as get_current_placement_group
from rabbitry.util.placement_group import get_placement_group as get_placement_group
from rabbitry.util.placement_group import placement_group as placement_group
from rabbitry.util.placement_group import placement_group_table as placement_group_table
from rabbitry.util.placement_group import remove_placement_group as remove_placement_group

if TYPE_CHECKING:
    from rabbitry.util import (
        accelerators as accelerators,
    )
    from rabbitry.util import (
        actor_pool as actor_pool,
    )
    from rabbitry.util import (
        annotations as annotations,
    )
    from rabbitry.util import (
        check_serialize as check_serialize,
    )
    from rabbitry.util import (
        debug as debug,
    )
    from rabbitry.util import (
        joblib as joblib,
    )
    from rabbitry.util import (
        multiprocessing as multiprocessing,
    )
    from rabbitry.util import (
        queue as queue,
    )
    from rabbitry.util import (
        scheduling_strategies as scheduling_strategies,
    )
    from rabbitry.util import (
        serialization as serialization,
    )
    from rabbitry.util.actor_pool import ActorPool as ActorPool
    from rabbitry.util.actors import list_named_actors as list_named_actors
    from rabbitry.util.annotations import DeveloperAPI as DeveloperAPI
    from rabbitry.util.annotations import PublicAPI as PublicAPI
    from rabbitry.util.check_serialize import inspect_serializability as inspect_serializability
    from rabbitry.util.client_connection import connect as connect
    from rabbitry.util.client_connection import disconnect as disconnect
    from rabbitry.util.debug import (
        disable_log_once_globally as disable_log_once_globally,
    )
    from rabbitry.util.debug import (
        enable_periodic_logging as enable_periodic_logging,
    )
    from rabbitry.util.debug import (
        log_once as log_once,
    )
    from rabbitry.util.executor import Executor as Executor
    from rabbitry.util.iterate import as_completed as as_completed
    from rabbitry.util.iterate import map_unordered as map_unordered
    from rabbitry.util.node_address import get_node_ip_address as get_node_ip_address
    from rabbitry.util.progress_bar import progress as progress
    from rabbitry_broker.pickling import (
        deregister_serializer as deregister_serializer,
    )
    from rabbitry_broker.pickling import (
        register_serializer as register_serializer,
    )

_HOME = {
    "ActorPool": "rabbitry.util.actor_pool",
    "DeveloperAPI": "rabbitry.util.annotations",
    "Executor": "rabbitry.util.executor",
    "PublicAPI": "rabbitry.util.annotations",
    "as_completed": "rabbitry.util.iterate",
    "connect": "rabbitry.util.client_connection",
    "deregister_serializer": "rabbitry_broker.pickling",
    "disable_log_once_globally": "rabbitry.util.debug",
    "disconnect": "rabbitry.util.client_connection",
    "enable_periodic_logging": "rabbitry.util.debug",
    "get_node_instance_id": "rabbitry.util.node_address",
    "get_node_ip_address": "rabbitry.util.node_address",
    "inspect_serializability": "rabbitry.util.check_serialize",
    "list_named_actors": "rabbitry.util.actors",
    "log_once": "rabbitry.util.debug",
    "map_unordered": "rabbitry.util.iterate",
    "progress": "rabbitry.util.progress_bar",
    "register_serializer": "rabbitry_broker.pickling",
}

_SUBMODULES = frozenset(
    (
        "accelerators",
        "actor_group",
        "actor_pool",
        "annotations",
        "check_open_ports",
        "check_serialize",
        "collective",
        "dask",
        "debug",
        "debugpy",
        "iter",
        "iter_metrics",
        "joblib",
        "metrics",
        "multiprocessing",
        "queue",
        "rpdb",
        "scheduling_strategies",
        "serialization",
        "state",
        "timer",
        "tracing",
    )
)

_ALIASES = {"pdb": "rpdb", "ray_debugpy": "debugpy"}

__all__ = [
    "get_current_placement_group",
    "get_placement_group",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
    *_HOME,
]


def _lazy(name: str) -> Any:
    """Import a helper from where it lives, or a submodule."""
    home = _HOME.get(name)
    if home is not None:
        return getattr(importlib.import_module(home), name)
    if name in _ALIASES:
        return importlib.import_module(f"rabbitry.util.{_ALIASES[name]}")
    if name in _SUBMODULES:
        return importlib.import_module(f"rabbitry.util.{name}")
    from rabbitry.not_there import missing, under_the_alias

    if (module := under_the_alias(__name__, name)) is not None:
        return module
    raise missing(__name__, name, __dir__())


if not TYPE_CHECKING:  # a name that is not there is an error to checkers
    __getattr__ = _lazy


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_SUBMODULES, *_ALIASES})
