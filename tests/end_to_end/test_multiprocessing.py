"""`rabbitry.util.multiprocessing.Pool`, on both engines; see `tests/oracle/snippets/multiprocessing_pool.py` too."""

from __future__ import annotations

import functools
import itertools
import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import rabbitry
from rabbitry.exceptions import ActorDiedError, ActorError, TaskError
from rabbitry.util.multiprocessing import JoinableQueue, Pool, TimeoutError
from tests.end_to_end.waiting import wait_for_file, wait_until

pytestmark = pytest.mark.usefixtures("session")
TIMEOUT = 30


def square(x):
    return x * x


def odd_fails(x):
    if x % 2:
        raise ValueError(x)
    return x


def after(path):
    wait_for_file(Path(path))
    return path


def pid(_):
    return os.getpid()


def die_on_three(x):
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


class OddError(Exception):
    """Its instances cannot be made again from their pickles."""

    def __init__(self, one, two):
        super().__init__(one)


@pytest.fixture(scope="module")
def pool(session):
    with Pool(2) as pool:
        yield pool


def test_the_face():
    assert TimeoutError is multiprocessing.TimeoutError
    assert JoinableQueue == multiprocessing.JoinableQueue


def test_map_and_its_relatives(pool):
    assert pool.map(square, range(10)) == [x * x for x in range(10)]
    assert pool.map(square, iter(range(5)), chunksize=2) == [0, 1, 4, 9, 16]
    assert pool.map(square, []) == []
    assert pool.starmap(pow, [(2, 3), (3, 2)]) == [8, 9]
    assert list(pool.imap(square, range(30), chunksize=4)) == [x * x for x in range(30)]
    assert sorted(pool.imap_unordered(square, range(30))) == [x * x for x in range(30)]
    assert pool.apply(math.pow, (2, 3)) == 8
    assert pool.apply(int, ("11",), {"base": 2}) == 3
    assert len(set(pool.map(pid, range(20), chunksize=1))) == 2


def test_functions_of_all_kinds(pool):
    factor = 3
    array = np.ones(100_000)  # too large to travel with each chunk
    assert pool.map(lambda x: factor * x, [1, 2]) == [3, 6]
    assert pool.map(functools.partial(pow, 2), [1, 2]) == [2, 4]
    assert pool.map("{}!".format, [1, 2]) == ["1!", "2!"]
    assert pool.map(lambda x: float(array.sum()) + x, range(8)) == [100_000.0 + x for x in range(8)]


def test_the_first_error_is_raised_as_it_was(pool):
    with pytest.raises(ValueError) as caught:
        pool.map(odd_fails, [0, 2, 5, 3])
    assert type(caught.value) is ValueError
    assert caught.value.args == (5,)
    assert isinstance(caught.value.__cause__, TaskError)
    assert "odd_fails" in str(caught.value.__cause__)

    def fail(x):
        raise OddError(x, 2)

    with pytest.raises(Exception, match="1") as odd:
        pool.map(fail, [1])
    assert type(odd.value).__name__ == "OddError"
    with pytest.raises(TypeError):
        pool.apply(threading.Lock)
    with pytest.raises(TypeError):
        pool.apply(square, (threading.Lock(),))
    assert pool.apply(square, (2,)) == 4


def test_an_iterator_goes_on_after_an_error(pool):
    for kind, chunksize in itertools.product((pool.imap, pool.imap_unordered), (1, 3)):
        iterator = kind(odd_fails, range(6), chunksize)
        found = []
        while True:
            try:
                found.append(next(iterator))
            except ValueError as error:
                found.append(str(error))
            except StopIteration:
                break
        assert sorted(map(str, found)) == list("012345")
        assert sum(type(each) is str for each in found) == 3


def test_async_results(pool, tmp_path):
    go = tmp_path / "go"
    result = pool.apply_async(after, (str(go),))
    assert not result.ready()
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    with pytest.raises(TimeoutError):
        result.get(timeout=0.01)
    go.touch()
    assert result.get(TIMEOUT) == str(go)
    assert result.ready()
    assert result.successful()
    failing = pool.map_async(odd_fails, range(3))
    failing.wait(TIMEOUT)
    assert not failing.successful()
    assert pool.starmap_async(pow, [(2, 3)]).get(TIMEOUT) == [8]


def test_callbacks_are_called_before_a_result_counts_as_ready(pool):
    called = []
    results = [
        pool.apply_async(square, (3,), callback=called.append),
        pool.map_async(square, [1, 2], callback=called.append),
        pool.map_async(odd_fails, [1, 2], error_callback=lambda error: called.append(error.underlying.args)),
        pool.map_async(square, [], callback=called.append),
        pool.apply_async(square, (4,), callback=lambda value: called.append(pool.apply(square, (value,)))),
    ]
    for result in results:
        result.wait(TIMEOUT)
        assert result.ready()
    assert sorted(map(str, called)) == sorted(["9", "[1, 4]", "(1,)", "[]", "256"])


