"""Groups of an asyncio actor: what becomes of calls when their actor ends."""

from __future__ import annotations

import asyncio
import threading
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


class Committer:
    """Notes what was gathered when it committed."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.state: Any = None
        self.is_full = False
        self.watched = 0
        self.gathered: list[str] = []
        self.commits: list[list[str]] = []

    def full(self) -> bool:
        return self.is_full

    def before_user_code(self) -> None:
        self.watched += 1

    def commit(self, *, last: bool) -> None:
        if self.gathered:
            self.commits.append(self.gathered)
        self.gathered = []


@pytest.fixture
def streaming() -> tuple[Group, Committer]:
    """A group whose calls emit items: texts."""
    host: Any = Host()
    committer = host.committer = Committer()
    host.runner_of_calls.gather = lambda owner, out: committer.gathered.append(out)

    def emit(owner: bytes, out: Any) -> None:
        committer.gathered.append(out)
        committer.commit(last=False)

    host.runner_of_calls.emit = emit
    runner: Any = SimpleNamespace(host=host, threaded=False, exiting=False, fail=pytest.fail)
    return Group(runner, asyncio.new_event_loop(), 1), committer


def items(group: Group, *texts: str, between: Any = None) -> None:
    """Emit items on the group's loop, which goes round after each one of `between`."""

    async def emit() -> None:
        for text in texts:
            group._emit(OWNER, text)  # type: ignore[arg-type]
            if text == between:
                await asyncio.sleep(0)

    async def run() -> None:
        await emit()
        await asyncio.sleep(0)

    group.loop.run_until_complete(run())
    group.loop.close()


def test_items_of_one_round_of_the_loop_are_one_commit(streaming: tuple[Group, Committer]) -> None:
    group, committer = streaming
    items(group, "a", "b")
    assert committer.commits == [["a", "b"]]
    assert committer.watched == 2, "if the loop were blocked after an item, somebody else would have to commit it"


def test_an_item_does_not_wait_for_the_next_one(streaming: tuple[Group, Committer]) -> None:
    group, committer = streaming
    items(group, "a", "b", between="a")
    assert committer.commits == [["a"], ["b"]]


def test_much_is_committed_at_once(streaming: tuple[Group, Committer]) -> None:
    group, committer = streaming
    committer.is_full = True
    items(group, "a", "b")
    assert committer.commits == [["a"], ["b"]]


def test_items_of_a_durable_actor_are_committed_with_the_state_they_belong_to(
    streaming: tuple[Group, Committer],
) -> None:
    group, committer = streaming
    committer.state = lambda: None
    items(group, "a", "b")
    assert committer.commits == [["a"], ["b"]]
    assert not committer.watched
