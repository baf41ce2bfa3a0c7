"""Ray's names that rabbitry does not have: what is said of them."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Final

LIBRARIES: Final = frozenset({"air", "data", "llm", "rllib", "serve", "train", "tune", "workflow"})
"""Ray's libraries, which are no part of Ray Core."""

_NOT_EVEN_SO: Final = {
    "llm": "ray.llm does not run on rabbitry",
    "workflow": "Ray itself has no ray.workflow since 2.48",
}
_RAY: Final = frozenset(
    {
        "Language", "SCRIPT_MODE", "WORKER_MODE", "RESTORE_WORKER_MODE",
        "SPILL_WORKER_MODE", "cpp_function", "cross_language", "dashboard",
        "internal", "java_actor_class", "java_function", "ray_constants",
        "serialization", "state", "types", "widgets", "worker", "_config", "_private", "_raylet",
        "__commit__",
    }
)  # fmt: skip
_UTIL: Final = frozenset(
    {
        "client",
        "helpers", "lightgbm", "metrics",
        "spark", "state", "tpu", "tracing", "xgboost",
    }
)  # fmt: skip
_NAMES: Final = {"rabbitry": _RAY, "rabbitry.util": _UTIL}


def under_the_alias(module: str, name: str) -> ModuleType | None:
    """Return what `import ray` means by a module that rabbitry has not, such as `ray.util.client`; None if nothing.

    Args:
        module: of rabbitry, where it was looked for.
        name: what was looked for.
    """
    if name.startswith("_") or type(sys.modules.get("ray")).__module__ != "rabbitry.ray_alias.face":
        return None
    try:
        return importlib.import_module(f"{module.replace('rabbitry', 'ray', 1)}.{name}")
    except ModuleNotFoundError:
        return None


def of_library(name: str) -> str:
    """Return how to use one of Ray's libraries with rabbitry.

    Args:
        name: below `ray`, such as "tune"; one of LIBRARIES.
    """
    return _NOT_EVEN_SO.get(name) or (
        f"Ray's own libraries run on rabbitry under their own names. Install Ray beside it "
        f"(pip install 'rabbitry[ray]' 'ray[{name}]'), and run the program with `from ray import {name}` by "
        f"python -m rabbitry.as_ray, or call rabbitry.as_ray.install() before anything imports ray"
    )


def missing(module: str, name: str, known: list[str]) -> AttributeError:
    """Return the error for a name that a module has not.

    Args:
        module: where it was looked for.
        name: what was looked for.
        known: the names there are.
    """
    text = f"module {module!r} has no attribute {name!r}"
    if module == "rabbitry" and name in LIBRARIES:
        text += f": {of_library(name)}"
    elif name in _NAMES.get(module, ()):
        ray = module.replace("rabbitry", "ray", 1)
        text += f": Ray has {ray}.{name}, rabbitry has not (yet)"
    elif not name.startswith("_"):
        from rabbitry.suggestions import closest

        text += "." + hint if (hint := closest(name, known)) else ""
    return AttributeError(text, name=name)
