"""Groups of an asyncio actor: what becomes of calls when their actor ends."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_workers.actors.loops import Group
from tests.workers.conftest import header, task
from tests.workers.node.fakes import OWNER


class Host:
    """The host of an actor that ends, as far as a group asks it."""

    def __init__(self) -> None:
        self.ending = "exit_actor"
        self.asked: set[bytes] = set()  # calls that somebody has cancelled
        self.cancelled: set[bytes] = set()
        self.outcomes: list[str] = []
        self.committer: Any = SimpleNamespace(commit=lambda last: None)
        self.client: Any = SimpleNamespace(collect_quietly=lambda: None)
        self.runner_of_calls: Any = SimpleNamespace(fail=lambda *_: self.outcomes.append("cancelled"))

    def was_cancelled(self, task_id: bytes) -> bool:
        return task_id in self.asked

    def refuse(self, call: Any, out: Any) -> None:
        self.outcomes.append("cancelled")

    def refuse_after_end(self, call: Any, out: Any) -> bool:
        self.outcomes.append("actor ended")
        return True

    def finished(self, call: Any, out: Any, busy: float, retry: Any = None) -> None:
        pass


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("asked", "ending", "outcome"),
    [(False, "exit_actor", "actor ended"), (True, "exit_actor", "cancelled"), (True, "", "cancelled")],
)
def test_a_call_that_ends_with_its_actor_was_not_cancelled(begun: bool, asked: bool, ending: str, outcome: str) -> None:
    host: Any = Host()
    loop = asyncio.new_event_loop()
    runner: Any = SimpleNamespace(host=host, threaded=False, exiting=False, fail=pytest.fail)
    group = Group(runner, loop, 1)
    call: Any = SimpleNamespace(header=header(OWNER), task=task(OWNER, 1), args=None)
    if begun:  # it waits for its turn
        loop.run_until_complete(group._limit.acquire())
    group.start(call)
    if begun:
        loop.run_until_complete(asyncio.sleep(0))
    host.ending = ending
    if asked:
        host.asked.add(call.task[0])
    group.cancel_all()
    loop.run_until_complete(asyncio.sleep(0.01))
    assert host.outcomes == [outcome]
    assert not group._tasks
    loop.close()
