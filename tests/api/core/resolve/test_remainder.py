"""What `wait` left last: see `rabbitry.core.resolve.remainder`."""

from __future__ import annotations

import gc
import weakref

import pytest

from rabbitry.core.resolve.remainder import LEAST, Remainder
from rabbitry.object_ref import ObjectRef, _bare


def refs(count: int = LEAST) -> list[ObjectRef[int]]:
    return [_bare(b"%028d" % number) for number in range(count)]


@pytest.fixture
def remainder() -> Remainder:
    return Remainder()


def test_the_list_that_was_returned_is_known_as_long_as_it_is_as_it_was(remainder: Remainder):
    kept = refs()
    remainder.keep(kept)
    assert remainder.knows(kept)
    assert not remainder.knows(list(kept)), "another list may be changed at any time, and is not looked after"
    kept.append(kept[0])
    assert not remainder.knows(kept)
    kept.pop()
    kept[3] = 7  # type: ignore[call-overload]
    assert not remainder.knows(kept)


def test_short_lists_are_not_kept(remainder: Remainder):
    kept = refs(LEAST - 1)
    remainder.keep(kept)
    assert not remainder and not remainder.knows(kept)


def test_a_list_that_its_caller_has_dropped_is_forgotten_with_its_refs(remainder: Remainder):
    kept = refs()
    ref = weakref.ref(kept[5])
    remainder.keep(kept)
    remainder.let_go()
    assert remainder.knows(kept), "the caller has it"
    del kept
    remainder.let_go()
    gc.collect()
    assert not remainder and ref() is None


def test_a_ref_that_the_caller_takes_out_does_not_live_by_the_copy(remainder: Remainder):
    kept = refs()
    remainder.keep(kept)
    ref = weakref.ref(kept.pop())
    remainder.let_go()
    gc.collect()
    assert ref() is None


def test_the_end_of_the_session_forgets_it(remainder: Remainder):
    remainder.keep(refs())
    remainder.clear()
    assert not remainder
