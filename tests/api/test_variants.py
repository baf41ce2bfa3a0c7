"""Equal options share a variant, and with it a plan: see `rabbitry.variants`."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import rabbitry
from rabbitry import variants
from rabbitry.scheduling import In, NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy
from rabbitry.variants import Variants

NODE = "ab" * 28


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ({"name": "x"}, {"name": "x"}, True),
        ({"name": "x"}, {"name": "y"}, False),
        ({"num_cpus": 1}, {"num_cpus": 1.0}, False),
        ({"num_cpus": 1}, {"num_cpus": True}, False),
        ({"resources": {"a": 1}}, {"resources": {"a": 1}}, True),
        ({"resources": {"a": 1}}, {"resources": {"a": 2}}, False),
        ({"runtime_env": {"env_vars": {"A": "1"}}}, {"runtime_env": {"env_vars": {"A": "1"}}}, True),
        ({"retry_exceptions": [ValueError]}, {"retry_exceptions": [ValueError]}, True),
        ({"retry_exceptions": [ValueError]}, {"retry_exceptions": [KeyError]}, False),
        *[
            ({"scheduling_strategy": one}, {"scheduling_strategy": other}, shared)
            for one, other, shared in (
                (
                    NodeAffinitySchedulingStrategy(NODE, soft=True),
                    NodeAffinitySchedulingStrategy(NODE, soft=True),
                    True,
                ),
                (
                    NodeAffinitySchedulingStrategy(NODE, soft=True),
                    NodeAffinitySchedulingStrategy(NODE, soft=False),
                    False,
                ),
                # Which labels to use depends on the nodes there are at that moment.
                (NodeLabelSchedulingStrategy({"a": In("b")}), NodeLabelSchedulingStrategy({"a": In("b")}), False),
            )
        ],
        ({"fallback_strategy": []}, {"fallback_strategy": []}, False),
    ],
)
def test_equal_options_share_a_variant(one: dict[str, Any], other: dict[str, Any], shared: bool) -> None:
    kept: Variants[object] = Variants()
    assert (kept.get(one, object) is kept.get(other, object)) is shared


def test_variants_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "VARIANTS_KEPT", 10)
    kept: Variants[int] = Variants()
    for at in range(100):
        assert kept.get({"name": str(at)}, lambda at=at: at) == at
    assert len(kept._kept) == 10
    assert kept.get({"name": "99"}, lambda: -1) == 99


def test_a_variant_of_a_function_has_its_own_options() -> None:
    def plain(x: int) -> int:
        return x

    function = rabbitry.remote(num_cpus=2)(plain)
    named = function.options(name="a")
    assert function.options(name="a") is named
    assert named.options(num_cpus=1)._options.num_cpus == 1
    assert (function._options.name, named._options.name, named._options.num_cpus) == (None, "a", 2)
    assert named.__name__ == "plain"
    assert pickle.loads(rabbitry_pickle(named))._options.name == "a"
    with pytest.raises(ValueError, match="max_calls"):
        function.options(max_calls=1)


def test_a_variant_of_a_class_has_its_own_options() -> None:
    class Plain:
        def go(self) -> None:
            return None

    actor_class = rabbitry.remote(Plain)
    named = actor_class.options(name="a")
    assert (actor_class._rabbitry_options.name, named._rabbitry_options.name) == (None, "a")
    assert pickle.loads(rabbitry_pickle(named))._rabbitry_options.name == "a"


def rabbitry_pickle(value: Any) -> bytes:
    import cloudpickle

    return bytes(cloudpickle.dumps(value))
