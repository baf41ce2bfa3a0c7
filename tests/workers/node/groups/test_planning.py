"""Where bundles go: by strategy, labels, GPUs, and whose turn it is."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rabbitry_broker.resources import UNITS, ResourceRequest
from rabbitry_workers.node.groups.planning import (
    INFEASIBLE,
    LASTING_SECONDS,
    NO_RESOURCES,
    PATIENCE_SECONDS,
    Room,
    Wanted,
    place,
    plan_all,
)

A, B, C = b"a" * 28, b"b" * 28, b"c" * 28


def room(node: bytes, text: str, **labels: str) -> Room:
    return Room.whole(node, ResourceRequest.parse(text), labels)


def wanted(*bundles: str, **fields: Any) -> Wanted:
    fields.setdefault("id", b"g")
    return Wanted(bundles={at: ResourceRequest.parse(each) for at, each in enumerate(bundles)}, **fields)


def nodes(plan: dict[int, bytes] | None) -> list[bytes] | None:
    return None if plan is None else [plan[at] for at in sorted(plan)]


def test_a_packed_group_goes_to_one_node_if_it_fits_there():
    rooms = [room(A, "CPU=2"), room(B, "CPU=4")]
    assert nodes(place(wanted("CPU=2", "CPU=2"), rooms)) == [B, B]
    assert nodes(place(wanted("CPU=2", "CPU=2", "CPU=2"), rooms)) in ([B, B, A], [A, B, B], [B, A, B])
    assert place(wanted("CPU=3", "CPU=3"), rooms) is None


def test_a_packed_group_goes_where_others_of_its_bundles_are():
    rooms = [room(A, "CPU=4"), room(B, "CPU=4")]
    assert nodes(place(wanted("CPU=1", taken=frozenset((B,))), rooms)) == [B]


def test_a_spread_group_goes_to_different_nodes_as_far_as_there_are():
    rooms = [room(A, "CPU=4"), room(B, "CPU=4")]
    assert sorted(nodes(place(wanted("CPU=1", "CPU=1", strategy="SPREAD"), rooms)) or []) == [A, B]
    plan = nodes(place(wanted(*["CPU=1"] * 4, strategy="SPREAD"), rooms)) or []
    assert sorted(plan) == [A, A, B, B]
    assert sorted(nodes(place(wanted("CPU=3", "CPU=1", "CPU=1", strategy="SPREAD"), rooms)) or []) in (
        [A, A, B],
        [A, B, B],
    )


def test_a_strictly_packed_group_goes_to_one_node_or_none():
    rooms = [room(A, "CPU=2"), room(B, "CPU=3")]
    assert nodes(place(wanted("CPU=2", "CPU=1", strategy="STRICT_PACK"), rooms)) == [B, B]
    assert place(wanted("CPU=2", "CPU=2", strategy="STRICT_PACK"), rooms) is None
    both = [room(A, "CPU=3"), room(B, "CPU=3")]
    assert nodes(place(wanted("CPU=2", strategy="STRICT_PACK", target=B), both)) == [B]
    assert nodes(place(wanted("CPU=2", strategy="STRICT_PACK", target=C), both)) == [A]
    assert nodes(place(wanted("CPU=2", strategy="STRICT_PACK", taken=frozenset((B,))), both)) == [B]


def test_a_strictly_spread_group_is_matched_with_nodes():
    rooms = [room(A, "CPU=4,GPU=1"), room(B, "CPU=4"), room(C, "CPU=1")]
    # Greed would put the first bundle on the node with the GPU.
    group = wanted("CPU=2", "GPU=1", "CPU=1", strategy="STRICT_SPREAD")
    assert nodes(place(group, rooms)) == [B, A, C]
    assert place(wanted(*["CPU=1"] * 4, strategy="STRICT_SPREAD"), rooms) is None
    assert nodes(place(wanted("CPU=1", strategy="STRICT_SPREAD", taken=frozenset((A, B))), rooms)) == [C]


def test_greed_is_not_the_last_word():
    rooms = [room(A, "CPU=6"), room(B, "CPU=6")]
    assert place(wanted("CPU=4", "CPU=3", "CPU=3", "CPU=2"), rooms) is not None


def test_labels_choose_nodes():
    rooms = [room(A, "CPU=4", zone="a"), room(B, "CPU=4", zone="b")]
    assert nodes(place(wanted("CPU=1", "CPU=1", selectors={0: "zone=b", 1: "zone=a"}), rooms)) == [B, A]
    assert place(wanted("CPU=1", selectors={0: "zone=c"}), rooms) is None
    assert nodes(place(wanted("CPU=1", strategy="STRICT_PACK", selectors={0: "zone=!a"}), rooms)) == [B]


def test_a_topology_keeps_a_group_among_nodes_of_one_value():
    rooms = [room(A, "CPU=2", rack="1"), room(B, "CPU=2", rack="2"), room(C, "CPU=2", rack="2")]
    plan = nodes(place(wanted("CPU=2", "CPU=2", topology="rack"), rooms))
    assert sorted(plan or []) == [B, C]
    assert place(wanted("CPU=2", "CPU=2", "CPU=2", topology="rack"), rooms) is None
    assert nodes(place(wanted("CPU=1", topology="rack", taken=frozenset((A,))), rooms)) == [A]
    assert place(wanted("CPU=1", topology="row"), rooms) is None


def test_shares_of_gpus_lie_on_one_gpu():
    half = Room(A, {"CPU": 4 * UNITS}, [UNITS // 2, UNITS // 2])
    assert place(wanted("GPU=1"), [half]) is None
    assert place(wanted("GPU=0.6"), [half]) is None
    assert place(wanted("GPU=0.5", "GPU=0.5"), [half]) is not None
    assert place(wanted("GPU=0.5", "GPU=0.25", "GPU=0.3"), [half]) is None


def everything(
    waiting: list[Wanted], rooms: list[Room], now: float = 0.0, ever: Any = None, lasting: Any = None
) -> Any:
    ever = rooms if ever is None else ever
    return plan_all(waiting, rooms, now, ever=ever, lasting=lambda _: ever if lasting is None else lasting)


def test_the_oldest_comes_first_and_two_never_get_the_same_room():
    first = wanted("CPU=2", id=b"1", created=1.0)
    second = wanted("CPU=2", id=b"2", created=2.0)
    plans, reasons, _ = everything([second, first], [room(A, "CPU=3")])
    assert (plans, reasons) == ({b"1": {0: A}}, {b"2": NO_RESOURCES})


def test_a_small_group_passes_one_that_could_never_fit_however_old():
    never = wanted("CPU=9", id=b"1")
    small = wanted("CPU=1", id=b"2", created=100.0)
    plans, reasons, _ = everything([never, small], [room(A, "CPU=2")], now=1000.0)
    assert (plans, reasons) == ({b"2": {0: A}}, {b"1": INFEASIBLE})


def test_a_small_group_passes_for_a_while_and_then_room_is_kept_for_the_large_one():
    ever = [room(A, "CPU=4")]
    now_free = [room(A, "CPU=2")]
    large = wanted("CPU=4", id=b"1", created=0.0)
    small = wanted("CPU=1", id=b"2", created=1.0)
    soon, later = PATIENCE_SECONDS - 1, PATIENCE_SECONDS + 1
    assert everything([large, small], now_free, soon, ever)[0] == {b"2": {0: A}}
    assert everything([large, small], now_free, soon, ever)[2] == {}
    assert everything([large, small], now_free, later, ever)[0] == {}
    assert everything([large, small], now_free, later, ever)[2][b"1"] == {0: A}
    # What lasts there keeps the large one out in any case: nothing is kept for it.
    assert everything([large, small], now_free, later, ever, [room(A, "CPU=2")])[0] == {b"2": {0: A}}
    # And where nothing is needed by it, small ones go on.
    elsewhere = [*now_free, room(B, "CPU=1")]
    assert everything([large, small], elsewhere, later, [*ever, room(B, "CPU=1")])[0] == {b"2": {0: B}}
    assert LASTING_SECONDS > PATIENCE_SECONDS


AMOUNTS = st.integers(0, 3)
BUNDLES = st.lists(st.tuples(st.integers(1, 3), AMOUNTS), min_size=1, max_size=4)
ROOMS = st.lists(st.tuples(st.integers(0, 5), AMOUNTS), min_size=1, max_size=3)


def _class(cpu: int, x: int) -> str:
    return f"CPU={cpu},x={x}" if x else f"CPU={cpu}"


def _valid(plan: tuple[int, ...], bundles: list[tuple[int, int]], rooms: list[tuple[int, int]], strategy: str) -> bool:
    if strategy == "STRICT_PACK" and len(set(plan)) > 1:
        return False
    if strategy == "STRICT_SPREAD" and len(set(plan)) < len(plan):
        return False
    return all(
        sum(bundles[at][kind] for at, node in enumerate(plan) if node == number) <= each[kind]
        for number, each in enumerate(rooms)
        for kind in (0, 1)
    )


@pytest.mark.parametrize("strategy", ["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"])
@settings(max_examples=300, deadline=None)
@given(bundles=BUNDLES, rooms=ROOMS)
def test_a_plan_is_valid_and_found_whenever_there_is_one(strategy, bundles, rooms):
    made = [Room(bytes([number]) * 28, {"CPU": cpu * UNITS, "x": x * UNITS}) for number, (cpu, x) in enumerate(rooms)]
    plan = place(wanted(*[_class(*each) for each in bundles], strategy=strategy), made)
    if plan is not None:
        assert sorted(plan) == list(range(len(bundles)))
        assert _valid(tuple(plan[at][0] for at in range(len(bundles))), bundles, rooms, strategy)
    every = itertools.product(range(len(rooms)), repeat=len(bundles))
    assert (plan is not None) == any(_valid(each, bundles, rooms, strategy) for each in every)
