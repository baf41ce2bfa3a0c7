"""Tasks as users write them, on both engines."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

import rabbitry
from rabbitry import current
from rabbitry.exceptions import (
    GetTimeoutError,
    TaskCancelledError,
    TaskError,
    WorkerCrashedError,
)
from tests.end_to_end.conftest import CPUS
from tests.servers import wait_until

pytestmark = pytest.mark.usefixtures("session")


@rabbitry.remote
def add(a, b=2):
    return a + b


@rabbitry.remote
def boom():
    raise ValueError("bad value")


@rabbitry.remote
def nap(seconds, mark=None):
    if mark is not None:
        mark.touch()
    time.sleep(seconds)
    return seconds


@rabbitry.remote
def squares(count):
    for at in range(count):
        yield at * at


@rabbitry.remote
def fib(n):
    return n if n < 2 else sum(rabbitry.get([fib.remote(n - 1), fib.remote(n - 2)]))


@rabbitry.remote
def depth(n):
    return 0 if n == 0 else 1 + rabbitry.get(depth.remote(n - 1))


@rabbitry.remote
def pid():
    return os.getpid()


def test_positional_and_keyword_arguments():
    assert rabbitry.get(add.remote(1)) == 3
    assert rabbitry.get(add.remote(a=1, b=5)) == 6


def test_wrong_arguments_fail_where_they_are_written():
    with pytest.raises(TypeError):
        add.remote()
    with pytest.raises(TypeError):
        add.remote(1, c=3)


def test_calling_a_remote_function_directly_is_refused():
    with pytest.raises(TypeError, match=r"remote"):
        add(1)


def test_an_error_is_an_instance_of_both_classes():
    with pytest.raises(ValueError, match="bad value") as caught:
        rabbitry.get(boom.remote())
    assert isinstance(caught.value, TaskError)
    assert isinstance(caught.value.cause, ValueError)


def test_a_failed_dependency_fails_the_dependant_with_its_cause():
    with pytest.raises(ValueError, match="bad value"):
        rabbitry.get(add.remote(boom.remote()))


def test_get_raises_the_first_error_without_waiting_for_the_rest():
    slow = nap.remote(20)
    started = time.monotonic()
    with pytest.raises(ValueError, match="bad value"):
        rabbitry.get([slow, boom.remote()])
    assert time.monotonic() - started < 15
    rabbitry.cancel(slow, force=True)
    with pytest.raises(TaskCancelledError):
        rabbitry.get(slow, timeout=20)


def test_several_results():
    @rabbitry.remote(num_returns=3)
    def three():
        return 1, 2, 3

    assert rabbitry.get(three.remote()) == [1, 2, 3]
    with pytest.raises(ValueError, match="2"):
        rabbitry.get(three.options(num_returns=2).remote())
    assert three.options(num_returns=0).remote() is None


def test_generators_stream():
    assert [rabbitry.get(ref) for ref in squares.remote(5)] == [0, 1, 4, 9, 16]


def test_a_failing_generator_yields_its_error_last():
    @rabbitry.remote
    def failing():
        yield 1
        raise KeyError("later")

    refs = list(failing.remote())
    assert rabbitry.get(refs[0]) == 1
    with pytest.raises(KeyError):
        rabbitry.get(refs[1])
    assert len(refs) == 2


def test_dynamic_returns():
    @rabbitry.remote(num_returns="dynamic")
    def dynamic(count):
        yield from range(count)

    ref = dynamic.remote(3)
    generator = rabbitry.get(ref)
    assert len(generator) == 3
    assert [rabbitry.get(item) for item in generator] == [0, 1, 2]
    assert len(generator) == 0  # it has let go of them
    assert [rabbitry.get(item) for item in rabbitry.get(ref)] == [0, 1, 2]


def test_a_chain_of_dependent_tasks():
    ref = rabbitry.put(0)
    for _ in range(100):
        ref = add.remote(ref, 1)
    assert rabbitry.get(ref) == 100


def test_nested_refs_stay_refs():
    @rabbitry.remote
    def inner(refs):
        assert isinstance(refs[0], rabbitry.ObjectRef)
        return rabbitry.get(refs[0])

    assert rabbitry.get(inner.remote([rabbitry.put("value")])) == "value"


def test_a_returned_ref_is_not_flattened():
    @rabbitry.remote
    def outer():
        return add.remote(10, 20)

    inner = rabbitry.get(outer.remote())
    assert isinstance(inner, rabbitry.ObjectRef)
    assert rabbitry.get(inner, timeout=20) == 30


def test_recursion_with_a_default_argument():
    @rabbitry.remote
    def factorial(n, product=1, *, factor=1):
        """Multiply."""
        assert (factorial.__name__, factorial.__doc__) == ("factorial", "Multiply.")
        return product if n == 0 else rabbitry.get(factorial.remote(n - 1, n * product))

    assert rabbitry.get(factorial.remote(4), timeout=30) == 24


def test_recursion_on_two_cpus_ends():
    assert rabbitry.get(fib.remote(8), timeout=50) == 21
    assert rabbitry.get(depth.remote(40), timeout=50) == 40


def test_timeouts():
    ref = nap.remote(30)
    with pytest.raises(GetTimeoutError):
        rabbitry.get(ref, timeout=0.1)
    with pytest.raises(TimeoutError):
        rabbitry.get(ref, timeout=0)
    rabbitry.cancel(ref, force=True)


def test_wait_returns_refs_in_the_order_given():
    refs = [nap.remote(0), nap.remote(30)]
    ready, rest = rabbitry.wait(refs, timeout=20)
    assert (ready, rest) == ([refs[0]], [refs[1]])
    rabbitry.cancel(refs[1], force=True)
    assert rabbitry.wait([], timeout=0) == ([], [])


def test_a_result_does_not_wait_for_the_task_behind_it():
    rabbitry.get([nap.remote(0) for _ in range(20)])  # known as quick now: several go to one executor
    for _ in range(5):
        refs = [nap.remote(0), nap.remote(0), nap.remote(0), nap.remote(300), nap.remote(300)]
        ready, _ = rabbitry.wait(refs, num_returns=3, timeout=20)
        for ref in refs[3:]:
            rabbitry.cancel(ref, force=True)
        assert ready == refs[:3]


def test_wait_checks_its_arguments():
    ref = rabbitry.put(1)
    with pytest.raises(TypeError):
        rabbitry.wait(ref)
    with pytest.raises(ValueError):
        rabbitry.wait([ref, ref])
    with pytest.raises(ValueError):
        rabbitry.wait([ref], num_returns=2)
    with pytest.raises(ValueError):
        rabbitry.wait([ref], num_returns=0)
    with pytest.raises(ValueError):
        rabbitry.wait([ref], timeout=-1)


def test_get_and_put_check_their_arguments():
    ref = rabbitry.put(1)
    with pytest.raises(ValueError):
        rabbitry.get(1)
    with pytest.raises(TypeError):
        rabbitry.get([ref, 2])
    with pytest.raises(TypeError):
        rabbitry.put(ref)
    assert rabbitry.get([]) == []


def test_unpicklable_arguments_name_the_path():
    class Holder:
        def __init__(self):
            self.lock = threading.Lock()

    with pytest.raises(TypeError, match=r"args\[0\]\['holder'\]\.lock"):
        add.remote({"holder": Holder()})


def test_an_unpicklable_result_is_an_error():
    @rabbitry.remote
    def lock():
        return threading.Lock()

    with pytest.raises(TypeError, match="lock"):
        rabbitry.get(lock.remote())


def wait_for(*marks):
    """Wait until the tasks that make these files run."""
    deadline = time.monotonic() + 20
    while not all(mark.exists() for mark in marks):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_cancel_of_a_running_task(tmp_path):
    ref = nap.remote(60, tmp_path / "mark")
    wait_for(tmp_path / "mark")
    rabbitry.cancel(ref)
    with pytest.raises(TaskCancelledError):
        rabbitry.get(ref, timeout=20)


@rabbitry.remote
def child_of_a_cancelled_task(began: Path, go_on: Path, done: Path) -> None:
    began.touch()
    wait_for(go_on)
    done.touch()


@rabbitry.remote
def parent_that_is_cancelled(*paths: Path) -> None:
    rabbitry.get(child_of_a_cancelled_task.remote(*paths))


def test_what_a_cancelled_task_submitted_goes_on_if_so_asked(tmp_path):
    began, go_on, done = (tmp_path / name for name in ("began", "go on", "done"))
    ref = parent_that_is_cancelled.remote(began, go_on, done)
    wait_for(began)
    rabbitry.cancel(ref, recursive=False)
    with pytest.raises(TaskCancelledError):
        rabbitry.get(ref, timeout=20)
    go_on.touch()
    wait_for(done)


def test_cancel_with_force(tmp_path):
    ref = nap.remote(60, tmp_path / "mark")
    wait_for(tmp_path / "mark")
    rabbitry.cancel(ref, force=True)
    with pytest.raises(TaskCancelledError):
        rabbitry.get(ref, timeout=20)


def test_cancel_of_a_queued_task(tmp_path):
    marks = [tmp_path / str(at) for at in range(CPUS)]
    blockers = [nap.remote(60, mark) for mark in marks]
    wait_for(*marks)
    queued = add.remote(1)
    rabbitry.cancel(queued)
    with pytest.raises(TaskCancelledError):
        rabbitry.get(queued, timeout=20)
    for ref in blockers:
        rabbitry.cancel(ref, force=True)
        with pytest.raises(TaskCancelledError):
            rabbitry.get(ref, timeout=20)


def test_what_was_cancelled_behind_a_running_task_does_not_run_elsewhere(tmp_path):
    rabbitry.get([nap.remote(0) for _ in range(20)])  # known as quick now: several go to one executor
    for at in range(10):
        marks = [tmp_path / f"{at}-{number}" for number in range(6)]
        refs = [nap.remote(300, mark) for mark in marks]
        wait_for(*marks[:1])
        for ref in refs:
            rabbitry.cancel(ref, force=True)
        for ref in refs:
            with pytest.raises(TaskCancelledError):
                rabbitry.get(ref, timeout=20)
    assert rabbitry.get([nap.remote(0) for _ in range(2 * CPUS)], timeout=20) == [0] * (2 * CPUS)


def test_cancel_of_a_finished_task_changes_nothing():
    ref = add.remote(1)
    assert rabbitry.get(ref) == 3
    rabbitry.cancel(ref)
    assert rabbitry.get(ref) == 3


def test_a_process_that_dies_is_retried_then_reported():
    @rabbitry.remote(max_retries=1)
    def die():
        os._exit(1)

    with pytest.raises(WorkerCrashedError):
        rabbitry.get(die.remote(), timeout=30)


def test_a_poison_task_takes_no_innocents_along():
    @rabbitry.remote(max_retries=2)
    def maybe_die(at):
        if at == 13:
            os._exit(1)
        return at

    refs = [maybe_die.remote(at) for at in range(40)]
    for at, ref in enumerate(refs):
        if at == 13:
            with pytest.raises(WorkerCrashedError):
                rabbitry.get(ref, timeout=50)
        else:
            assert rabbitry.get(ref, timeout=50) == at


def test_retry_exceptions(tmp_path):
    marks = tmp_path / "marks"

    @rabbitry.remote(max_retries=5, retry_exceptions=[KeyError], retry_delay=0.01)
    def flaky():
        with marks.open("a") as file:
            file.write("x")
        if marks.stat().st_size < 3:
            raise KeyError("again")
        return marks.stat().st_size

    assert rabbitry.get(flaky.remote(), timeout=30) == 3

    @rabbitry.remote(max_retries=5, retry_exceptions=[KeyError])
    def other():
        with marks.open("a") as file:
            file.write("x")
        raise ValueError("no retry")

    before = marks.stat().st_size
    with pytest.raises(ValueError, match="no retry"):
        rabbitry.get(other.remote(), timeout=30)
    assert marks.stat().st_size == before + 1


def test_a_task_that_may_run_once_runs_once(tmp_path):
    marks = tmp_path / "once"

    @rabbitry.remote(max_retries=0)
    def once():
        with marks.open("a") as file:
            file.write("x")
        os._exit(1)

    with pytest.raises(WorkerCrashedError):
        rabbitry.get(once.remote(), timeout=30)
    assert marks.read_text() == "x"


def test_a_second_copy_of_a_task_that_may_run_once_keeps_no_cpu(monkeypatch):
    @rabbitry.remote(num_cpus=CPUS, max_retries=0)
    def once() -> str:
        return "once"

    @rabbitry.remote(num_cpus=CPUS, runtime_env={"env_vars": {"OF": "another process"}})
    def after() -> str:
        return "after"

    publisher = current.client().publisher
    publish = publisher.publish
    published = []
    with monkeypatch.context() as patch:
        patch.setattr(publisher, "publish", lambda *message, **_: (published.append(message), publish(*message)))
        assert rabbitry.get(once.remote(), timeout=20) == "once"
    wait_until(lambda: rabbitry.available_resources().get("CPU") == CPUS, "its process is idle")
    for message in published:
        publish(*message)
    assert rabbitry.get(after.remote(), timeout=20) == "after"


def test_max_calls_ends_the_process():
    @rabbitry.remote(max_calls=1)
    def once():
        return os.getpid()

    pids = rabbitry.get([once.remote() for _ in range(4)], timeout=30)
    assert len(set(pids)) == 4


def test_fractions_share_a_cpu():
    @rabbitry.remote(num_cpus=0.5)
    def half():
        return rabbitry.get_runtime_context().get_assigned_resources()

    assert rabbitry.get(half.remote()) == {"CPU": 0.5}


def test_gpus_have_ids():
    @rabbitry.remote(num_gpus=1)
    def gpu():
        time.sleep(0.2)
        return rabbitry.get_runtime_context().get_accelerator_ids()["GPU"], os.environ["CUDA_VISIBLE_DEVICES"]

    results = rabbitry.get([gpu.remote() for _ in range(2)], timeout=30)
    assert sorted(ids[0] for ids, _ in results) == ["0", "1"]
    assert all(ids[0] == shown for ids, shown in results)


def test_custom_resources():
    @rabbitry.remote(resources={"license": 1})
    def licensed():
        return rabbitry.get_runtime_context().get_assigned_resources()["license"]

    assert rabbitry.get(licensed.remote(), timeout=30) == 1


def test_environment_variables():
    @rabbitry.remote(runtime_env={"env_vars": {"RABBITRY_TEST_COLOUR": "green"}})
    def colour():
        return os.environ.get("RABBITRY_TEST_COLOUR")

    assert rabbitry.get(colour.remote(), timeout=30) == "green"
    assert rabbitry.get(colour.options(runtime_env=None).remote(), timeout=30) is None
    bytes_that_are_no_text = {"RABBITRY_TEST_COLOUR": "\udcff"}  # as `os.environ` shows them
    odd = colour.options(runtime_env={"env_vars": bytes_that_are_no_text})
    assert rabbitry.get(odd.remote(), timeout=30) == "\udcff"


def test_futures_and_await():
    assert add.remote(1).future().result(timeout=20) == 3

    async def main():
        first, second = await asyncio.gather(add.remote(1), add.remote(2))
        with pytest.raises(ValueError, match="bad value"):
            await boom.remote()
        return first, second

    assert asyncio.run(main()) == (3, 4)


def test_many_threads_submit_at_once():
    results: list[int] = []

    def work(number):
        results.extend(rabbitry.get([add.remote(number, at) for at in range(50)], timeout=40))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(number + at for number in range(8) for at in range(50))


def test_ten_thousand_tasks():
    refs = [add.remote(at, 0) for at in range(10_000)]
    assert rabbitry.get(refs, timeout=50) == list(range(10_000))


def test_large_arguments_and_results():
    numpy = pytest.importorskip("numpy")

    @rabbitry.remote
    def double(array):
        return array * 2

    array = numpy.arange(1_000_000)
    assert (rabbitry.get(double.remote(array), timeout=30) == array * 2).all()
    assert (rabbitry.get(double.remote(rabbitry.put(array)), timeout=30) == array * 2).all()


def test_output_reaches_the_driver(capfd):
    @rabbitry.remote
    def speak():
        print("a line from a task")

    rabbitry.get(speak.remote())
    deadline = time.monotonic() + 20
    text = ""
    while "a line from a task" not in text:
        assert time.monotonic() < deadline
        text += capfd.readouterr().out
        time.sleep(0.02)
    line = next(line for line in text.splitlines() if "a line from a task" in line)
    assert line.startswith("(speak pid=")


def test_the_runtime_context():
    @rabbitry.remote
    def look():
        context = rabbitry.get_runtime_context()
        return context.get_job_id(), context.get_node_id(), context.get_task_id(), context.get_task_name()

    job, node, task, name = rabbitry.get(look.remote())
    assert job == rabbitry.get_runtime_context().get_job_id()
    assert node in {each["NodeID"] for each in rabbitry.nodes()}
    assert len(task) == 48
    assert name.endswith("look")


def test_nothing_is_kept_of_what_nobody_refers_to():
    client = rabbitry.current.client()
    pattern = client.keys.objects(client.id) + b"*"

    def kept():
        client.collect()
        return set(client.store.call(b"SCAN", 0, b"MATCH", pattern, b"COUNT", 100_000)[1])

    before = kept()
    refs = [add.remote(at) for at in range(500)] + [rabbitry.put(at) for at in range(500)]
    rabbitry.get(refs)
    del refs
    deadline = time.monotonic() + 20
    while left := kept() - before:
        assert time.monotonic() < deadline, f"{len(left)} objects are left"
        time.sleep(0.05)


def test_results_as_they_come(capsys):
    from rabbitry.util import as_completed, map_unordered, progress

    assert sorted(as_completed([add.remote(at, 0) for at in range(25)])) == list(range(25))
    assert sorted(map_unordered(add, range(250), backpressure_size=20)) == list(range(2, 252))
    assert len(list(progress([add.remote(at) for at in range(5)]))) == 5
    assert rabbitry.get([add.remote(1)], progress=True) == [3]
