"""How many nodes have to come for what is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from rabbitry.demand import Demand, GroupNeed, Need
from rabbitry_broker.resources import ResourceRequest
from rabbitry_workers.fitting import Shape, fit

SHAPE = Shape(ResourceRequest.from_floats({"CPU": 2, "license": 1}), {"zone": "a"})


def node(number: int, free: float = 2.0, *, zone: str = "a", draining: bool = False) -> dict[str, Any]:
    return {
        "id": bytes([number]) * 28, "totals": {"CPU": 2.0}, "available": {"CPU": free}, "labels": {"zone": zone},
        "draining": draining,
    }  # fmt: skip


def demand(*nodes: dict[str, Any], queued: Any = (), groups: Any = (), requested: Any = ()) -> Demand:
    return Demand(nodes, [Need(*each) for each in queued], [GroupNeed(*each) for each in groups],
                  [Need(*each) for each in requested])  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "coming"),
    [
        (demand(), 0),
        (demand(node(1), queued=[("CPU=1", "", 2)]), 0),
        (demand(node(1, 1.0), queued=[("CPU=1", "", 2)]), 1),
        (demand(node(1, 0.0), queued=[("CPU=1", "", 5)]), 3),
        (demand(node(1, draining=True), queued=[("CPU=1", "", 1)]), 1),
        (demand(node(1, zone="b"), queued=[("CPU=1", "zone=a", 1)]), 1),
        (demand(node(1, 0.0), queued=[("none", "", 50)]), 0),
        (demand(queued=[("CPU=1", "", 2), ("CPU=2", "", 1)]), 2),
        # What is requested is there as a whole, whatever runs; and what waits finds room in what comes for it.
        (demand(node(1, 0.0), requested=[("CPU=1", "", 2)]), 0),
        (demand(node(1, 0.0), requested=[("CPU=1", "", 4)]), 1),
        (demand(node(1, 0.0), requested=[("CPU=1", "", 4)], queued=[("CPU=1", "", 2)]), 1),
        (demand(node(1), groups=[([("CPU=1", "")] * 3, "STRICT_SPREAD")]), 2),
        (demand(node(1), groups=[([("CPU=1", "")] * 3, "SPREAD")]), 1),
        (demand(node(1, 1.0), groups=[([("CPU=1", "")] * 2, "STRICT_PACK")]), 1),
        (demand(node(1, 1.0), groups=[([("CPU=1", "")] * 2, "PACK")]), 1),
    ],
)
def test_nodes_that_have_to_come(asked: Demand, coming: int) -> None:
    assert fit(asked, SHAPE).coming == coming
    assert fit(asked, SHAPE).hopeless == ()
    assert fit(asked, SHAPE, on_their_way=coming).coming == 0


@pytest.mark.parametrize(
    ("resources", "selector"), [("CPU=3", ""), ("GPU=1", ""), ("CPU=1", "zone=b"), ("CPU=0.5,license=2", "")]
)
def test_what_fits_no_node_that_may_come_brings_none(resources: str, selector: str) -> None:
    for asked in (
        demand(node(1), queued=[(resources, selector, 3)]),
        demand(node(1), requested=[(resources, selector, 3)]),
        *[
            demand(node(1), groups=[([(resources, selector)], each)])
            for each in ("PACK", "STRICT_PACK", "STRICT_SPREAD")
        ],
    ):
        assert fit(asked, SHAPE).coming == 0
        assert fit(asked, SHAPE).hopeless == ((resources, selector),)


def test_nodes_are_left_out_to_see_who_may_go() -> None:
    asked = demand(node(1), node(2), requested=[("CPU=1", "", 3)])
    assert fit(asked, SHAPE).coming == 0
    assert fit(asked, SHAPE, without=[bytes([2]) * 28]).coming == 1
