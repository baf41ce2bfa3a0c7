"""Label selectors: what is refused, their canonical text, and which nodes fit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rabbitry.labels import check_labels, matches, parse_selector, selector_text

WORDS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,6}[A-Za-z0-9])?", fullmatch=True)
CONDITIONS = st.builds(
    lambda negated, values, listed: (
        ("!" if negated else "") + (f"in({', '.join(values)})" if listed or len(values) > 1 else values[0])
    ),
    st.booleans(),
    st.lists(WORDS, min_size=1, max_size=3),
    st.booleans(),
)
PARTS = st.from_regex(r"[a-z0-9]{1,4}", fullmatch=True)
KEYS = st.one_of(WORDS, st.builds("{}.{}/{}".format, PARTS, PARTS, WORDS))


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        (None, ""),
        ({}, ""),
        ({"a": "b"}, "a=b"),
        ({"a": ""}, "a="),
        ({"b": "!c", "a": "in(z, y,z)"}, "a=in(y,z);b=!c"),
        ({"a": "in(b)"}, "a=b"),
        ({"a": "(b)"}, "a=b"),
        ({"ray.io/zone": "!in(a,b)"}, "ray.io/zone=!in(a,b)"),
    ],
)
def test_canonical_text(selector: Any, text: str) -> None:
    assert selector_text(selector) == text
    assert selector_text(None) == ""


@pytest.mark.parametrize(
    "condition", ["in()", "in(a,", "-a", "a-", "a b", "!!a", "!", "in(a,  b)", "x" * 64, "a;b", "*"]
)
def test_bad_conditions(condition: str) -> None:
    with pytest.raises(ValueError, match="label selector"):
        selector_text({"key": condition})


@pytest.mark.parametrize("key", ["", "-a", "a/", "/a", "a b", "x" * 64, "-x/a", "a..b/c", "y" * 254 + "/a", "a=b"])
def test_bad_keys(key: str) -> None:
    with pytest.raises(ValueError, match="label key"):
        selector_text({key: "a"})


@pytest.mark.parametrize("selector", [{"a": 3}, {"a": None}, {3: "a"}])
def test_wrong_types(selector: Any) -> None:
    with pytest.raises(TypeError):
        selector_text(selector)


@pytest.mark.parametrize(
    ("text", "labels", "fits"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a=b", {"a": "c"}, False),
        ("a=b", {}, False),
        ("a=!b", {"a": "c"}, True),
        ("a=!b", {}, True),
        ("a=!b", {"a": "b"}, False),
        ("a=in(b,c)", {"a": "c"}, True),
        ("a=in(b,c)", {"a": "d"}, False),
        ("a=!in(b,c)", {"a": "b"}, False),
        ("a=!in(b,c)", {}, True),
        ("a=*", {"a": "x"}, True),
        ("a=*", {}, False),
        ("a=!*", {}, True),
        ("a=!*", {"a": "x"}, False),
        ("a=", {"a": ""}, True),
        ("a=b;c=d", {"a": "b"}, False),
        ("a=b;c=d", {"a": "b", "c": "d"}, True),
    ],
)
def test_which_nodes_fit(text: str, labels: dict[str, str], fits: bool) -> None:
    assert matches(text, labels) is fits


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(KEYS, CONDITIONS, max_size=3))
def test_the_canonical_text_can_be_read_back(selector: dict[str, str]) -> None:
    text = selector_text(selector)
    assert ";".join(sorted(map(str, parse_selector(text)))) == text


def test_rubbish_is_no_canonical_text() -> None:
    with pytest.raises(ValueError, match="no label selector"):
        parse_selector("rubbish")


def test_labels_of_nodes_are_checked() -> None:
    assert check_labels({"zone": "a", "example.org/tier": ""}) == {"zone": "a", "example.org/tier": ""}
    with pytest.raises(ValueError, match="value of label 'zone'"):
        check_labels({"zone": "no good"})
    with pytest.raises(TypeError, match="labels are text"):
        check_labels({"zone": 3})  # type: ignore[dict-item]
