"""Refs used as if they were their values: Python's exceptions, and a hint."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy
import pandas
import pytest

import rabbitry
from rabbitry import current
from rabbitry.calls import get

REF: Any = rabbitry.ObjectRef.from_random()


class Overloads:
    def __radd__(self, other: Any) -> str:
        return "radd"

    def __gt__(self, other: Any) -> str:
        return "gt"


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda: REF + 1, "unsupported operand type(s) for +: 'ObjectRef' and 'int'"),
        (lambda: 1 + REF, "unsupported operand type(s) for +: 'int' and 'ObjectRef'"),
        (lambda: "a" + REF, "unsupported operand type(s) for +: 'str' and 'ObjectRef'"),
        (lambda: sum([REF, REF]), "for +: 'int' and 'ObjectRef'"),
        (lambda: numpy.array([REF, REF]) + 1, "for +: 'ObjectRef' and 'int'"),
        (lambda: numpy.array([REF, REF]).sum(), "for +: 'ObjectRef' and 'ObjectRef'"),
        (lambda: REF @ REF, "for @"),
        (lambda: divmod(REF, 2), "for divmod()"),
        (lambda: operator.iadd(REF, 1), "for +"),
        (lambda: -REF, "bad operand type for unary -: 'ObjectRef'"),
        (lambda: REF < 1, "'<' not supported between instances of 'ObjectRef' and 'int'"),
        (lambda: max([REF, REF]), "'>' not supported"),
        (lambda: list(REF), "'ObjectRef' object is not iterable"),
        (lambda: [*REF], "'ObjectRef' object is not iterable"),
        (lambda: [each for each in REF], "'ObjectRef' object is not iterable"),  # noqa: C416
        (lambda: 1 in REF, "not iterable"),
        (lambda: REF[0], "not subscriptable"),
        (lambda: len(REF), "object of type 'ObjectRef' has no len()"),
        (lambda: float(REF), "float() argument"),
        (lambda: f"{REF:.2f}", "unsupported format string"),
    ],
)
def test_a_ref_is_not_its_value(use: Callable[[], Any], said: str) -> None:
    with pytest.raises(TypeError) as caught:
        use()
    assert said in str(caught.value)
    assert "did you forget get()" in str(caught.value)


def test_attributes() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'shape'.*did you forget get"):
        REF.shape  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'task_ids'\. Did you mean 'task_id'"):
        REF.task_ids  # noqa: B018
    assert not hasattr(REF, "_repr_svg_")


def test_what_asks_first_gets_the_answer_it_got() -> None:
    assert bool(REF)
    assert not isinstance(REF, (Iterable, Collection))
    assert not callable(REF)
    assert f"{REF}" == str(REF)
    assert REF != 1
    assert copy.deepcopy([REF]) == [REF]
    assert numpy.array([REF, REF]).shape == (2,)
    assert pandas.Series([REF, REF]).shape == (2,)


def test_a_class_that_knows_refs_has_its_say() -> None:
    assert REF + Overloads() == "radd"
    assert (Overloads() > REF) == "gt"


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ((REF,), ValueError, "Make it a list."),
        ({REF}, ValueError, "Make a list of the refs first."),
        (iter([REF]), ValueError, "Make a list of the refs first."),
        ([[REF]], TypeError, "one list"),
        (rabbitry.remote(lambda: 1), ValueError, "It was not called"),
    ],
)
def test_get_says_what_to_do_instead(
    given: Any, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current, "_client", object())  # of which nothing is asked
    with pytest.raises(error) as caught:
        get(given)
    assert said in str(caught.value)