def test_work_that_nobody_waits_for_is_done(pool, tmp_path):
    paths = [tmp_path / str(number) for number in range(20)]
    result = pool.map_async(lambda path: path.touch(), paths, chunksize=1)
    for path in paths:
        wait_for_file(path)
    assert result.get(TIMEOUT) == [None] * 20


def test_an_iterable_is_read_as_results_are_taken(pool):
    squares = pool.imap(square, itertools.count())
    assert [next(squares) for _ in range(50)] == [x * x for x in range(50)]
    drawn = []
    iterator = pool.imap(square, (drawn.append(x) or x for x in range(1000)))
    next(iterator)
    assert len(drawn) < 1000
    assert sum(1 for _ in iterator) == 999


def test_next_in_time(pool, tmp_path):
    slow, fast = tmp_path / "slow", tmp_path / "fast"
    fast.touch()
    iterator = pool.imap(after, [str(slow), str(fast)])
    with pytest.raises(TimeoutError):
        iterator.next(timeout=0.01)
    slow.touch()
    assert [iterator.next(TIMEOUT), iterator.next(TIMEOUT)] == [str(slow), str(fast)]
    slow.unlink()
    unordered = pool.imap_unordered(after, [str(slow), str(fast)])
    assert unordered.next(timeout=TIMEOUT) == str(fast)
    with pytest.raises(TimeoutError):
        unordered.next(timeout=0)
    slow.touch()
    assert list(unordered) == [str(slow)]


def test_threads_share_a_pool(pool):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(pool.map(square, range(50), chunksize=1))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert found == [[x * x for x in range(50)]] * 4


def test_a_process_that_dies_is_replaced():
    with Pool(1) as pool:
        before = pool.apply(pid, (0,))
        with pytest.raises(ActorError):
            pool.map(die_on_three, range(5), chunksize=1)
        assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
        assert pool.apply(pid, (0,)) != before


def test_close_lets_work_end_and_terminate_does_not(tmp_path):
    pool = Pool(1)
    result = pool.map_async(square, range(10), chunksize=1)
    with pytest.raises(ValueError, match="running"):
        pool.join()
    pool.close()
    with pytest.raises(ValueError, match="closed"):
        pool.map(square, [1])
    pool.join()
    pool.join()
    assert result.get() == [x * x for x in range(10)]
    pool = Pool(1)
    result = pool.apply_async(after, (str(tmp_path / "never"),))
    pool.terminate()
    pool.join()
    with pytest.raises(ActorDiedError):
        result.get(TIMEOUT)


def test_a_pool_that_nobody_closed_ends_with_its_last_user():
    pool = Pool(1)
    assert pool.map(square, range(10), chunksize=1) == [x * x for x in range(10)]
    process = pool.apply(pid, (0,))
    assert next(pool.imap(square, [3])) == 9
    del pool
    wait_until(lambda: not Path(f"/proc/{process}").exists() if sys.platform == "linux" else True)


def test_initializers_and_fresh_processes(tmp_path):
    log = tmp_path / "log"

    def initialize(text):
        with log.open("a") as file:
            file.write(text)

    with Pool(1, initializer=initialize, initargs=("x",), maxtasksperchild=2) as pool:
        assert len(set(pool.map(pid, range(6), chunksize=1))) == 3
    assert log.read_text() in ("xxx", "xxxx")  # one more may have been made ready
    with pytest.raises(ActorDiedError, match="ZeroDivisionError"):
        Pool(1, initializer=lambda: 1 // 0)


def test_what_an_initializer_sets_is_seen_by_functions_of_the_program(tmp_path):
    code = """
value = None
def initialize(given):
    global value
    value = given
def read(_):
    return value
"""
    module = {"__name__": "__main__"}
    exec(code, module)  # as if in the program itself: its functions travel by value
    with Pool(1, initializer=module["initialize"], initargs=("set",)) as pool:
        assert pool.map(module["read"], range(3), chunksize=1) == ["set"] * 3
        assert pool.apply(functools.partial(module["read"], 0)) == "set"


def test_bad_arguments(pool):
    for options in ({"processes": 0}, {"processes": 3}, {"processes": 1, "maxtasksperchild": 0}):
        with pytest.raises(ValueError):
            Pool(**options)
    for method in (pool.map, pool.imap, pool.imap_unordered, pool.starmap):
        with pytest.raises(ValueError, match="chunksize"):
            method(square, [1], chunksize=0)
        with pytest.raises(TypeError):
            method(square, 5)
    with pytest.raises(NotImplementedError):
        pickle.dumps(pool)


def test_inside_a_task():
    @rabbitry.remote
    def task():
        with Pool(2) as pool:
            return pool.map(square, range(5))

    assert rabbitry.get(task.remote(), timeout=TIMEOUT) == [0, 1, 4, 9, 16]


def test_long_chunks_go_to_whoever_is_free(pool):
    # Had each process half of the chunks from the beginning, one would sleep for all of these.
    begin = time.monotonic()
    pids = pool.map(lambda seconds: (time.sleep(seconds), os.getpid())[1], [0.6] + [0.05] * 8, chunksize=1)
    assert pids.count(pids[0]) <= 3, f"{pids} within {time.monotonic() - begin} s"
