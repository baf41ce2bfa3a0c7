"""What a node has without having been told."""

from __future__ import annotations

import pytest

from rabbitry_broker.implicit import implicit_labels, with_implicit
from rabbitry_broker.resources import detect_totals


def test_a_node_has_its_address_whatever_its_user_says_of_it() -> None:
    assert with_implicit({"CPU": 2.0, "node:192.0.2.7": 5.0}, "192.0.2.7", "") == {"CPU": 2.0, "node:192.0.2.7": 1.0}


@pytest.mark.parametrize(("gpus", "kinds"), [(0.0, {}), (2.0, {"accelerator_type:A100": 1.0})])
def test_a_node_with_gpus_has_their_kind(gpus: float, kinds: dict[str, float]) -> None:
    assert with_implicit({"GPU": gpus}, "::1", "A100") == {"GPU": gpus, "node:::1": 1.0, **kinds}
    assert ("ray.io/accelerator-type" in implicit_labels({"GPU": gpus}, "A100", {})) is bool(kinds)
    assert implicit_labels({"GPU": gpus}, "", {}) == {}


def test_what_launchers_of_ray_set_are_labels() -> None:
    variables = {"RAY_NODE_TYPE_NAME": "small", "RAY_NODE_MARKET_TYPE": "spot", "RAY_NODE_REGION": "eu"}
    assert implicit_labels({}, "", {**variables, "RAY_NODE_ZONE": "", "OTHER": "x"}) == {
        "ray.io/node-group": "small",
        "ray.io/market-type": "spot",
        "ray.io/availability-region": "eu",
    }


def test_the_head_is_no_resource_of_a_user() -> None:
    with pytest.raises(ValueError, match="reserved"):
        detect_totals(1, 0, 0, {"node:__internal_head__": 1})
