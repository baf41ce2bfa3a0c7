"""Scheduling strategies under the name where programs written for Ray look for them; see `rabbitry.scheduling`."""

from __future__ import annotations

from rabbitry.scheduling import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
    PlacementGroupSchedulingStrategy,
)

SchedulingStrategyT = (
    None | str | PlacementGroupSchedulingStrategy | NodeAffinitySchedulingStrategy | NodeLabelSchedulingStrategy
)
"""What `scheduling_strategy` takes."""

LabelMatchExpressionsT = dict[str, In | NotIn | Exists | DoesNotExist]
"""Label keys, and what must hold of each."""

__all__ = [
    "DoesNotExist",
    "Exists",
    "In",
    "LabelMatchExpressionsT",
    "NodeAffinitySchedulingStrategy",
    "NodeLabelSchedulingStrategy",
    "NotIn",
    "PlacementGroupSchedulingStrategy",
    "SchedulingStrategyT",
]
