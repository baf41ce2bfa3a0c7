"""Tables that give memory back: see `rabbitry.core.lives.shrinking`."""

from __future__ import annotations

import sys
import threading

import pytest

from rabbitry.core.lives.shrinking import LARGE_BYTES, give_back, is_sparse, shrink

MANY = 100_000


def grown(left: int = 0) -> dict[bytes, int]:
    table = {b"%d" % number: number for number in range(MANY)}
    for number in range(left, MANY):
        del table[b"%d" % number]
    return table


@pytest.mark.parametrize("left", [0, 1, 100])
def test_a_table_that_is_nearly_empty_again_shrinks_and_keeps_what_is_in_it(left: int):
    table = grown(left)
    assert sys.getsizeof(table) > LARGE_BYTES and is_sparse(table)
    shrink(table)
    assert sys.getsizeof(table) < LARGE_BYTES and not is_sparse(table)
    assert table == {b"%d" % number: number for number in range(left)}


def test_tables_that_are_small_or_in_use_are_left_alone():
    assert not is_sparse({}) and not is_sparse({b"%d" % number: number for number in range(MANY)})


def test_what_others_insert_meanwhile_stays():
    table = grown()
    inserted = [b"new%d" % number for number in range(MANY // 10)]

    def insert() -> None:
        for key in inserted:
            table[key] = 1

    thread = threading.Thread(target=insert)
    thread.start()
    while thread.is_alive():
        shrink(table)
    assert list(table) == inserted


def test_the_heap_is_trimmed_where_that_is_possible(monkeypatch: pytest.MonkeyPatch):
    give_back()
    monkeypatch.setitem(sys.modules, "ctypes", None)
    give_back()
