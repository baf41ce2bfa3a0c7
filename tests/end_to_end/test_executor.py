"""`rabbitry.util.Executor`: what `concurrent.futures` promises, on both engines."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path

import pytest

import rabbitry
from rabbitry.exceptions import TaskCancelledError, TaskError, WorkerCrashedError
from rabbitry.util import Executor
from tests.end_to_end.conftest import node_environment
from tests.end_to_end.waiting import wait_for_file, wait_until

pytestmark = pytest.mark.usefixtures("session")
TIMEOUT = 30


def square(x):
    return x * x


def fail(x):
    raise ValueError(x)


def after(path, x=None):
    wait_for_file(Path(path))
    return x


@pytest.fixture(params=[None, 2])
def executor(request):
    with Executor(request.param) as executor:
        yield executor


def test_submit_and_map(executor):
    assert isinstance(executor, concurrent.futures.Executor)
    future = executor.submit(pow, 2, exp=5)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(TIMEOUT) == 32
    assert future.done()
    assert future.exception() is None
    assert list(executor.map(square, range(50))) == [x * x for x in range(50)]
    assert list(executor.map(pow, [2, 3, 4], [3, 2], chunksize=2)) == [8, 9]
    assert list(executor.map(lambda x, y: x + y, range(10), range(10), chunksize=3)) == [2 * x for x in range(10)]
    assert list(executor.map(square, [])) == []
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(square, [1], chunksize=0)


def test_functions_of_all_kinds(executor):
    three = 3
    assert executor.submit(lambda x: three * x, 2).result(TIMEOUT) == 6
    assert [executor.submit(lambda x, n=n: n * x, 2).result(TIMEOUT) for n in range(3)] == [0, 2, 4]
    assert executor.submit("{}!".format, 1).result(TIMEOUT) == "1!"
    assert executor.submit(rabbitry.remote(square), 3).result(TIMEOUT) == 9
    assert executor.submit(square, rabbitry.put(5)).result(TIMEOUT) == 25


def test_errors_arrive_as_they_were(executor):
    future = executor.submit(fail, 5)
    error = future.exception(TIMEOUT)
    assert type(error) is ValueError
    assert error.args == (5,)
    assert isinstance(error.__cause__, TaskError)
    with pytest.raises(ValueError):
        future.result()
    for _ in range(2):  # what does not fit is the call's failure too, however it is sent
        assert isinstance(executor.submit(square, 1, 2).exception(TIMEOUT), TypeError)
    assert isinstance(executor.submit(square, threading.Lock()).exception(TIMEOUT), TypeError)
    results = executor.map(fail, [1, 2])
    with pytest.raises(ValueError, match="1"):
        next(results)


def test_time_outs(executor, tmp_path):
    go = tmp_path / "go"
    future = executor.submit(after, go, 1)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(timeout=0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.exception(timeout=0)
    with pytest.raises(concurrent.futures.TimeoutError):
        list(executor.map(after, [go], timeout=0.05))
    go.touch()
    assert future.result(TIMEOUT) == 1


def test_no_more_than_max_workers_run_at_once(tmp_path):
    running, most = tmp_path / "running", tmp_path / "most"
    running.mkdir()
    most.mkdir()

    def run(number):
        mine = running / str(number)
        mine.touch()
        (most / str(len(list(running.iterdir())))).touch()
        mine.unlink()

    with Executor(1, num_cpus=0) as executor:
        list(executor.map(run, range(30)))
    assert [path.name for path in most.iterdir()] == ["1"]


def test_what_waits_can_be_cancelled(tmp_path):
    go = tmp_path / "go"
    with Executor(1) as executor:
        first, second, third = (executor.submit(after, go, x) for x in range(3))
        assert first.running()
        assert not first.cancel()
        assert second.cancel()
        assert second.cancelled()
        go.touch()
        assert third.result(TIMEOUT) == 2
        with pytest.raises(CancelledError):
            second.result()
        done = concurrent.futures.wait([first, second, third], TIMEOUT).done
        assert len(done) == 3


def test_wait_as_completed_and_callbacks(executor, tmp_path):
    go = tmp_path / "go"
    slow, fast = executor.submit(after, go, "slow"), executor.submit(square, 3)
    completed = concurrent.futures.as_completed([slow, fast], TIMEOUT)
    assert next(completed) is fast
    called = []
    slow.add_done_callback(lambda future: called.append(future.result()))
    go.touch()
    assert next(completed) is slow
    wait_until(lambda: called)
    assert called == ["slow"]
    # A callback may use the executor and the session.
    chained: concurrent.futures.Future[int] = concurrent.futures.Future()
    executor.submit(square, 2).add_done_callback(
        lambda future: chained.set_result(rabbitry.get(rabbitry.remote(square).remote(future.result())))
    )
    assert chained.result(TIMEOUT) == 16


def test_a_callback_may_wait_for_a_thread_that_submits(tmp_path):
    """Joblib holds a lock of its own while it submits, and takes it in callbacks."""
    go = tmp_path / "go"
    submitted = []

    def submit_elsewhere(executor):
        def submit():
            with suppress(RuntimeError):  # it was shut down
                executor.submit(square, 1)

        thread = threading.Thread(target=submit, daemon=True)
        thread.start()
        thread.join(TIMEOUT / 3)
        submitted.append(not thread.is_alive())

    executor = Executor(1)
    executor.submit(after, go, 0)
    refused = executor.submit(square, threading.Lock())
    refused.add_done_callback(lambda _: submit_elsewhere(executor))
    go.touch()
    assert isinstance(refused.exception(TIMEOUT), TypeError)
    wait_until(lambda: submitted)
    go.unlink()
    executor.submit(after, go, 0)
    dropped = executor.submit(square, 2)
    dropped.add_done_callback(lambda _: submit_elsewhere(executor))
    executor.shutdown(wait=False, cancel_futures=True)
    assert dropped.cancelled()
    assert submitted == [True, True]
    go.touch()
    executor.shutdown()


def test_shutdown_waits(tmp_path):
    executor = Executor(1)
    futures = [executor.submit(square, x) for x in range(10)]
    executor.shutdown()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(square, [1])
    executor.shutdown()


def test_shutdown_may_cancel_and_need_not_wait(tmp_path):
    go = tmp_path / "go"
    executor = Executor(1)
    futures = [executor.submit(after, go, x) for x in range(3)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert [future.cancelled() for future in futures] == [False, True, True]
    go.touch()
    wait_until(futures[0].done)
    assert futures[0].result() == 0
    executor = Executor(1)
    futures = [executor.submit(square, x) for x in range(5)]
    executor.shutdown(wait=False)
    concurrent.futures.wait(futures, TIMEOUT)
    assert [future.result() for future in futures] == [0, 1, 4, 9, 16]


def test_options_of_the_tasks(tmp_path):
    with Executor(2, num_cpus=0.5, max_retries=0) as executor:

        def ask():
            return rabbitry.get_runtime_context().get_assigned_resources()

        assert [future.result(TIMEOUT) for future in (executor.submit(ask), executor.submit(ask))] == [{"CPU": 0.5}] * 2
        future = executor.submit(lambda: os.kill(os.getpid(), signal.SIGKILL))
        assert isinstance(future.exception(TIMEOUT), WorkerCrashedError)
        assert executor.submit(square, 2).result(TIMEOUT) == 4
    with pytest.raises(ValueError, match="no_such"):
        Executor(no_such=1)
    with pytest.raises(ValueError, match="max_workers"):
        Executor(0)


def test_interrupt(tmp_path):
    with Executor(1) as executor:
        started = tmp_path / "started"
        future = executor.submit(lambda: (started.touch(), after(tmp_path / "never")))
        wait_for_file(started)
        executor.interrupt()
        assert isinstance(future.exception(TIMEOUT), TaskCancelledError)


def test_asyncio_runs_on_it(executor):
    async def main():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, square, x) for x in range(5)))

    assert asyncio.run(main()) == [0, 1, 4, 9, 16]


def test_inside_tasks_that_take_up_all_cpus():
    @rabbitry.remote
    def task(x):
        with Executor() as executor:
            return sum(executor.map(square, range(x))) + executor.submit(square, x).result()

    assert rabbitry.get([task.remote(4) for _ in range(4)], timeout=TIMEOUT) == [30] * 4


def test_threads_share_an_executor(executor):
    sums = []
    threads = [threading.Thread(target=lambda: sums.append(sum(executor.map(square, range(50))))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert sums == [sum(x * x for x in range(50))] * 4


def test_a_program_that_ends_finishes_what_it_submitted(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import pathlib, sys\n"
        "from rabbitry.util import Executor\n"
        "executor = Executor(1)\n"
        "for number in range(5):\n"
        "    executor.submit(pathlib.Path(sys.argv[1], str(number)).touch)\n"
    )
    environment = {**node_environment(), "RABBITRY_ADDRESS": "local"}
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run([sys.executable, program, out], check=True, timeout=TIMEOUT, env=environment)
    assert sorted(path.name for path in out.iterdir()) == list("01234")


def test_what_a_session_leaves_undone_fails_and_starts_no_other(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import time\n"
        "import rabbitry\n"
        "from rabbitry.util import Executor\n"
        "executor = Executor(2)\n"
        "futures = [executor.submit(time.sleep, 60) for _ in range(5)]\n"
        "rabbitry.shutdown()\n"
        "print({type(each.exception(timeout=20)).__name__ for each in futures}, rabbitry.is_initialized())\n"
    )
    environment = {**node_environment(), "RABBITRY_ADDRESS": "local"}
    done = subprocess.run(
        [sys.executable, program], check=True, timeout=TIMEOUT, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "{'RabbitrySystemError'} False\n", done.stderr
