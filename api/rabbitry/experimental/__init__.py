"""What Ray keeps under `ray.experimental`: where objects are, a store of keys and values, bars, a shuffle."""

from __future__ import annotations

import importlib
from typing import Any

from rabbitry.experimental.locations import get_local_object_locations, get_object_locations
from rabbitry.experimental.tensors import wait_tensor_freed

_SUBMODULES = frozenset(
    ("collective", "compiled_dag_ref", "internal_kv", "locations", "shuffle", "tensors", "tqdm_ray")
)

__all__ = ["get_local_object_locations", "get_object_locations", "wait_tensor_freed"]


def __getattr__(name: str) -> Any:
    """Import a submodule when it is asked for."""
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    from rabbitry.not_there import missing

    raise missing(__name__, name, __dir__())


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES})
