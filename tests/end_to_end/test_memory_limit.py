"""Executors that take more memory than they may: the error names the task, and everything else goes on."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

import numpy
import pytest

import rabbitry
from rabbitry.exceptions import ActorDiedError, OutOfMemoryError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory of processes is read from /proc")

LIMIT = 256 << 20
HOG = 400 << 20
SHARED = 300 << 20


@pytest.fixture(scope="module", autouse=True)
def limited() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RABBITRY_EXECUTOR_MEMORY_LIMIT", str(LIMIT))
        rabbitry.init(num_cpus=2)
        yield
        rabbitry.shutdown()


def take(size: int) -> None:
    kept = bytearray(size)
    kept[::4096] = b"x" * len(kept[::4096])
    time.sleep(20)


@rabbitry.remote(max_retries=0)
def hog():
    take(HOG)


@rabbitry.remote(max_retries=1)
def hog_twice(path):
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    take(HOG)


@rabbitry.remote
def modest(value):
    return value + 1


@rabbitry.remote
def total(array):
    return int(array.sum())


@rabbitry.remote(num_cpus=0)
class Glutton:
    def eat(self):
        take(HOG)

    def pid(self):
        return os.getpid()


def test_the_error_names_the_task_and_the_limit():
    with pytest.raises(OutOfMemoryError) as caught:
        rabbitry.get(hog.remote(), timeout=20)
    text = str(caught.value)
    assert "hog" in text and "256 MiB" in text and "RABBITRY_EXECUTOR_MEMORY_LIMIT" in text
    assert rabbitry.get([modest.remote(each) for each in range(20)], timeout=20) == list(range(1, 21))


def test_retries_are_used_up_first(tmp_path):
    with pytest.raises(OutOfMemoryError):
        rabbitry.get(hog_twice.remote(str(tmp_path / "runs")), timeout=30)
    assert len(set((tmp_path / "runs").read_text().split())) == 2


def test_an_actor_dies_of_it_and_says_so():
    glutton = Glutton.remote()
    assert rabbitry.get(glutton.pid.remote(), timeout=20)
    with pytest.raises(ActorDiedError, match="256 MiB"):
        rabbitry.get(glutton.eat.remote(), timeout=20)


def test_large_objects_in_shared_memory_are_not_counted():
    ref = rabbitry.put(numpy.ones(SHARED // 8))
    assert rabbitry.get([total.remote(ref) for _ in range(4)], timeout=30) == [SHARED // 8] * 4


def test_an_impossible_limit_is_refused(monkeypatch):
    from rabbitry_workers.node.services.memory import limit_from_environment

    for text in ("much", "-1", "1000"):
        with pytest.raises(ValueError, match="RABBITRY_EXECUTOR_MEMORY_LIMIT"):
            limit_from_environment({"RABBITRY_EXECUTOR_MEMORY_LIMIT": text})
    assert limit_from_environment({}) is limit_from_environment({"RABBITRY_EXECUTOR_MEMORY_LIMIT": "0"}) is None
