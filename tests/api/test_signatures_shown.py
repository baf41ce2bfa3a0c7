"""What `help`, `dir` and `inspect` tell of remote functions, classes and handles."""

from __future__ import annotations

import gc
import inspect
import pydoc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import rabbitry
from rabbitry import cloudpickle
from rabbitry.actor import ActorClass, ActorHandle, ActorProxy
from rabbitry.remote_function import RemoteFunction


def scale(x: int, *, by: float = 2.0) -> float:
    """Scale x."""
    return x * by


class Counter:
    """Counts."""

    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, by: int = 1) -> int:
        """Add to it."""
        self.value += by
        return self.value

    @staticmethod
    def fixed(x: int) -> int:
        return x

    def _private(self) -> int:
        return self.value


SCALE = rabbitry.remote(scale)
COUNTER: Any = rabbitry.remote(Counter)


@pytest.fixture(scope="module")
def counter() -> Iterator[Any]:
    with rabbitry.init(num_cpus=1, log_to_driver=False):
        yield COUNTER.remote(3)


def test_a_remote_function_has_its_function_s_signature() -> None:
    for each in (SCALE, SCALE.remote, SCALE.options(num_cpus=2).remote, cloudpickle.loads(cloudpickle.dumps(SCALE))):
        assert inspect.signature(each) == inspect.signature(scale)
        assert inspect.getdoc(each) == "Scale x."
    assert "Scale x." in pydoc.render_doc(SCALE.remote)
    assert dir(SCALE) == ["bind", "options", "remote"]


def test_a_class_has_its_constructor_s_signature() -> None:
    assert inspect.signature(COUNTER.remote) == inspect.signature(Counter)
    assert inspect.getdoc(COUNTER.remote) == "Counts."
    assert dir(COUNTER) == ["add", "bind", "fixed", "options", "remote"]
    assert repr(COUNTER.remote).startswith("Counter.remote(start")


def test_a_handle_has_its_methods_signatures(counter: Any) -> None:
    for each in (counter.add, counter.add.remote):
        assert str(inspect.signature(each)) in ("(by: 'int' = 1) -> 'int'", "(by: int = 1) -> int")
        assert inspect.getdoc(each) == "Add to it."
        assert each.__name__ == "add"
    assert list(inspect.signature(counter.fixed).parameters) == ["x"]
    assert dir(counter) == ["add", "fixed"]
    assert dir(counter.add) == ["bind", "options", "remote"]
    assert "Add to it." in pydoc.render_doc(counter.add.remote)


def test_where_the_class_is_not_known_a_handle_still_has_signatures(counter: Any) -> None:
    from rabbitry.actor_handle import classes

    known = classes.pop(counter._rabbitry_packed_facts)
    try:
        assert str(inspect.signature(counter.add.remote)) == "(by=...)"
        assert inspect.getdoc(counter.add) is None or "bound to a handle" not in str(counter.add.__doc__)
    finally:
        classes[counter._rabbitry_packed_facts] = known


def test_what_is_remote_may_be_passed_along(counter: Any) -> None:
    @rabbitry.remote
    def call(function: Any, method: Any) -> tuple[float, int]:
        return rabbitry.get(function(2)), rabbitry.get(method(1))

    before = rabbitry.get(counter.add.remote(0))
    assert rabbitry.get(call.remote(SCALE.remote, counter.add.remote)) == (4.0, before + 1)


def test_a_remote_function_goes_with_its_last_reference() -> None:
    class Held:
        pass

    def made(held: Held) -> Any:
        return rabbitry.remote(lambda: str(held))

    held = Held()
    gone = weakref.ref(held)
    remote: Any = made(held)
    gc.disable()
    try:
        del held
        assert gone() is not None
        del remote
        assert gone() is None
    finally:
        gc.enable()


def test_a_name_that_is_almost_a_method(counter: Any) -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'ad'\. Did you mean 'add'"):
        counter.ad.remote()
    with pytest.raises(AttributeError, match=r"has no attribute 'remot'\. Did you mean 'remote'"):
        COUNTER.remot()


@pytest.mark.parametrize(
    "generic", [rabbitry.ObjectRef, rabbitry.ObjectRefGenerator, ActorHandle, ActorProxy, ActorClass, RemoteFunction]
)
def test_hints_have_parameters(generic: Any) -> None:
    assert generic[int] == generic[int]
    assert generic[int].__args__ == (int,)


def test_refused_directly(counter: Any) -> None:
    with pytest.raises(TypeError, match=r"try '[\w.]*scale.remote\(\)'"):
        SCALE(1)  # type: ignore[operator]
    with pytest.raises(TypeError, match=r"try 'object.add.remote\(\)'"):
        counter.add()
