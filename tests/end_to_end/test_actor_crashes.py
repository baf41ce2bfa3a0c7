"""Actors whose process dies: what becomes of calls of every kind of actor that were sent before, with and after it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry.exceptions import ActorDiedError, ActorUnavailableError

pytestmark = pytest.mark.usefixtures("session")


class Sync:
    """Dies at `get` once `set` was called."""

    def __init__(self, slowed: Path | None = None) -> None:
        self.bad = False
        while slowed is not None and slowed.exists():
            time.sleep(0.01)

    def set(self) -> None:
        self.bad = True

    def get(self, value: Any) -> Any:
        if self.bad:
            os._exit(1)
        return value

    def pid(self) -> int:
        return os.getpid()

    def nap(self) -> None:
        time.sleep(1000)


class Async(Sync):
    """The same with coroutines."""

    async def set(self) -> None:  # type: ignore[override]
        self.bad = True

    async def get(self, value: Any) -> Any:
        if self.bad:
            os._exit(1)
        return value


KINDS: dict[str, tuple[type, dict[str, Any]]] = {
    "sync": (Sync, {"max_concurrency": 1}),
    "threads": (Sync, {"max_concurrency": 4}),
    "groups": (Sync, {"concurrency_groups": {"io": 2}}),
    "async": (Async, {"max_concurrency": 8}),
    "async-groups": (Async, {"concurrency_groups": {"io": 2}}),
    "out-of-order": (Sync, {"allow_out_of_order_execution": True}),
}
RETRIED = {"max_restarts": -1, "max_task_retries": -1}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_what_ended_before_a_crash_is_not_run_again_with_the_call_that_crashes(kind):
    cls, options = KINDS[kind]
    for at in range(2):
        actor = rabbitry.remote(**options, **RETRIED)(cls).remote()
        if at % 2:  # what it did has been answered, though its node may not know yet
            rabbitry.get(actor.set.remote(), timeout=30)
            assert rabbitry.get(actor.get.remote(at), timeout=30) == at
        else:  # nor has it been answered
            calls = [actor.set.remote(), actor.get.remote(at), *[actor.get.remote(each) for each in range(5)]]
            assert rabbitry.get(calls, timeout=30) == [None, at, *range(5)]
        assert rabbitry.get(actor.get.remote(-1), timeout=30) == -1
        rabbitry.kill(actor)


@pytest.mark.parametrize("kind", ["sync", "threads", "async"])
def test_calls_that_may_not_run_again_fail_while_the_actor_is_restarted(tmp_path, kind):
    cls, options = KINDS[kind]
    slowed = tmp_path / "slowed"
    actor = rabbitry.remote(**options, max_restarts=1)(cls).remote(slowed)
    pid = rabbitry.get(actor.pid.remote(), timeout=30)
    slowed.touch()
    running, behind = (actor.nap.remote(), actor.pid.remote()) if kind != "async" else (actor.nap.remote(),) * 2
    tried_again = actor.get.options(max_task_retries=1).remote(1)
    os.kill(pid, 9)
    if kind != "threads":  # where it does not stand behind the one that runs
        with pytest.raises(ActorUnavailableError):
            rabbitry.get(behind, timeout=30)
    with pytest.raises(ActorUnavailableError) as caught:
        rabbitry.get(running, timeout=30)
    assert caught.value.actor_id == actor._actor_id.hex()
    with pytest.raises(ActorUnavailableError, match="restarted"):
        rabbitry.get(actor.pid.remote(), timeout=30)
    slowed.unlink()
    assert rabbitry.get(tried_again, timeout=30) == 1
    assert rabbitry.get(actor.pid.remote(), timeout=30) != pid
    rabbitry.get(actor.set.remote(), timeout=30)
    with pytest.raises(ActorDiedError):
        rabbitry.get(actor.get.remote(1), timeout=30)


@pytest.mark.parametrize("retries", [0, -1])
def test_an_actor_that_never_comes_up_ends_with_its_last_handle(retries):
    @rabbitry.remote(max_restarts=-1, max_task_retries=retries)
    class Broken:
        def __init__(self) -> None:
            os._exit(1)

        def call(self) -> None:
            pass

    broken = Broken.options(name=f"broken{retries}").remote()
    wait_until(lambda: f"broken{retries}" in rabbitry.util.list_named_actors(), "it has its name")
    time.sleep(0.2)
    del broken
    wait_until(lambda: f"broken{retries}" not in rabbitry.util.list_named_actors(), "its name is free")
