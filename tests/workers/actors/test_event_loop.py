"""The loops of asyncio actors."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_workers.actors import event_loop as module
from rabbitry_workers.actors import loops
from rabbitry_workers.actors.event_loop import actor_loop, group_loop
from rabbitry_workers.channel import BlockingChannel


@pytest.fixture(params=["", "0"], ids=["uvloop", "asyncio"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where loops come from."""
    wanted: str = request.param
    if not wanted:
        pytest.importorskip("uvloop")
    monkeypatch.setenv("RABBITRY_USE_UVLOOP", wanted)
    module._base.cache_clear()
    module._actor_loop.cache_clear()
    yield "asyncio" if wanted else "uvloop"
    module._base.cache_clear()
    module._actor_loop.cache_clear()


async def seven() -> int:
    return 7


def test_uvloop_is_used_where_it_is_installed_and_wanted(kind: str) -> None:
    for make in (actor_loop, group_loop):
        loop = make()
        origins = {cls.__module__.partition(".")[0] for cls in type(loop).__mro__}
        assert ("uvloop" in origins) == (kind == "uvloop")
        assert loop.run_until_complete(seven()) == 7
        loop.close()


def test_an_actors_loop_counts_as_running_while_it_will_run_on() -> None:
    loop = actor_loop()
    assert not loop.is_running()
    loop.goes_on = True
    assert loop.is_running()
    assert loop.run_until_complete(seven()) == 7, "that it will run on keeps nobody from running it"
    loop.goes_on = False
    assert not loop.is_running()
    loop.close()


def test_no_loop_runs_inside_another_one() -> None:
    loop, other = actor_loop(), actor_loop()

    async def nest() -> None:
        for each in (loop, other):
            coroutine = seven()
            with pytest.raises(RuntimeError, match="running"):
                each.run_until_complete(coroutine)
            coroutine.close()

    loop.run_until_complete(nest())
    loop.close()
    other.close()


def test_a_task_that_exits_leaves_a_loop_that_runs_on() -> None:
    loop = actor_loop()

    def leave() -> None:
        raise SystemExit(3)

    loop.call_soon(leave)
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert loop.run_until_complete(seven()) == 7
    loop.close()


def test_a_node_does_not_need_uvloop() -> None:
    hidden = "import sys; sys.modules['uvloop'] = None; "
    program = "from rabbitry_workers.actors.event_loop import actor_loop; print(type(actor_loop()).__mro__[1].__name__)"
    done = subprocess.run([sys.executable, "-c", hidden + program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [asyncio.SelectorEventLoop.__name__]


def test_what_an_actor_says_to_its_agent_waits_for_it_on_every_loop(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What uvloop watches it makes non-blocking, and a goodbye that the agent has not answered yet failed."""
    monkeypatch.setattr(loops.flusher, "concurrent", False)
    agents, ours = socket.socketpair()
    wake_read, wake_write = os.pipe()
    told: list[tuple[str, bool]] = []

    def leave(reason: str) -> int:
        told.append((reason, os.get_blocking(ours.fileno())))
        return 0

    host: Any = SimpleNamespace(
        spec=SimpleNamespace(groups={}, concurrency=1),
        channel=BlockingChannel(ours),
        _wake_read=wake_read,
        ending="exit_actor",
        patience_at_end=0.0,
        leave=leave,
    )
    runner = loops.AsyncRunner(host)
    runner._loop.call_soon(host.on_exit)
    assert runner.serve() == 0
    assert told == [("exit_actor", True)]
    runner._loop.close()
    for each in (agents, ours):
        each.close()
    os.close(wake_read)
    os.close(wake_write)
