"""Helpers around tasks, actors and objects, under the names that Ray gives them.

Names are imported when they are asked for: `import warren` stays light.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "ActorPool": "warren.util.actor_pool",
    "Executor": "warren.util.executor",
    "as_completed": "warren.util.iterate",
    "deregister_serializer": "warren_broker.serialization",
    "inspect_serializability": "warren.util.check_serialize",
    "list_named_actors": "warren.util.actors",
    "map_unordered": "warren.util.iterate",
    "progress": "warren.util.progress_bar",
    "register_serializer": "warren_broker.serialization",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a helper from where it lives."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'warren.util' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
