"""Placement groups as tests make them: gone at the end, with all that they had."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import rabbitry
from rabbitry.util import placement_group, remove_placement_group
from rabbitry.util.placement_group import PlacementGroup
from rabbitry.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from tests.end_to_end.waiting import wait_until


def inside(group: PlacementGroup | None, index: int = -1, **fields: Any) -> Any:
    return PlacementGroupSchedulingStrategy(group, index, **fields)


def maker() -> Iterator[Callable[..., PlacementGroup]]:
    """Yield what makes groups; afterwards remove them, and wait until their room is back."""
    made: list[PlacementGroup] = []

    def make(*bundles: dict[str, float], ready: bool = True, **options: Any) -> PlacementGroup:
        group = placement_group(list(bundles), **options)
        made.append(group)
        if ready:
            assert rabbitry.get(group.ready(), timeout=20) == group
        return group

    yield make
    for group in made:
        remove_placement_group(group)
    wait_until(lambda: rabbitry.available_resources().get("CPU") == rabbitry.cluster_resources()["CPU"])
