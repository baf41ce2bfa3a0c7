"""Actors as users write them, on both engines."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import numpy as np
import pytest

import warren
from warren.exceptions import ActorDiedError, ActorError, ActorUnavailableError, TaskCancelledError

pytestmark = pytest.mark.usefixtures("session")


@warren.remote
class Counter:
    """Counts."""

    def __init__(self, value=0):
        self.value = value

    def add(self, amount=1):
        self.value += amount
        return self.value

    def boom(self):
        raise ValueError("from the actor")

    def pid(self):
        return os.getpid()

    def die(self):
        os._exit(1)

    def leave(self):
        warren.exit_actor()

    @warren.method(num_returns=2)
    def pair(self):
        return self.value, -self.value

    def nap(self, seconds):
        time.sleep(seconds)
        return seconds

    def stream(self, count):
        yield from range(count)

    def me(self):
        return warren.get_runtime_context().current_actor


@warren.remote
class Async:
    """Waits."""

    async def nap(self, seconds):
        await asyncio.sleep(seconds)
        return seconds

    async def stream(self, count):
        for at in range(count):
            await asyncio.sleep(0)
            yield at


@warren.remote
def slowly(value, seconds):
    time.sleep(seconds)
    return value


def test_state_stays_between_calls():
    counter = Counter.remote(5)
    assert warren.get([counter.add.remote() for _ in range(3)]) == [6, 7, 8]


@pytest.mark.parametrize("durable", [False, True])
def test_a_result_does_not_wait_for_the_call_behind_it(durable):
    counter = Counter.options(durable=durable).remote()
    warren.get([counter.add.remote() for _ in range(20)])
    for _ in range(3):
        quick = [counter.add.remote() for _ in range(3)]
        slow = counter.nap.remote(1.5)
        ready, rest = warren.wait([*quick, slow], num_returns=3, timeout=20)
        assert (ready, rest) == (quick, [slow])
        assert warren.get(slow) == 1.5


def test_errors_of_methods_leave_the_actor_alive():
    counter = Counter.remote()
    with pytest.raises(ValueError, match="from the actor"):
        warren.get(counter.boom.remote())
    assert warren.get(counter.add.remote()) == 1


def test_the_face_checks_where_the_mistake_is():
    counter = Counter.remote()
    with pytest.raises(TypeError):
        Counter.remote(1, 2, 3)
    with pytest.raises(TypeError):
        counter.add.remote(1, 2, 3)
    with pytest.raises(AttributeError):
        counter.nothing  # noqa: B018
    with pytest.raises(TypeError):
        counter.add()
    with pytest.raises(TypeError):
        Counter()
    with pytest.raises(TypeError):

        class Sub(Counter):
            pass


def test_several_results_and_streams():
    counter = Counter.remote(4)
    assert warren.get(counter.pair.remote()) == [4, -4]
    assert [warren.get(ref) for ref in counter.stream.remote(3)] == [0, 1, 2]


def test_calls_of_one_caller_keep_their_order_also_with_dependencies():
    counter = Counter.remote()
    refs = [counter.add.remote(slowly.remote(5, 0.3)), counter.add.remote(100), counter.add.remote()]
    assert warren.get(refs, timeout=30) == [5, 105, 106]


def test_handles_travel():
    @warren.remote
    def use(handle, nested):
        return warren.get(handle.add.remote(10)), nested["counter"] == handle

    counter = Counter.remote()
    assert warren.get(use.remote(counter, {"counter": counter}), timeout=30) == (10, True)
    assert warren.get(counter.me.remote()) == counter


def test_async_actors_interleave():
    actor = Async.remote()
    started = time.monotonic()
    assert warren.get([actor.nap.remote(0.3) for _ in range(20)], timeout=30) == [0.3] * 20
    assert time.monotonic() - started < 5
    assert [warren.get(ref) for ref in actor.stream.remote(3)] == [0, 1, 2]


def test_cancel_of_an_async_call():
    actor = Async.remote()
    warren.get(actor.nap.remote(0))
    ref = actor.nap.remote(60)
    time.sleep(0.2)
    warren.cancel(ref)
    with pytest.raises(TaskCancelledError):
        warren.get(ref, timeout=20)


def test_threaded_actors_run_calls_at_once():
    @warren.remote(max_concurrency=4)
    class Meeting:
        def __init__(self):
            self.barrier = threading.Barrier(4)

        def meet(self):
            return self.barrier.wait(20)

    meeting = Meeting.remote()
    assert sorted(warren.get([meeting.meet.remote() for _ in range(4)], timeout=30)) == [0, 1, 2, 3]


def test_concurrency_groups():
    @warren.remote(concurrency_groups={"io": 2})
    class Grouped:
        def __init__(self):
            self.barrier = threading.Barrier(2)

        @warren.method(concurrency_group="io")
        def meet(self):
            return self.barrier.wait(20)

    grouped = Grouped.remote()
    assert sorted(warren.get([grouped.meet.remote() for _ in range(2)], timeout=30)) == [0, 1]


def test_names():
    first = Counter.options(name="named", get_if_exists=True).remote(1)
    second = Counter.options(name="named", get_if_exists=True).remote(1)
    assert first == second
    assert warren.get(warren.get_actor("named").add.remote()) == 2
    with pytest.raises(ValueError, match="named"):
        Counter.options(name="named").remote()
    assert warren.util.list_named_actors() == ["named"]
    warren.kill(first)
    with pytest.raises(ValueError):
        warren.get_actor("named")
    assert warren.util.list_named_actors() == []
    with pytest.raises(ValueError):
        warren.get_actor("")


def test_a_constructor_that_fails():
    @warren.remote
    class Broken:
        def __init__(self):
            raise RuntimeError("no luck")

        def method(self):
            return 1

    with pytest.raises(ActorDiedError, match="no luck"):
        warren.get(Broken.remote().method.remote(), timeout=30)


def test_a_constructor_that_fails_is_not_tried_again(tmp_path):
    @warren.remote(max_restarts=-1)
    class Broken:
        def __init__(self, path):
            with open(path, "a") as file:
                file.write("x")
            raise RuntimeError("no luck")

        def method(self):
            return 1

    with pytest.raises(ActorDiedError, match="no luck"):
        warren.get(Broken.remote(str(tmp_path / "tries")).method.remote(), timeout=30)
    assert (tmp_path / "tries").read_text() == "x"


def test_an_actor_knows_its_resources():
    @warren.remote
    class Asks:
        def ask(self):
            return warren.get_runtime_context().get_assigned_resources()

    assert warren.get(Asks.remote().ask.remote(), timeout=30) == {}
    assert warren.get(Asks.options(num_cpus=0.5).remote().ask.remote(), timeout=30) == {"CPU": 0.5}


def test_death_without_restart():
    counter = Counter.remote()
    with pytest.raises(ActorError):
        warren.get(counter.die.remote(), timeout=30)
    with pytest.raises(ActorDiedError):
        warren.get(counter.add.remote(), timeout=30)


def test_restart():
    counter = Counter.options(max_restarts=1).remote(7)
    before = warren.get(counter.pid.remote())
    with pytest.raises(ActorUnavailableError):
        warren.get(counter.die.remote(), timeout=30)
    assert warren.get(counter.add.remote(), timeout=30) == 8
    assert warren.get(counter.pid.remote()) != before
    with pytest.raises(ActorDiedError):
        warren.get(counter.die.remote(), timeout=30)


def test_max_task_retries():
    @warren.remote(max_restarts=-1, max_task_retries=3)
    class Flaky:
        def once(self, path):
            if not os.path.exists(path):
                open(path, "w").close()
                os._exit(1)
            return "done"

    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        assert warren.get(Flaky.remote().once.remote(f"{directory}/mark"), timeout=30) == "done"


def test_kill_and_exit():
    counter = Counter.remote()
    warren.get(counter.add.remote())
    warren.kill(counter)
    with pytest.raises(ActorDiedError):
        warren.get(counter.add.remote(), timeout=30)
    other = Counter.options(max_restarts=5).remote()
    with pytest.raises(ActorDiedError):
        warren.get(other.leave.remote(), timeout=30)
    with pytest.raises(ActorDiedError):
        warren.get(other.add.remote(), timeout=30)
    with pytest.raises(ValueError):
        warren.kill(3)
    with pytest.raises(TypeError):
        warren.exit_actor()


def test_an_actor_ends_with_its_last_handle():
    counter = Counter.remote()
    pid = warren.get(counter.pid.remote())
    kept = [counter]
    del counter
    assert warren.get(kept[0].add.remote()) == 1
    kept.clear()
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline, "its process is still there"
        time.sleep(0.02)


def test_special_methods():
    counter = Counter.remote(3)
    assert warren.get(counter.__ray_ready__.remote()) is True
    assert warren.get(counter.__ray_call__.remote(lambda self, more: self.value + more, 4)) == 7
    with pytest.raises(ActorError):
        warren.get(counter.__ray_terminate__.remote(), timeout=30)


def test_max_pending_calls():
    from warren.exceptions import PendingCallsLimitExceeded

    counter = Counter.options(max_pending_calls=2).remote()
    refs = [counter.add.remote(slowly.remote(1, 1.0)) for _ in range(2)]
    with pytest.raises(PendingCallsLimitExceeded):
        counter.add.remote()
    assert warren.get(refs, timeout=30) == [1, 2]
    assert warren.get(counter.add.remote(), timeout=30) == 3


def test_actors_hold_no_cpu_by_default():
    counters = [Counter.remote() for _ in range(6)]
    assert warren.get([counter.add.remote() for counter in counters], timeout=50) == [1] * 6
    held = Counter.options(num_cpus=1).remote()
    warren.get(held.add.remote(), timeout=30)
    deadline = time.monotonic() + 20
    while warren.available_resources().get("CPU") != 1.0:
        assert time.monotonic() < deadline, warren.available_resources()
        time.sleep(0.05)


def test_a_durable_actor_keeps_its_state():
    counter = Counter.options(durable=True).remote(100)
    assert warren.get([counter.add.remote() for _ in range(10)], timeout=30) == list(range(101, 111))
    pid = warren.get(counter.pid.remote())
    os.kill(pid, 9)
    assert warren.get(counter.add.remote(), timeout=30) == 111
    assert warren.get(counter.pid.remote(), timeout=30) != pid


def test_every_call_on_a_durable_actor_takes_effect_once():
    counter = Counter.options(durable=True).remote()
    seen: list[list[int]] = []

    def call():
        refs = [counter.add.remote() for _ in range(250)]
        seen.append(warren.get(refs, timeout=50))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for _ in range(3):
        os.kill(warren.get(counter.pid.remote(), timeout=30), 9)
        time.sleep(0.1)
    for caller in callers:
        caller.join()
    assert sorted(value for values in seen for value in values) == list(range(1, 1001))
    assert all(values == sorted(values) for values in seen)


def test_explicit_checkpoints():
    @warren.remote(durable="explicit")
    class Careful:
        def __init__(self):
            self.value = 0

        def add(self, keep):
            self.value += 1
            if keep:
                warren.checkpoint()
            return self.value, os.getpid()

    careful = Careful.remote()
    assert warren.get(careful.add.remote(True), timeout=30)[0] == 1
    value, pid = warren.get(careful.add.remote(False), timeout=30)
    assert value == 2
    os.kill(pid, 9)
    assert warren.get(careful.add.remote(True), timeout=30)[0] == 2


def test_a_durable_state_with_arrays_and_code_of_the_program():
    class Part:  # travels by value
        value = 5

    @warren.remote(durable=True)
    class Holder:
        def __init__(self):
            self.array = np.zeros(20_000)
            self.part = Part()

        def add(self):
            self.array[0] += 1
            return float(self.array[0]), self.part.value, os.getpid()

    holder = Holder.remote()
    count, value, pid = warren.get(holder.add.remote(), timeout=30)
    assert (count, value) == (1.0, 5)
    os.kill(pid, 9)
    count, value, again = warren.get(holder.add.remote(), timeout=30)
    assert (count, value) == (2.0, 5)
    assert again != pid


def test_an_actor_class_that_names_itself():
    @warren.remote
    class Tree:
        def __init__(self, depth, name="root"):
            self.name = name
            self.children = [Tree.remote(depth - 1, name=f"{name}.{index}") for index in range(2)] if depth else []

        def names(self, prefix=""):
            return sum(warren.get([child.names.remote(prefix) for child in self.children]), [prefix + self.name])

    assert warren.get(Tree.remote(1).names.remote(prefix="-"), timeout=30) == ["-root", "-root.0", "-root.1"]


def test_durable_wants_one_call_at_a_time():
    with pytest.raises(ValueError, match="durable"):
        Async.options(durable=True)
