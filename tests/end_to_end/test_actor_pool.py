"""`rabbitry.util.ActorPool`, on both engines. That it does as Ray's shows `tests/oracle/snippets/actor_pool.py`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import rabbitry
from rabbitry.exceptions import ActorDiedError, ActorError
from rabbitry.util import ActorPool
from tests.end_to_end.waiting import wait_for_file

pytestmark = pytest.mark.usefixtures("session")
TIMEOUT = 30


@rabbitry.remote(num_cpus=0)
class Worker:
    def double(self, x):
        return 2 * x

    def fail(self, x):
        raise ValueError(x)

    def after(self, path, x):
        wait_for_file(Path(path))
        return x

    def pair(self, x):
        return x, -x

    def stream(self, x):
        yield from range(x)

    def pid(self):
        return os.getpid()

    def call_dead(self, other):
        return rabbitry.get(other.double.remote(1))


def double(actor, x):
    return actor.double.remote(x)


@pytest.fixture
def pool():
    return ActorPool([Worker.remote(), Worker.remote()])


def test_map_keeps_the_order_and_map_unordered_does_not_wait_for_it(pool, tmp_path):
    assert list(pool.map(double, range(20))) == [2 * x for x in range(20)]
    assert sorted(pool.map_unordered(double, range(20))) == [2 * x for x in range(20)]
    go = tmp_path / "go"

    def slow_first(actor, x):
        return actor.after.remote(str(go), x) if x == 0 else actor.double.remote(x)

    results = pool.map_unordered(slow_first, range(4))
    assert sorted(next(results) for _ in range(3)) == [2, 4, 6]
    go.touch()
    assert list(results) == [0]


def test_work_waits_for_an_actor(pool):
    for x in range(5):
        pool.submit(double, x)
    assert not pool.has_free()
    assert pool.pop_idle() is None
    assert [pool.get_next(TIMEOUT) for _ in range(5)] == [0, 2, 4, 6, 8]
    assert not pool.has_next()
    assert pool.has_free()
    with pytest.raises(StopIteration):
        pool.get_next()


def test_time_outs(pool, tmp_path):
    go = str(tmp_path / "go")
    pool.submit(lambda actor, x: actor.after.remote(go, x), 1)
    with pytest.raises(TimeoutError):
        pool.get_next(timeout=0)
    with pytest.raises(TimeoutError):
        pool.get_next_unordered(timeout=0.01)
    assert pool.has_next()
    with pytest.raises(TimeoutError):
        pool.get_next_unordered(timeout=0, ignore_if_timedout=True)
    assert not pool.has_next()
    Path(go).touch()
    assert list(pool.map(double, [1, 2, 3])) == [2, 4, 6]


def test_a_call_that_fails_frees_its_actor(pool):
    pool.submit(lambda actor, x: actor.fail.remote(x), 1)
    pool.submit(double, 2)
    pool.submit(double, 3)
    with pytest.raises(ValueError, match="1"):
        pool.get_next(TIMEOUT)
    assert [pool.get_next(TIMEOUT), pool.get_next(TIMEOUT)] == [4, 6]


def test_a_dead_actor_leaves_the_pool(pool):
    first = pool.pop_idle()
    pid = rabbitry.get(first.pid.remote(), timeout=TIMEOUT)
    pool.push(first)
    os.kill(pid, signal.SIGKILL)
    outcomes = []
    for x in range(4):
        pool.submit(double, x)
    while pool.has_next():
        try:
            outcomes.append(pool.get_next(TIMEOUT))
        except ActorError:
            outcomes.append("died")
    assert outcomes.count("died") == 1
    assert pool.pop_idle() is not None
    assert pool.pop_idle() is None


def test_an_actor_that_meets_a_dead_one_stays(pool):
    dead = Worker.remote()
    rabbitry.kill(dead)
    pool.submit(lambda actor, x: actor.call_dead.remote(x), dead)
    with pytest.raises(ActorDiedError):
        pool.get_next(TIMEOUT)
    assert [pool.pop_idle() is None, pool.pop_idle() is None] == [False, False]


def test_push_and_pop(pool):
    actor = pool.pop_idle()
    pool.push(actor)
    with pytest.raises(ValueError, match="already"):
        pool.push(actor)
    pool.submit(double, 1)
    pool.submit(double, 2)
    with pytest.raises(ValueError, match="already"):
        pool.push(actor)
    pool.submit(double, 3)
    third = Worker.remote()
    pool.push(third)
    assert sorted(pool.get_next_unordered(TIMEOUT) for _ in range(3)) == [2, 4, 6]


def test_methods_with_several_results_or_a_stream(pool):
    two = pool.map(lambda actor, x: actor.pair.options(num_returns=2).remote(x), [1, 2, 3])
    assert list(two) == [[1, -1], [2, -2], [3, -3]]
    streams = pool.map(lambda actor, x: actor.stream.options(num_returns="streaming").remote(x), [2])
    assert [rabbitry.get(ref) for ref in next(streams)] == [0, 1]


def test_inside_a_task():
    @rabbitry.remote
    def task():
        return list(ActorPool([Worker.remote(), Worker.remote()]).map(double, range(4)))

    assert rabbitry.get(task.remote(), timeout=TIMEOUT) == [0, 2, 4, 6]
