"""Arguments of remote calls are checked where the call is written, exactly as Python itself would."""

from __future__ import annotations

import functools
import inspect
import operator
import pickle
import threading
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rabbitry.signature import Signature


def plain(a: int, b: int = 1) -> None: ...
def positional_only(a: int, /, b: int) -> None: ...
def keyword_only(a: int, *, key: int, other: int = 2) -> None: ...
def optional_keyword_only(a: int, *, key: int = 3) -> None: ...
def variadic(*args: int, **kwargs: int) -> None: ...
def nothing() -> None: ...


@functools.wraps(plain)
def wrapped(*args: Any, **kwargs: Any) -> None: ...


def fits(signature: Signature, *args: Any, **kwargs: Any) -> bool:
    try:
        signature.check(args, kwargs)
    except TypeError:
        return False
    return True


def test_messages_say_what_is_wrong_and_show_the_signature() -> None:
    signature = Signature(plain)
    for args, kwargs, message in [
        ((), {}, "missing a required argument: 'a'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"c": 1}, "got an unexpected keyword argument 'c'"),
        ((1,), {"a": 1}, "multiple values for argument 'a'"),
    ]:
        with pytest.raises(TypeError, match=message) as caught:
            signature.check(args, kwargs)
        assert "plain(a, b=...)" in str(caught.value)


def test_counts_of_positional_arguments() -> None:
    bounds = {
        function.__name__: (signature.low, signature.high)
        for function in (plain, positional_only, nothing, optional_keyword_only, wrapped)
        for signature in [Signature(function)]
    }
    assert bounds == {
        "plain": (1, 2),
        "positional_only": (2, 2),
        "nothing": (0, 0),
        "optional_keyword_only": (1, 1),
        # functools.wraps: what counts is the function inside.
    } | {wrapped.__name__: (1, 2)}
    assert Signature(variadic).high > 10**9


def test_a_required_keyword_makes_no_plain_call_valid() -> None:
    signature = Signature(keyword_only)
    assert signature.low > signature.high
    assert not fits(signature, 1)
    assert fits(signature, 1, key=2)


def test_positional_only_names_are_no_keywords() -> None:
    signature = Signature(positional_only)
    assert fits(signature, 1, 2)
    assert fits(signature, 1, b=2)
    assert not fits(signature, a=1, b=2)


def test_partials() -> None:
    assert fits(Signature(functools.partial(plain, 1)))
    assert not fits(Signature(functools.partial(plain, 1)), 2, 3)
    by_keyword = Signature(functools.partial(plain, b=5))
    assert fits(by_keyword, 1)
    assert not fits(by_keyword, 1, 2)
    assert by_keyword.name == "plain"


def test_functions_that_tell_no_signature_take_anything() -> None:
    assert fits(Signature(max), 1, 2, key=abs)
    assert fits(Signature(dict.update), 1, 2, 3)
    assert fits(Signature(operator.itemgetter(1)), [1, 2])


def test_a_repeated_wrong_call_is_refused_each_time() -> None:
    signature = Signature(plain)
    for _ in range(3):
        assert fits(signature, 1, b=2)
        assert not fits(signature, 1, c=2)


def test_the_memory_of_shapes_is_bounded() -> None:
    signature = Signature(variadic)
    for index in range(1000):
        assert fits(signature, **{f"name_{index}": 1})
    assert len(signature._shapes) < 300


class Methods:
    def __init__(self, start: int, *, step: int = 1) -> None: ...
    def usual(self, a: int, b: int = 1) -> None: ...
    @classmethod
    def of_class(cls, a: int) -> None: ...
    @staticmethod
    def static(a: int) -> None: ...
    def loose(*args: int) -> None: ...
    def selfless() -> None: ...  # type: ignore[misc]
    async def later(self, a: int) -> None: ...


@pytest.mark.parametrize("name", ["usual", "of_class", "static", "later"])
def test_methods_are_checked_without_self(name: str) -> None:
    signature = Signature.of_method(Methods, name)
    assert signature.name == f"Methods.{name}"
    assert fits(signature, 1)
    assert not fits(signature)
    assert not fits(signature, 1, 2, 3)


def test_a_method_that_takes_only_variadic_arguments() -> None:
    assert fits(Signature.of_method(Methods, "loose"))
    assert fits(Signature.of_method(Methods, "loose"), 1, 2)


def test_a_method_without_self_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Methods\.selfless takes no arguments"):
        Signature.of_method(Methods, "selfless")


class Bare: ...


class BareDict(dict):  # type: ignore[type-arg]
    pass


class ByNew:
    def __new__(cls, a: int) -> ByNew:
        return super().__new__(cls)


class Inherits(Methods): ...


class Record(NamedTuple):
    x: int


def test_constructors() -> None:
    assert fits(Signature.of_constructor(Methods), 1, step=2)
    assert not fits(Signature.of_constructor(Methods))
    assert fits(Signature.of_constructor(Inherits), 1)
    for bare in (Bare, BareDict):
        assert fits(Signature.of_constructor(bare))
        assert not fits(Signature.of_constructor(bare), 1)
    for by_new in (ByNew, Record):
        assert fits(Signature.of_constructor(by_new), 1)
        assert not fits(Signature.of_constructor(by_new))


def test_signatures_travel_without_their_function() -> None:
    def local(a: Any = threading.Lock, *, b: Any = lambda: None) -> None: ...

    signature = Signature(local)
    again = pickle.loads(pickle.dumps(signature))
    assert again == signature
    assert str(again) == "local(a=..., *, b=...)"
    assert not fits(again, 1, 2)


PARAMETERS = st.tuples(
    st.lists(st.booleans(), max_size=2),
    st.lists(st.booleans(), max_size=3),
    st.booleans(),
    st.lists(st.booleans(), max_size=2),
    st.booleans(),
)


def build(shape: tuple[list[bool], list[bool], bool, list[bool], bool]) -> Any:
    """Make a function with parameters of each kind; True stands for one with a default."""
    only, usual, var, keywords, var_keywords = shape
    defaults = False
    parts: list[str] = []
    for names, has in (("pq", only), ("abc", usual)):
        for name, each in zip(names, has, strict=False):
            # A parameter without a default cannot follow one with.
            defaults = defaults or each
            parts.append(f"{name}=0" if defaults else name)
        if names == "pq" and only:
            parts.append("/")
    if var:
        parts.append("*args")
    elif keywords:
        parts.append("*")
    parts += [f"{name}=0" if each else name for name, each in zip("kl", keywords, strict=False)]
    if var_keywords:
        parts.append("**rest")
    space: dict[str, Any] = {}
    exec(f"def f({', '.join(parts)}): pass", space)
    return space["f"]


@settings(deadline=None, max_examples=300)
@given(
    shape=PARAMETERS,
    count=st.integers(0, 6),
    names=st.sets(st.sampled_from(["p", "a", "b", "c", "k", "l", "z"]), max_size=4),
)
def test_agrees_with_python(shape: Any, count: int, names: set[str]) -> None:
    function = build(shape)
    signature = Signature(function)
    args, kwargs = (1,) * count, dict.fromkeys(sorted(names), 1)
    try:
        inspect.signature(function).bind(*args, **kwargs)
        expected = ""
    except TypeError as error:
        expected = str(error)
    for _ in range(2):
        try:
            signature.check(args, kwargs)
            got = ""
        except TypeError as error:
            got = str(error)
        assert got.startswith(expected)
        assert bool(got) == bool(expected)
    if not kwargs:
        assert (signature.low <= count <= signature.high) == (not expected)
