"""What runs next while tasks wait for others: a node without processes, in which every step is taken by hand."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_broker.ids import new_client_id
from rabbitry_broker.messages import Task
from rabbitry_broker.resources import ResourceRequest
from rabbitry_workers.node.dispatch import nesting
from rabbitry_workers.node.dispatch.nesting import Nesting
from rabbitry_workers.node.model.lanes import Lane, Lanes, State
from rabbitry_workers.node.model.ledger import Ledger
from rabbitry_workers.node.model.work import Held, Piece
from tests.workers.conftest import header, task

DRIVER = new_client_id()
CPU = ResourceRequest.parse("CPU=1")


class Sources:
    """Says whether more stands on the queues."""

    def __init__(self) -> None:
        self.more = 0
        self.forgot = 0

    def take_more(self, _class: str) -> bool:
        self.more -= 1
        return self.more >= 0

    def forget_blocked(self) -> None:
        self.forgot += 1


class Node:
    """The ports of `Nesting`; `run` starts all that may be started."""

    def __init__(self, cpus: int) -> None:
        self.totals = ResourceRequest.from_floats({"CPU": cpus})
        self.ledger = Ledger(self.totals)
        self.sources = Sources()
        self.lane = Lane(("CPU=1", b"jjjj", b""), CPU, self.ledger)
        self.lanes = Lanes(self.ledger)
        self.lanes[self.lane.key] = self.lane
        self.executors: dict[int, Any] = {}
        self.nesting = Nesting(self.lanes, self.executors, self.ledger, self.sources, self.serve)
        self.number = 0

    def serve(self, _lane: Lane) -> None:
        self.run()

    def submit(self, owner: bytes, count: int, function: bytes = b"f") -> None:
        tasks: deque[Task] = deque()
        for _ in range(count):
            self.number += 1
            tasks.append(task(owner, self.number))
        self.lane.put(Piece(Held(None), b"", header(owner, function=function), tasks))

    def run(self) -> list[Any]:
        started = []
        while self.lane.waiting and self.ledger.has_room(CPU):
            piece = self.nesting.choose(self.lane)
            if piece is None:
                break
            self.lane.take(piece, 1)
            chunk = SimpleNamespace(header=piece.header)
            executor = SimpleNamespace(
                client_id=new_client_id(), chunks=[chunk], state=State.LEASED, grant=self.ledger.acquire(CPU)
            )
            self.executors[self.number + len(self.executors)] = executor
            started.append(executor)
        return started

    def block(self, executor: Any) -> None:
        executor.state = State.BLOCKED
        self.ledger.lend(executor.grant)
        self.nesting.begins(executor)

    def resume(self, executor: Any) -> None:
        executor.state = State.LEASED
        self.nesting.ends(executor)
        self.ledger.reclaim(executor.grant)

    def end(self, executor: Any) -> None:
        executor.chunks = []
        self.ledger.release(executor.grant)
        del self.executors[next(pid for pid, each in self.executors.items() if each is executor)]


def test_children_run_before_more_parents_and_deeper_ones_first():
    node = Node(2)
    node.submit(DRIVER, 100)
    parents = node.run()
    assert len(parents) == 2
    for parent in parents:
        node.block(parent)
    assert node.run() == []  # what they wait for is on its way
    node.submit(parents[0].client_id, 50, b"g")
    (first, _) = children = node.run()
    assert all(child.chunks[0].header.function == b"g" for child in children)
    node.block(first)
    assert node.run() == []
    node.submit(parents[1].client_id, 1, b"g")
    node.submit(first.client_id, 1, b"h")
    assert node.nesting.waits_for(node.lane)
    (deeper,) = node.run()
    assert deeper.chunks[0].header.function == b"h"
    node.end(deeper)
    (sibling,) = node.run()
    assert sibling.chunks[0].header.owner == parents[1].client_id
    assert len(node.executors) == 5


@pytest.mark.parametrize("cpus", [1, 4])
def test_recursion_of_one_function_is_not_held_back(cpus: int):
    node = Node(cpus)
    node.submit(DRIVER, 1)
    for _ in range(50):
        (executor,) = node.run()
        node.block(executor)
        node.submit(executor.client_id, 1)


def test_tasks_that_wait_for_others_of_their_kind_come_to_run(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(nesting.time, "monotonic", lambda: now[0])
    node = Node(2)
    node.submit(DRIVER, 100)
    rounds = 0
    while len(node.executors) < 100:
        for executor in list(node.executors.values()):
            if executor.state is State.LEASED:
                node.block(executor)
        node.run()
        now[0] += 10.0
        node.nesting.run_once()
        rounds += 1
        assert rounds < 100
    for executor in list(node.executors.values()):
        node.resume(executor) if executor.state is State.BLOCKED else None
        node.end(executor)
    assert not node.nesting.blocked
    assert node.sources.forgot == 1


def test_more_is_taken_from_the_queue_before_more_are_started(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(nesting.time, "monotonic", lambda: now[0])
    node = Node(1)
    node.submit(DRIVER, 10)
    (parent,) = node.run()
    node.block(parent)
    node.sources.more = 6
    for _ in range(3):
        assert node.run() == []
        now[0] += 10.0
        node.nesting.run_once()
    assert len(node.executors) == 1
    node.submit(parent.client_id, 1)
    assert len(node.run()) == 1
