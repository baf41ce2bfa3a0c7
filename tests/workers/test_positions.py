"""Positions: a set of numbers, small as long as it has few gaps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rabbitry_workers.positions import Positions


@given(st.lists(st.integers(-2, 40)))
def test_it_is_the_set_of_what_was_added(numbers: list[int]):
    positions = Positions()
    for number in numbers:
        positions.add(number)
    expected = {number for number in numbers if number > 0}
    assert {number for number in range(-3, 45) if number in positions} == expected
    assert {n for n in range(1, 45) if positions.has_all_below(n)} == {
        n for n in range(1, 45) if set(range(1, n)) <= expected
    }
    assert {number for number in range(-3, 45) if number in Positions(positions.bounds)} == expected


@given(st.lists(st.integers(1, 40)), st.lists(st.integers(1, 40)))
def test_what_others_have_is_added_as_if_one_by_one(some: list[int], more: list[int]):
    both, others, expected = Positions(), Positions(), Positions()
    for number in some:
        both.add(number)
    for number in more:
        others.add(number)
    for number in [*some, *more]:
        expected.add(number)
    both.update(others)
    assert both.bounds == expected.bounds


@given(st.permutations(range(1, 30)))
def test_what_has_no_gap_takes_no_room(numbers: list[int]):
    positions = Positions()
    for number in numbers:
        positions.add(number + 1000)
    assert positions.bounds == [1001, 1029]
