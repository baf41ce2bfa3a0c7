"""Scheduling strategies refuse what cannot be."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from rabbitry.util import scheduling_strategies
from rabbitry.util.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
    PlacementGroupSchedulingStrategy,
)

NODE = "ab" * 28


class AnId:
    def hex(self) -> str:
        return NODE


@pytest.mark.parametrize("node_id", [NODE, NODE.upper(), bytes.fromhex(NODE), AnId()])
def test_a_node_can_be_named_in_several_ways(node_id: Any) -> None:
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    assert strategy.node_id == NODE
    assert strategy == NodeAffinitySchedulingStrategy(NODE, soft=False)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: NodeAffinitySchedulingStrategy("zz", soft=True), ValueError),
        (lambda: NodeAffinitySchedulingStrategy("ab", soft=True), ValueError),
        (lambda: NodeAffinitySchedulingStrategy("ff" * 28, soft=True), ValueError),
        (lambda: NodeAffinitySchedulingStrategy(3, soft=True), TypeError),  # type: ignore[arg-type]
        (lambda: NodeAffinitySchedulingStrategy(NODE), TypeError),  # type: ignore[call-arg]
        (lambda: NodeAffinitySchedulingStrategy(NODE, False, _spill_on_unavailable=True), ValueError),
        (lambda: NodeAffinitySchedulingStrategy(NODE, True, _fail_on_unavailable=True), ValueError),
        (lambda: NodeLabelSchedulingStrategy({}), ValueError),
        (lambda: NodeLabelSchedulingStrategy(None), ValueError),
        (lambda: NodeLabelSchedulingStrategy({"a": "b"}), ValueError),  # type: ignore[dict-item]
        (lambda: NodeLabelSchedulingStrategy({3: Exists()}), ValueError),  # type: ignore[dict-item]
        (lambda: NodeLabelSchedulingStrategy([Exists()]), ValueError),  # type: ignore[arg-type]
        (lambda: NodeLabelSchedulingStrategy({"no good": Exists()}), ValueError),
        (lambda: NodeLabelSchedulingStrategy({"a": In("no;good")}), ValueError),
        (In, ValueError),
        (NotIn, ValueError),
        (lambda: In(1), ValueError),  # type: ignore[arg-type]
        (lambda: Exists(1), TypeError),  # type: ignore[call-arg]
        (lambda: PlacementGroupSchedulingStrategy(None, -2), ValueError),
        (lambda: PlacementGroupSchedulingStrategy(None, "x"), TypeError),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be(make: Callable[[], Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        make()


def test_label_strategies_as_selectors() -> None:
    strategy = NodeLabelSchedulingStrategy(
        {"zone": In("b", "a"), "gpu": Exists(), "old": DoesNotExist()}, soft={"disk": NotIn("hdd")}
    )
    assert strategy.hard_selector() == "gpu=*;old=!*;zone=in(a,b)"
    assert strategy.soft_selector() == "disk=!hdd"


def test_strategies_can_be_pickled_and_compared() -> None:
    for strategy in (
        NodeAffinitySchedulingStrategy(NODE, soft=True, _spill_on_unavailable=True),
        NodeLabelSchedulingStrategy({"a": In("b")}),
        PlacementGroupSchedulingStrategy(None),
    ):
        again = pickle.loads(pickle.dumps(strategy))
        assert again == strategy
        assert hash(again) == hash(strategy)


def test_rays_module_has_rays_names() -> None:
    assert set(scheduling_strategies.__all__) > {"In", "NotIn", "Exists", "DoesNotExist", "SchedulingStrategyT"}
