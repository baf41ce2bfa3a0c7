"""Refs that leave a process by ways that nobody can watch are held as long as the process lives."""

from __future__ import annotations

import gc
import pickle
import time
from typing import Any

import cloudpickle
import numpy
import pytest

import warren

pytestmark = pytest.mark.usefixtures("session")


def test_a_ref_in_a_closure_is_held_for_the_function() -> None:
    captured = warren.put(numpy.full(100_000, 9.0))

    @warren.remote
    def read() -> Any:
        return warren.get(captured).sum()  # noqa: F821 - deleted below, after the closure was taken

    assert warren.get(read.remote()) == 900_000
    del captured
    gc.collect()
    time.sleep(1.0)
    assert warren.get(read.remote()) == 900_000


def test_a_ref_in_a_global_is_held_for_the_function() -> None:
    namespace: dict[str, Any] = {"warren": warren, "ref": warren.put("global")}
    exec("def read():\n    return warren.get(ref)", namespace)
    read = warren.remote(namespace["read"])
    assert warren.get(read.remote(), timeout=10) == "global"


def test_a_ref_pickled_by_hand_is_held() -> None:
    pickled = cloudpickle.dumps({"ref": warren.put("kept")})
    gc.collect()
    time.sleep(1.0)
    assert warren.get(pickle.loads(pickled)["ref"]) == "kept"


def test_a_ref_pickled_by_hand_is_readable_in_a_task() -> None:
    @warren.remote
    def read(pickled: bytes) -> Any:
        return warren.get(pickle.loads(pickled))

    pickled = cloudpickle.dumps(warren.put(["in", "a", "task"]))
    gc.collect()
    assert warren.get(read.remote(pickled), timeout=10) == ["in", "a", "task"]
