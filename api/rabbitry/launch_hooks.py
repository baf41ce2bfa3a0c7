"""What libraries want to be asked before tasks and actors are submitted.

Tune sets `_task_launch_hook` in `ray.remote_function` and `_actor_launch_hook` in `ray.actor`, to refuse what can never
run in a trial's placement group and would wait for ever. They are asked when a function's calls are planned, and for
each actor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rabbitry.runtime_context import current_group
from rabbitry.scheduling import PlacementGroupSchedulingStrategy

LaunchHook = Callable[["Launched", dict[str, float], Any], object]
"""Given what is submitted, its resources and its strategy; what it raises keeps that from being submitted."""


class Launched(NamedTuple):
    """What is submitted.

    Attributes:
        module_name: where it is written.
        function_name: of a function, or of a class' constructor.
        class_name: "" for a function.
    """

    module_name: str
    function_name: str
    class_name: str = ""


def ask(hook: LaunchHook, what: Any, resources: dict[str, float], strategy: Any) -> None:
    """Ask a hook whether a function or a class may be submitted.

    Args:
        hook: of a library.
        what: the function or the class.
        resources: that it asks for, by name.
        strategy: its scheduling strategy; of what runs in its caller's placement group, the hook is given that.

    Raises:
        Exception: whatever the hook raises.
    """
    group = current_group()
    if strategy is None and group.group and group.captures:
        from rabbitry.ids import PlacementGroupID
        from rabbitry.util.placement_group import PlacementGroup

        strategy = PlacementGroupSchedulingStrategy(PlacementGroup(PlacementGroupID(group.group)))
    module = _module_of(what)
    if isinstance(what, type):
        launched = Launched(module, "__init__", what.__name__)
    else:
        launched = Launched(module, getattr(what, "__qualname__", type(what).__name__).rpartition(".")[2])
    hook(launched, resources, strategy)


def _module_of(what: Any) -> str:
    """Return a module's name; that of its file for a main program."""
    module = getattr(what, "__module__", None) or ""
    if module == "__main__" and (file := getattr(sys.modules["__main__"], "__file__", None)):
        return Path(file).stem
    return str(module)
