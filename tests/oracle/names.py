"""List the public names of Ray's modules: `python -m tests.oracle.names [file]`.

Run it at the top of the tree, with the Python of an environment that has Ray. Without a file it writes to standard
output. Of ours it imports nothing: rabbitry need not be there.
"""

from __future__ import annotations

import importlib
import json
import sys
import typing
import warnings
from pathlib import Path
from types import ModuleType

MODULES = (
    "ray",
    "ray.actor",
    "ray.cluster_utils",
    "ray.dag",
    "ray.exceptions",
    "ray.job_submission",
    "ray.remote_function",
    "ray.runtime_context",
    "ray.runtime_env",
    "ray.util",
    "ray.util.accelerators",
    "ray.util.actor_pool",
    "ray.util.metrics",
    "ray.util.multiprocessing",
    "ray.util.placement_group",
    "ray.util.queue",
    "ray.util.scheduling_strategies",
    "ray.util.state",
    "ray.util.state.api",
    "ray.util.state.common",
    "ray.util.state.exception",
)


def names_of(module: ModuleType) -> list[str]:
    """Return what `__all__` lists, and the public classes, functions and constants that the module itself defines."""
    names = {name for name in getattr(module, "__all__", ()) if is_there(module, name)}
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__
        constant = name.isupper() and isinstance(value, (int, str, float, tuple)) and name != "TYPE_CHECKING"
        if not name.startswith("_") and (own or constant) and not isinstance(value, typing.TypeVar):
            names.add(name)
    return sorted(names)


def is_there(module: ModuleType, name: str) -> bool:
    """Return False for names that `__all__` promises and nobody can have."""
    try:
        getattr(module, name)
    except Exception:
        return False
    return True


def main() -> None:
    """Write the names as JSON."""
    warnings.simplefilter("ignore")
    found = {name: names_of(importlib.import_module(name)) for name in MODULES}
    text = json.dumps(found, indent=1) + "\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
