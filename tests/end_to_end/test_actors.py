"""Actors as users write them, on both engines."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import numpy as np
import pytest

import rabbitry
from rabbitry import current
from rabbitry.exceptions import ActorDiedError, ActorError, ActorUnavailableError, TaskCancelledError
from tests.servers import wait_until

pytestmark = pytest.mark.usefixtures("session")


@rabbitry.remote
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
        rabbitry.exit_actor()

    @rabbitry.method(num_returns=2)
    def pair(self):
        return self.value, -self.value

    def nap(self, seconds):
        time.sleep(seconds)
        return seconds

    def stream(self, count):
        yield from range(count)

    def me(self):
        return rabbitry.get_runtime_context().current_actor


@rabbitry.remote
class Async:
    """Waits."""

    def __init__(self):
        self.here = 0
        self.all_here = asyncio.Event()

    async def meet(self, count):
        self.here += 1
        if self.here == count:
            self.all_here.set()
        await self.all_here.wait()
        return count

    async def nap(self, seconds):
        await asyncio.sleep(seconds)
        return seconds

    async def stream(self, count):
        for at in range(count):
            await asyncio.sleep(0)
            yield at


@rabbitry.remote
def slowly(value, seconds):
    time.sleep(seconds)
    return value


def test_state_stays_between_calls():
    counter = Counter.remote(5)
    assert rabbitry.get([counter.add.remote() for _ in range(3)]) == [6, 7, 8]


@pytest.mark.parametrize("durable", [False, True])
def test_a_result_does_not_wait_for_the_call_behind_it(durable):
    counter = Counter.options(durable=durable).remote()
    rabbitry.get([counter.add.remote() for _ in range(20)])
    for _ in range(3):
        quick = [counter.add.remote() for _ in range(3)]
        slow = counter.nap.remote(1.5)
        ready, rest = rabbitry.wait([*quick, slow], num_returns=3, timeout=20)
        assert (ready, rest) == (quick, [slow])
        assert rabbitry.get(slow) == 1.5


def test_an_actor_forgets_what_its_finished_calls_submitted():
    @rabbitry.remote(num_cpus=0)
    class Parent:
        def __init__(self):
            rabbitry.get(nothing.remote())

        def submit(self):
            rabbitry.get(nothing.remote())
            return len(current.client().children)

    @rabbitry.remote(num_cpus=0)
    def nothing():
        return None

    parent = Parent.remote()
    assert rabbitry.get([parent.submit.remote() for _ in range(3)]) == [1, 1, 1]


def test_errors_of_methods_leave_the_actor_alive():
    counter = Counter.remote()
    with pytest.raises(ValueError, match="from the actor"):
        rabbitry.get(counter.boom.remote())
    assert rabbitry.get(counter.add.remote()) == 1


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
    assert rabbitry.get(counter.pair.remote()) == [4, -4]
    assert [rabbitry.get(ref) for ref in counter.stream.remote(3)] == [0, 1, 2]


def test_calls_of_one_caller_keep_their_order_also_with_dependencies():
    counter = Counter.remote()
    refs = [counter.add.remote(slowly.remote(5, 0.3)), counter.add.remote(100), counter.add.remote()]
    assert rabbitry.get(refs, timeout=30) == [5, 105, 106]


def test_handles_travel():
    @rabbitry.remote
    def use(handle, nested):
        return rabbitry.get(handle.add.remote(10)), nested["counter"] == handle

    counter = Counter.remote()
    assert rabbitry.get(use.remote(counter, {"counter": counter}), timeout=30) == (10, True)
    assert rabbitry.get(counter.me.remote()) == counter


def test_async_actors_interleave():
    actor = Async.remote()
    assert rabbitry.get([actor.meet.remote(20) for _ in range(20)], timeout=60) == [20] * 20
    assert [rabbitry.get(ref) for ref in actor.stream.remote(3)] == [0, 1, 2]


def test_an_async_actor_sends_more_than_a_socket_takes_at_once():
    @rabbitry.remote
    def length(data):
        return len(data)

    @rabbitry.remote
    class Sender:
        async def send(self, count, size):
            return sum(await asyncio.gather(*[length.remote(bytes(size)) for _ in range(count)]))

    sender = Sender.remote()
    assert rabbitry.get(sender.send.remote(200, 50_000), timeout=60) == 200 * 50_000


def test_cancel_of_an_async_call():
    actor = Async.remote()
    rabbitry.get(actor.nap.remote(0))
    ref = actor.nap.remote(60)
    time.sleep(0.2)
    rabbitry.cancel(ref)
    with pytest.raises(TaskCancelledError):
        rabbitry.get(ref, timeout=20)


def test_threaded_actors_run_calls_at_once():
    @rabbitry.remote(max_concurrency=4)
    class Meeting:
        def __init__(self):
            self.barrier = threading.Barrier(4)

        def meet(self):
            return self.barrier.wait(20)

    meeting = Meeting.remote()
    assert sorted(rabbitry.get([meeting.meet.remote() for _ in range(4)], timeout=30)) == [0, 1, 2, 3]


def test_concurrency_groups():
    @rabbitry.remote(concurrency_groups={"io": 2})
    class Grouped:
        def __init__(self):
            self.barrier = threading.Barrier(2)

        @rabbitry.method(concurrency_group="io")
        def meet(self):
            return self.barrier.wait(20)

    grouped = Grouped.remote()
    assert sorted(rabbitry.get([grouped.meet.remote() for _ in range(2)], timeout=30)) == [0, 1]


def test_names():
    first = Counter.options(name="named", get_if_exists=True).remote(1)
    second = Counter.options(name="named", get_if_exists=True).remote(1)
    assert first == second
    assert rabbitry.get(rabbitry.get_actor("named").add.remote()) == 2
    with pytest.raises(ValueError, match="named"):
        Counter.options(name="named").remote()
    assert rabbitry.util.list_named_actors() == ["named"]
    rabbitry.kill(first)
    with pytest.raises(ValueError):
        rabbitry.get_actor("named")
    assert rabbitry.util.list_named_actors() == []
    with pytest.raises(ValueError):
        rabbitry.get_actor("")


def test_a_constructor_that_fails():
    @rabbitry.remote
    class Broken:
        def __init__(self):
            raise RuntimeError("no luck")

        def method(self):
            return 1

    with pytest.raises(ActorDiedError, match="no luck"):
        rabbitry.get(Broken.remote().method.remote(), timeout=30)

    @rabbitry.remote
    class Made:
        def __init__(self, what):
            if what == "left":
                rabbitry.exit_actor()
            if what == "interrupted":
                raise KeyboardInterrupt

        def method(self):
            return 1

    dead = Counter.remote()
    for argument in (Counter.remote().boom.remote(), dead.leave.remote()):  # the failure of a method, and of an actor
        with pytest.raises(ActorDiedError, match="At least one of the input arguments") as caught:
            rabbitry.get(Made.remote(argument).method.remote(), timeout=30)
        assert caught.value.actor_init_failed
    for what in ("left", "interrupted"):
        with pytest.raises(ActorDiedError):
            rabbitry.get(Made.remote(what).method.remote(), timeout=30)


def test_a_constructor_that_fails_is_not_tried_again(tmp_path):
    @rabbitry.remote(max_restarts=-1)
    class Broken:
        def __init__(self, path):
            with open(path, "a") as file:
                file.write("x")
            raise RuntimeError("no luck")

        def method(self):
            return 1

    with pytest.raises(ActorDiedError, match="no luck"):
        rabbitry.get(Broken.remote(str(tmp_path / "tries")).method.remote(), timeout=30)
    assert (tmp_path / "tries").read_text() == "x"


def test_an_actor_knows_its_resources():
    @rabbitry.remote
    class Asks:
        def ask(self):
            return rabbitry.get_runtime_context().get_assigned_resources()

    assert rabbitry.get(Asks.remote().ask.remote(), timeout=30) == {}
    assert rabbitry.get(Asks.options(num_cpus=0.5).remote().ask.remote(), timeout=30) == {"CPU": 0.5}


def test_death_without_restart():
    counter = Counter.remote()
    with pytest.raises(ActorError):
        rabbitry.get(counter.die.remote(), timeout=30)
    with pytest.raises(ActorDiedError):
        rabbitry.get(counter.add.remote(), timeout=30)


def test_restart():
    counter = Counter.options(max_restarts=1).remote(7)
    before = rabbitry.get(counter.pid.remote())
    with pytest.raises(ActorUnavailableError):
        rabbitry.get(counter.die.remote(), timeout=30)
    # Without `max_task_retries`, calls fail until its next process is up.
    assert rabbitry.get(counter.add.options(max_task_retries=1).remote(), timeout=30) == 8
    assert rabbitry.get(counter.pid.remote()) != before
    with pytest.raises(ActorDiedError):
        rabbitry.get(counter.die.remote(), timeout=30)


def test_max_task_retries():
    @rabbitry.remote(max_restarts=-1, max_task_retries=3)
    class Flaky:
        def once(self, path):
            if not os.path.exists(path):
                open(path, "w").close()
                os._exit(1)
            return "done"

    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        assert rabbitry.get(Flaky.remote().once.remote(f"{directory}/mark"), timeout=30) == "done"


def test_kill_and_exit():
    counter = Counter.remote()
    rabbitry.get(counter.add.remote())
    rabbitry.kill(counter)
    with pytest.raises(ActorDiedError):
        rabbitry.get(counter.add.remote(), timeout=30)
    other = Counter.options(max_restarts=5).remote()
    with pytest.raises(ActorDiedError):
        rabbitry.get(other.leave.remote(), timeout=30)
    with pytest.raises(ActorDiedError):
        rabbitry.get(other.add.remote(), timeout=30)
    with pytest.raises(ValueError):
        rabbitry.kill(3)
    with pytest.raises(TypeError):
        rabbitry.exit_actor()


def test_an_actor_ends_with_its_last_handle():
    counter = Counter.remote()
    pid = rabbitry.get(counter.pid.remote())
    kept = [counter]
    del counter
    assert rabbitry.get(kept[0].add.remote()) == 1
    kept.clear()
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline, "its process is still there"
        time.sleep(0.02)


def test_special_methods():
    counter = Counter.remote(3)
    assert rabbitry.get(counter.__ray_ready__.remote()) is True
    assert rabbitry.get(counter.__ray_call__.remote(lambda self, more: self.value + more, 4)) == 7
    with pytest.raises(ActorError):
        rabbitry.get(counter.__ray_terminate__.remote(), timeout=30)


def test_max_pending_calls():
    from rabbitry.exceptions import PendingCallsLimitExceeded

    counter = Counter.options(max_pending_calls=2).remote()
    refs = [counter.add.remote(slowly.remote(1, 1.0)) for _ in range(2)]
    with pytest.raises(PendingCallsLimitExceeded):
        counter.add.remote()
    assert rabbitry.get(refs, timeout=30) == [1, 2]
    assert rabbitry.get(counter.add.remote(), timeout=30) == 3


@pytest.mark.long
def test_actors_hold_no_cpu_by_default():
    counters = [Counter.remote() for _ in range(6)]
    assert rabbitry.get([counter.add.remote() for counter in counters], timeout=50) == [1] * 6
    held = Counter.options(num_cpus=1).remote()
    rabbitry.get(held.add.remote(), timeout=30)
    deadline = time.monotonic() + 20
    while rabbitry.available_resources().get("CPU") != 1.0:
        assert time.monotonic() < deadline, rabbitry.available_resources()
        time.sleep(0.05)


def test_a_durable_actor_keeps_its_state():
    counter = Counter.options(durable=True).remote(100)
    assert rabbitry.get([counter.add.remote() for _ in range(10)], timeout=30) == list(range(101, 111))
    pid = rabbitry.get(counter.pid.remote())
    os.kill(pid, 9)
    assert rabbitry.get(counter.add.remote(), timeout=30) == 111
    assert rabbitry.get(counter.pid.remote(), timeout=30) != pid


def test_every_call_on_a_durable_actor_takes_effect_once():
    counter = Counter.options(durable=True).remote()
    seen: list[list[int]] = []

    def call():
        refs = [counter.add.remote() for _ in range(250)]
        seen.append(rabbitry.get(refs, timeout=50))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for _ in range(3):
        os.kill(rabbitry.get(counter.pid.remote(), timeout=30), 9)
        time.sleep(0.1)
    for caller in callers:
        caller.join()
    assert sorted(value for values in seen for value in values) == list(range(1, 1001))
    assert all(values == sorted(values) for values in seen)


def test_explicit_checkpoints():
    @rabbitry.remote(durable="explicit")
    class Careful:
        def __init__(self):
            self.value = 0

        def add(self, keep):
            self.value += 1
            if keep:
                rabbitry.checkpoint()
            return self.value, os.getpid()

    careful = Careful.remote()
    assert rabbitry.get(careful.add.remote(True), timeout=30)[0] == 1
    value, pid = rabbitry.get(careful.add.remote(False), timeout=30)
    assert value == 2
    os.kill(pid, 9)
    assert rabbitry.get(careful.add.remote(True), timeout=30)[0] == 2


def test_a_durable_state_with_arrays_and_code_of_the_program():
    class Part:  # travels by value
        value = 5

    @rabbitry.remote(durable=True)
    class Holder:
        def __init__(self):
            self.array = np.zeros(20_000)
            self.part = Part()

        def add(self):
            self.array[0] += 1
            return float(self.array[0]), self.part.value, os.getpid()

    holder = Holder.remote()
    count, value, pid = rabbitry.get(holder.add.remote(), timeout=30)
    assert (count, value) == (1.0, 5)
    os.kill(pid, 9)
    count, value, again = rabbitry.get(holder.add.remote(), timeout=30)
    assert (count, value) == (2.0, 5)
    assert again != pid


def test_an_actor_class_that_names_itself():
    @rabbitry.remote
    class Tree:
        def __init__(self, depth, name="root"):
            self.name = name
            self.children = [Tree.remote(depth - 1, name=f"{name}.{index}") for index in range(2)] if depth else []

        def names(self, prefix=""):
            return sum(rabbitry.get([child.names.remote(prefix) for child in self.children]), [prefix + self.name])

    assert rabbitry.get(Tree.remote(1).names.remote(prefix="-"), timeout=30) == ["-root", "-root.0", "-root.1"]


def test_durable_wants_one_call_at_a_time():
    with pytest.raises(ValueError, match="durable"):
        Async.options(durable=True)


def test_methods_may_have_any_name():
    own = ("make", "modified_class", "remote", "options", "_id", "_facts", "_methods", "_client", "_cls", "_options")

    class Named:
        def __init__(self):
            self.value = 0

        def value(self):
            return self.value

        @staticmethod
        def made():
            return "of the plain class"

    for name in own:
        setattr(Named, name, lambda self, name=name: (name, self.value))
    shadowed = Named.make
    actor_class = rabbitry.remote(Named)
    named = actor_class.remote()
    calls = [getattr(named, name).remote() for name in own]
    assert rabbitry.get(calls, timeout=30) == [(name, 0) for name in own]
    assert rabbitry.get(named.value.remote(), timeout=30) == 0  # though an attribute of the instance has its name
    assert (actor_class.make, actor_class.made()) == (shadowed, "of the plain class")
    assert actor_class.__ray_metadata__.modified_class is Named


@rabbitry.remote
class NeverBorn:
    def __init__(self) -> None:
        os._exit(1)


def test_an_actor_that_never_comes_to_live_ends_with_its_last_handle():
    actor = NeverBorn.options(name="never-born", max_restarts=-1).remote()
    wait_until(lambda: rabbitry.util.list_named_actors() == ["never-born"], "it is on record", 20.0)
    del actor
    wait_until(lambda: not rabbitry.util.list_named_actors(), "its restarts have ended", 20.0)
