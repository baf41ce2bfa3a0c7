"""Plans that hold as long as the code that calls runs in the same placement group (or in none).

A plan is made once and used for all later calls. In an executor, tasks that run in a group and have their children
captured follow upon others that do not: what was planned for the former does not hold for the latter. A driver is in
no group, ever.
"""

from __future__ import annotations

from typing import Any, Protocol
from weakref import WeakSet

from rabbitry.scheduling import PlacementGroupSchedulingStrategy


class HasPlan(Protocol):
    """Whatever keeps a plan."""

    plan: Any

    def __hash__(self) -> int: ...


_kept: WeakSet[HasPlan] = WeakSet()


def decides(strategy: Any) -> bool:
    """Return True if the place of a plan under a strategy depends on the code that calls."""
    if strategy is None:
        return True
    return (
        isinstance(strategy, PlacementGroupSchedulingStrategy) and strategy.placement_group_capture_child_tasks is None
    )


def remember(keeper: HasPlan) -> None:
    """This keeps a plan that holds until `forget`."""
    _kept.add(keeper)


def forget() -> None:
    """Code begins to run in another placement group: such plans are to be made anew."""
    for keeper in list(_kept):
        keeper.plan = None
    _kept.clear()
