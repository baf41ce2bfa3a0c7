"""Refs that leave a process by ways that nobody can watch are held as long as the process lives."""

from __future__ import annotations

import gc
import pickle
import time
from typing import Any

import cloudpickle
import numpy
import pytest

import rabbitry

pytestmark = pytest.mark.usefixtures("session")


def test_a_ref_in_a_closure_is_held_for_the_function() -> None:
    captured = rabbitry.put(numpy.full(100_000, 9.0))

    @rabbitry.remote
    def read() -> Any:
        return rabbitry.get(captured).sum()  # noqa: F821 - deleted below, after the closure was taken

    assert rabbitry.get(read.remote()) == 900_000
    del captured
    gc.collect()
    time.sleep(1.0)
    assert rabbitry.get(read.remote()) == 900_000


def test_a_ref_in_a_global_is_held_for_the_function() -> None:
    namespace: dict[str, Any] = {"rabbitry": rabbitry, "ref": rabbitry.put("global")}
    exec("def read():\n    return rabbitry.get(ref)", namespace)
    read = rabbitry.remote(namespace["read"])
    assert rabbitry.get(read.remote(), timeout=10) == "global"


def test_a_ref_pickled_by_hand_is_held() -> None:
    pickled = cloudpickle.dumps({"ref": rabbitry.put("kept")})
    gc.collect()
    time.sleep(1.0)
    assert rabbitry.get(pickle.loads(pickled)["ref"]) == "kept"


def test_a_ref_pickled_by_hand_is_readable_in_a_task() -> None:
    @rabbitry.remote
    def read(pickled: bytes) -> Any:
        return rabbitry.get(pickle.loads(pickled))

    pickled = cloudpickle.dumps(rabbitry.put(["in", "a", "task"]))
    gc.collect()
    assert rabbitry.get(read.remote(pickled), timeout=10) == ["in", "a", "task"]
