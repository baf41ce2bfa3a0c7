"""The module `ray`: all of rabbitry, with Ray's version, and Ray's other modules as attributes."""

from __future__ import annotations

import importlib
import logging
from functools import lru_cache
from types import ModuleType
from typing import Any

import rabbitry
from rabbitry.context import RAY_VERSION
from rabbitry.ray_alias import table, wheel

NAMES_KEPT = 512  # of attributes of `ray` of which is known whether they are modules

MODES = {"SCRIPT_MODE": 0, "WORKER_MODE": 1, "LOCAL_MODE": 2, "RESTORE_WORKER_MODE": 3, "SPILL_WORKER_MODE": 4}


@lru_cache(maxsize=NAMES_KEPT)
def _is_module(name: str) -> bool:
    """Return True if there is a module of that name below `ray`.

    Kept: it takes a look at files, and Ray's libraries ask for what is no module (`ray.get_actor`) in each request.
    """
    from rabbitry.ray_alias.finder import our_module

    return our_module(name) is not None or wheel.file(name) != (None, None)


class Face(ModuleType):
    """What `import ray` gives.

    A module of its own, and not rabbitry itself, since its version is Ray's: libraries look at it. What is set on it is
    set on rabbitry too, so that a test that replaces `ray.get` replaces it everywhere.
    """

    def __init__(self) -> None:
        super().__init__("ray", rabbitry.__doc__)
        own: dict[str, Any] = {name: value for name, value in vars(rabbitry).items() if not name.startswith("__")}
        own = {name: value for name, value in own.items() if not isinstance(value, ModuleType)}
        own.update(
            MODES,
            __version__=wheel.version() or RAY_VERSION,
            __commit__=wheel.commit() or "",
            __all__=list(rabbitry.__all__),
            __path__=[],
            logger=logging.getLogger("ray"),
        )
        if (wheel_at := wheel.directory()) is not None:
            own["__file__"] = str(wheel_at / "__init__.py")  # programs look for files beside it
        self.__dict__.update(own)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module 'ray' has no attribute {name!r}", name=name)
        found = self._module(name)
        if found is not None:
            return found
        if (adapter := table.FACE.get(name)) is not None:
            return getattr(importlib.import_module(f"rabbitry.ray_alias.adapters.{adapter}"), name)
        try:
            return getattr(rabbitry, name)
        except AttributeError:
            if name in table.WHEEL_FACE and wheel.directory() is not None:
                return getattr(importlib.import_module(f"ray.{table.WHEEL_FACE[name]}"), name)
            raise

    def _module(self, name: str) -> ModuleType | None:
        if name in table.SHORT:
            try:
                return importlib.import_module(f"ray.{table.SHORT[name]}")
            except ModuleNotFoundError as error:  # `hasattr(ray, "worker")` is a question, not an import
                raise AttributeError(str(error), name=name) from error
        return importlib.import_module(f"ray.{name}") if _is_module(name) else None

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, ("ray",)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if not name.startswith("__") and not isinstance(value, ModuleType):
            setattr(rabbitry, name, value)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        if name in vars(rabbitry):
            delattr(rabbitry, name)

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *dir(rabbitry), *MODES, *table.FACE, *table.SHORT})
