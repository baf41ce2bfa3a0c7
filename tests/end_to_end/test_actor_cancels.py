"""Cancelling calls of every kind of actor, before and while they run; concurrency groups; exits by every way."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry.exceptions import ActorDiedError, TaskCancelledError
from tests.end_to_end.test_actor_crashes import wait_until

pytestmark = pytest.mark.usefixtures("session")


class Sync:
    """Waits until it is told otherwise."""

    def ping(self, *_: Any) -> int:
        return os.getpid()

    def wait(self, began: Path, go_on: Path | None = None) -> str:
        began.touch()
        while not rabbitry.get_runtime_context().is_canceled():
            if go_on is not None and go_on.exists():
                return "went on"
            time.sleep(0.01)
        return "saw it"

    def leave(self, how: str) -> None:
        if how == "exit_actor":
            rabbitry.exit_actor()
        sys.exit(0 if how == "sys.exit" else 3)

    def leave_in_thread(self) -> str:
        thread = threading.Thread(target=rabbitry.exit_actor)
        thread.start()
        thread.join()
        return "answered"

    def leave_in_items(self, how: str) -> Any:
        yield 1
        Sync.leave(self, how)


class Async:
    """The same with coroutines."""

    async def ping(self, *_: Any) -> int:
        return os.getpid()

    async def wait(self, began: Path, go_on: Path | None = None) -> str:
        began.touch()
        while go_on is None or not go_on.exists():
            await asyncio.sleep(0.01)
        return "went on"

    async def block(self, began: Path, go_on: Path) -> None:
        began.touch()
        while not go_on.exists():
            time.sleep(0.01)

    async def cancel_all(self) -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        asyncio.get_running_loop().stop()

    async def items(self) -> Any:
        yield 1
        await asyncio.sleep(1000)

    async def leave(self, how: str) -> None:
        Sync.leave(self, how)  # type: ignore[arg-type]

    async def leave_in_thread(self) -> str:
        return Sync.leave_in_thread(self)  # type: ignore[arg-type]

    async def leave_in_items(self, how: str) -> Any:
        yield 1
        Sync.leave(self, how)  # type: ignore[arg-type]


@rabbitry.remote
def slowly(go_on: Path) -> int:
    """Wait for a file."""
    while not go_on.exists():
        time.sleep(0.01)
    return 1


def wait_until_dead(actor: Any) -> None:
    """Call an actor until it is dead."""

    def is_dead() -> bool:
        try:
            rabbitry.get(actor.ping.remote(), timeout=30)
        except ActorDiedError:
            return True
        return False

    wait_until(is_dead, "it is dead")


KINDS: dict[str, tuple[type, dict[str, Any]]] = {
    "sync": (Sync, {"max_concurrency": 1}),
    "threads": (Sync, {"max_concurrency": 2}),
    "async": (Async, {"max_concurrency": 2}),
    "async-groups": (Async, {"concurrency_groups": {"io": 1}}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_calls_are_cancelled_wherever_they_are(tmp_path, kind):
    cls, options = KINDS[kind]
    actor = rabbitry.remote(**options)(cls).remote()
    pid = rabbitry.get(actor.ping.remote(), timeout=30)
    retried = actor.wait.options(retry_exceptions=True, max_task_retries=5)
    running = [retried.remote(tmp_path / "0")]
    if kind == "async" or kind == "threads":
        running.append(retried.remote(tmp_path / "1"))
    wait_until(lambda: all((tmp_path / str(at)).exists() for at in range(len(running))), "they run")
    behind = actor.ping.remote() if kind != "async-groups" else retried.remote(tmp_path / "behind")
    lacking = actor.ping.remote(slowly.remote(tmp_path / "never"))
    with pytest.raises(ValueError, match="force"):
        rabbitry.cancel(running[0], force=True)
    rabbitry.cancel(behind)
    rabbitry.cancel(lacking)
    if kind != "sync":  # its only thread is busy: it hears of this when that is through
        with pytest.raises(TaskCancelledError):
            rabbitry.get(lacking, timeout=30)
    for each in running:
        rabbitry.cancel(each)
        with pytest.raises(TaskCancelledError):  # also where it went on to its end: what that returned is not told
            rabbitry.get(each, timeout=30)
    for each in (behind, lacking):
        with pytest.raises(TaskCancelledError):
            rabbitry.get(each, timeout=30)
    assert rabbitry.get(actor.ping.remote(), timeout=30) == pid
    (tmp_path / "never").touch()


def end(how: str, text: str) -> Any:
    """Return, or raise, what a cancelled call ends with."""
    if how == "raises":
        raise RuntimeError(text)
    return (1, 2) if how == "two" else b"x" * 2_000_000 if how == "large" else 1


HOWS = {"returns": 1, "two": 2, "large": 1, "raises": 1}
"""With how many results."""


def cancel_running(actor: Any, directory: Path, how: str) -> list[Any]:
    """Have an actor run, and cancel that when it runs; return the refs."""
    began = directory / how
    refs = actor.run.options(num_returns=HOWS[how]).remote(began, how)
    refs = refs if isinstance(refs, list) else [refs]
    wait_until(began.exists, "it runs")
    rabbitry.cancel(refs[0])
    return refs


class Ends:
    """Its calls go on to their end though they are cancelled, and end in several ways."""

    def run(self, began: Path, how: str) -> Any:
        began.touch()
        while not rabbitry.get_runtime_context().is_canceled():
            time.sleep(0.01)
        return end(how, "told to stop")


@pytest.mark.parametrize("concurrency", [1, 2])
def test_what_a_cancelled_call_returns_is_not_told_and_what_it_raises_is(tmp_path, concurrency):
    actor = rabbitry.remote(max_concurrency=concurrency)(Ends).remote()
    for how in HOWS:
        for each in cancel_running(actor, tmp_path, how):
            with pytest.raises(RuntimeError if how == "raises" else TaskCancelledError):
                rabbitry.get(each, timeout=30)


@rabbitry.remote
class EndsLater:
    """Its coroutines go on though they are cancelled."""

    def __init__(self) -> None:
        self.went_on: list[str] = []

    async def run(self, began: Path, how: str) -> Any:
        began.touch()
        try:
            await asyncio.sleep(120)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            self.went_on.append(how)
        return end(how, "cancelled")

    async def seen(self) -> list[str]:
        return self.went_on


def test_who_waits_for_a_cancelled_coroutine_hears_of_that_whatever_it_makes_of_it(tmp_path):
    actor = EndsLater.remote()
    for how in HOWS:
        for each in cancel_running(actor, tmp_path, how):
            with pytest.raises(TaskCancelledError):
                rabbitry.get(each, timeout=30)
    assert rabbitry.get(actor.seen.remote()) == list(HOWS)


@rabbitry.remote
def child(began: Path, go_on: Path) -> str:
    began.touch()
    while not go_on.exists():
        time.sleep(0.01)
    return "went on"


class Parent:
    def run(self, *paths: Path) -> Any:
        self.child = child.remote(*paths)
        return rabbitry.get(self.child)

    def outcome(self) -> Any:
        return rabbitry.get(self.child)


class AsyncParent:
    async def run(self, *paths: Path) -> Any:
        self.child = child.remote(*paths)
        return await self.child

    async def outcome(self) -> Any:
        return await self.child


@pytest.mark.parametrize("recursive", [True, False])
@pytest.mark.parametrize(("cls", "concurrency"), [(Parent, 1), (Parent, 2), (AsyncParent, 2)])
def test_what_a_cancelled_call_submitted_is_cancelled_if_so_asked(tmp_path, cls, concurrency, recursive):
    actor = rabbitry.remote(max_concurrency=concurrency)(cls).remote()
    running = actor.run.remote(tmp_path / "began", tmp_path / "go on")
    wait_until((tmp_path / "began").exists, "its child runs")
    rabbitry.cancel(running, recursive=recursive)
    with pytest.raises(TaskCancelledError):
        rabbitry.get(running, timeout=30)
    if not recursive:
        (tmp_path / "go on").touch()
        assert rabbitry.get(actor.outcome.remote(), timeout=30) == "went on"
    else:
        with pytest.raises(TaskCancelledError):
            rabbitry.get(actor.outcome.remote(), timeout=30)


def test_a_call_that_is_cancelled_before_its_first_step(tmp_path):
    actor = rabbitry.remote(Async).remote()
    rabbitry.get(actor.ping.remote(), timeout=30)
    blocking = actor.block.remote(tmp_path / "began", tmp_path / "go on")
    wait_until((tmp_path / "began").exists, "it blocks the loop")
    waiting = actor.wait.remote(tmp_path / "never")
    time.sleep(0.1)  # or the cancellation would find it at home
    rabbitry.cancel(waiting)
    time.sleep(0.1)
    (tmp_path / "go on").touch()
    with pytest.raises(TaskCancelledError):
        rabbitry.get(waiting, timeout=30)
    rabbitry.get(blocking, timeout=30)
    # Nor does it end an actor, or leave a call unanswered, that user code cancels what runs on its loop, and stops it.
    running = actor.wait.remote(tmp_path / "runs")
    wait_until((tmp_path / "runs").exists, "it runs")
    rabbitry.get(actor.cancel_all.remote(), timeout=30)
    with pytest.raises(TaskCancelledError):
        rabbitry.get(running, timeout=30)
    items = actor.items.options(num_returns="streaming", retry_exceptions=True, max_task_retries=5).remote()
    assert rabbitry.get(next(items), timeout=30) == 1
    rabbitry.cancel(items)
    with pytest.raises(TaskCancelledError):
        rabbitry.get(next(items), timeout=30)
    with pytest.raises(StopIteration):
        next(items)
    rabbitry.get(actor.ping.remote(), timeout=30)


def test_a_group_that_blocks_holds_up_no_other(tmp_path):
    @rabbitry.remote(concurrency_groups={"io": 1, "cpu": 1})
    class Grouped:
        async def __init__(self) -> None:
            await asyncio.sleep(0)
            self.loop = asyncio.get_running_loop()
            self.ticks = 0
            self.ticking = asyncio.create_task(self.tick())

        async def tick(self) -> None:
            while True:
                self.ticks += 1
                await asyncio.sleep(0.005)

        async def ticked(self) -> bool:
            assert asyncio.get_running_loop() is self.loop
            return self.ticks > 5

        @rabbitry.method(concurrency_group="io")
        async def block_io(self, began: Path, go_on: Path) -> int:
            return block(began, go_on)

        async def block_default(self, began: Path, go_on: Path) -> int:
            return block(began, go_on)

        @rabbitry.method(concurrency_group="cpu")
        async def where(self) -> int:
            return threading.get_ident()

    def block(began: Path, go_on: Path) -> int:
        began.touch()
        while not go_on.exists():
            time.sleep(0.01)
        return threading.get_ident()

    actor = Grouped.remote()
    wait_until(lambda: rabbitry.get(actor.ticked.remote(), timeout=30), "what the constructor began goes on")
    blocking = [actor.block_io.remote(tmp_path / "io", tmp_path / "go on")]
    blocking.append(actor.block_default.remote(tmp_path / "default", tmp_path / "go on"))
    wait_until(lambda: (tmp_path / "io").exists() and (tmp_path / "default").exists(), "both block their loops")
    where = rabbitry.get(actor.where.remote(), timeout=30)
    (tmp_path / "go on").touch()
    assert len({where, *rabbitry.get(blocking, timeout=30)}) == 3
    system = actor.where.options(concurrency_group="_ray_system").remote()
    assert rabbitry.get(system, timeout=30) != where
    with pytest.raises(ValueError, match="no concurrency group 'nope'"):
        rabbitry.get(actor.where.options(concurrency_group="nope").remote(), timeout=30)


@pytest.mark.parametrize("how", ["exit_actor", "sys.exit", "failure"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_actor_that_exits_is_dead(kind, how):
    cls, options = KINDS[kind]
    actor = rabbitry.remote(**options)(cls).options(name=f"{kind}-{how}").remote()
    rabbitry.get(actor.ping.remote(), timeout=30)
    leaving = actor.leave.remote(how)
    behind = [actor.ping.remote() for _ in range(20)] if kind == "sync" else []
    for each in (leaving, *behind):
        with pytest.raises(ActorDiedError):
            rabbitry.get(each, timeout=30)
    with pytest.raises(ActorDiedError):
        rabbitry.get(actor.ping.remote(), timeout=30)
    with pytest.raises(ValueError, match="Failed to look up"):
        rabbitry.get_actor(f"{kind}-{how}")
    items = rabbitry.remote(**options)(cls).remote()
    stream = items.leave_in_items.options(num_returns="streaming").remote(how)
    assert rabbitry.get(next(stream), timeout=30) == 1
    wait_until_dead(items)  # other calls may run until the generator goes on
    # An exit code says that something failed, and then there may be a next process.
    again = rabbitry.remote(**options)(cls).options(max_restarts=1, max_task_retries=1).remote()
    pid = rabbitry.get(again.ping.remote(), timeout=30)
    again.leave.options(max_task_retries=0).remote(how)
    if how == "failure":
        wait_until(lambda: rabbitry.get(again.ping.remote(), timeout=30) != pid, "it is restarted")
    else:
        wait_until_dead(again)


@pytest.mark.parametrize("kind", ["sync", "threads", "async"])
def test_calls_that_run_come_to_their_end_when_an_actor_exits(tmp_path, kind):
    cls, options = KINDS[kind]
    actor = rabbitry.remote(**options)(cls).remote()
    if kind != "sync":
        running = actor.wait.remote(tmp_path / "began", tmp_path / "go on")
        wait_until((tmp_path / "began").exists, "it runs")
        actor.leave.remote("exit_actor")
        wait_until_dead(actor)  # at once, though the other one still runs
        (tmp_path / "go on").touch()
        assert rabbitry.get(running, timeout=30) == "went on"
        actor = rabbitry.remote(**options)(cls).remote()
    assert rabbitry.get(actor.leave_in_thread.remote(), timeout=30) == "answered"
    wait_until_dead(actor)


class Waits:
    """Its calls wait for what does not come."""

    def __init__(self):
        self.seen = []

    def get(self, path, refs):
        self._within(path, lambda: rabbitry.get(refs[0]))

    def wait(self, path, refs):
        self._within(path, lambda: rabbitry.wait(refs))

    def next(self, path, refs):
        self._within(path, lambda: next(items_when.remote(path.with_name("never"))))

    def poll(self, path, refs):
        path.touch()
        while not rabbitry.get_runtime_context().is_canceled():
            time.sleep(0.01)
        self.seen.append(rabbitry.get(rabbitry.put("here already")))

    def _within(self, path, block):
        path.touch()
        try:
            block()
        except BaseException as error:
            self.seen.append(type(error))
            raise

    def take(self):
        return self.seen


@rabbitry.remote(num_cpus=0)
def items_when(path):
    while not path.exists():
        time.sleep(0.01)
    yield 1


@pytest.mark.parametrize("how", ["get", "wait", "next", "poll"])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_cancelled_call_does_not_go_on_waiting_for_results(tmp_path, concurrency, how):
    actor = rabbitry.remote(num_cpus=0, max_concurrency=concurrency)(Waits).remote()
    never = slowly.remote(tmp_path / "never")
    call = getattr(actor, how).remote(tmp_path / "waits", [never])
    wait_until((tmp_path / "waits").exists, "it waits")
    rabbitry.cancel(call, recursive=False)  # or it would get what its children end with
    with pytest.raises(TaskCancelledError):
        rabbitry.get(call, timeout=30)
    # What it waited for goes on; values that are here can be had.
    assert rabbitry.get(actor.take.remote(), timeout=30) == (["here already"] if how == "poll" else [KeyboardInterrupt])
    (tmp_path / "never").touch()
    assert rabbitry.get(never, timeout=30)
