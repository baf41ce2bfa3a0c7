"""`inspect_serializability` finds what Ray's does, and more of it."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest

from rabbitry.util.check_serialize import FailureTuple, inspect_serializability
from rabbitry.util.serialization import deregister_serializer, register_serializer

LOCK = threading.Lock()


class Service:
    def __init__(self) -> None:
        self.lock = LOCK


def uses_the_lock() -> Any:
    return LOCK


uses_the_lock.__module__ = "__main__"  # as if the program defined it


def check(value: Any, **options: Any) -> tuple[bool, list[FailureTuple], str]:
    report = io.StringIO()
    ok, failures = inspect_serializability(value, print_file=report, **options)
    return ok, sorted(failures, key=lambda failure: failure.path), report.getvalue()


@pytest.mark.parametrize("value", [1, None, "x", [1, {"a": lambda: 5}], Service])
def test_what_can_be_sent(value: Any) -> None:
    ok, failures, report = check(value, name="it")
    assert (ok, failures) == (True, [])
    assert "it can be sent" in report


# The expected paths are what Ray 2.60 returns for the same values.
@pytest.mark.parametrize(
    ("value", "name", "path"),
    [
        (LOCK, None, ()),
        (LOCK, "lk", ("lk",)),
        (Service(), None, ("lock",)),
        (Service(), "a", ("a", "lock")),
        (uses_the_lock, None, ("LOCK",)),
        (uses_the_lock, "f", ("f", "LOCK")),
    ],
)
def test_paths_are_as_in_ray(value: Any, name: str | None, path: tuple[str, ...]) -> None:
    ok, (failure,), _ = check(value, name=name)
    assert not ok
    assert failure.path == path
    assert failure.obj is LOCK
    assert failure.parent is (None if value is LOCK else value)
    assert failure.name == (path[-1] if path else "unknown")


def test_containers_are_looked_into() -> None:
    config = {"services": [Service()]}
    ok, (failure,), report = check(config, name="config", depth=5)
    assert not ok
    assert failure.obj is LOCK
    assert failure.parent is config["services"][0]
    assert "config['services'][0].lock: cannot pickle '_thread.lock' object" in report


def test_depth_limits_the_search() -> None:
    value = {"a": {"b": {"c": LOCK}}}
    found = [check(value, depth=depth)[1][0].obj for depth in range(5)]
    assert found == [value, value["a"], value["a"]["b"], LOCK, LOCK]


def test_several_culprits_are_all_named() -> None:
    _, failures, report = check({"one": LOCK, "two": (each for each in "ab"), "three": 3})
    assert [failure.path for failure in failures] == [("'one'",), ("'two'",)]
    assert "['one']" in report
    assert "['two']" in report


def test_failures_print_well() -> None:
    _, (failure,), _ = check(Service(), name="s")
    assert repr(failure).startswith("FailureTuple(lock [path=s -> lock, obj=<unlocked")


def test_the_report_goes_to_the_screen_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    inspect_serializability(LOCK, name="the_lock")
    printed = capsys.readouterr().out
    assert "the_lock cannot be sent" in printed
    assert "register_serializer" in printed


def test_a_registered_serializer_counts() -> None:
    register_serializer(Service, serializer=lambda service: None, deserializer=lambda data: Service())
    try:
        assert check([Service()])[0]
    finally:
        deregister_serializer(Service)
    assert not check([Service()])[0]
