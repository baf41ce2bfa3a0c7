"""What libraries want to be asked before tasks and actors are submitted.

Tune sets `_task_launch_hook` in `ray.remote_function` and `_actor_launch_hook` in `ray.actor`, to refuse what can never
run in a trial's placement group and would wait for ever. They are asked when a function's calls are planned, and for
each actor.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rabbitry.runtime_context import current_group
from rabbitry.scheduling import PlacementGroupSchedulingStrategy

if TYPE_CHECKING:
    from rabbitry.ray_alias.adapters.function_descriptor import PythonFunctionDescriptor

LaunchHook = Callable[["PythonFunctionDescriptor", dict[str, float], Any], object]
"""Given what is submitted, its resources and its strategy; what it raises keeps that from being submitted."""


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
    from rabbitry.ray_alias.adapters.function_descriptor import PythonFunctionDescriptor

    group = current_group()
    if strategy is None and group.group and group.captures:
        from rabbitry.ids import PlacementGroupID
        from rabbitry.util.placement_group import PlacementGroup

        strategy = PlacementGroupSchedulingStrategy(PlacementGroup(PlacementGroupID(group.group)))
    if isinstance(what, type):
        launched = PythonFunctionDescriptor.from_class(what)
    else:
        launched = PythonFunctionDescriptor.from_function(what, uuid.uuid4())
    hook(launched, resources, strategy)
