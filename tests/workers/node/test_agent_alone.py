"""The agent with fakes in the place of its servers and processes: a task's whole way, and how a node leaves."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.ids import FIRST_INDEX
from rabbitry_broker.messages import encode_frame, encode_header
from rabbitry_broker.store.keys import Keys
from rabbitry_workers.channel import BLOCKED, BYE, DONE, PUBLISH, UNBLOCKED
from rabbitry_workers.node import agent as agents
from rabbitry_workers.node.agent import Agent
from rabbitry_workers.node.model.config import NodeConfig
from rabbitry_workers.node.model.life import Phase
from rabbitry_workers.node.parts import model, room
from tests.workers.conftest import header, task
from tests.workers.node.fakes import (
    OWNER,
    QUEUE,
    FakeConsumer,
    FakeExecutor,
    FakeLoop,
    FakePublisher,
    FakeStore,
    delivery,
    ids,
)

ENDPOINT = Endpoint("redis://nowhere", "amqp://nowhere", (b"s" * 32,), "test:")


class House:
    """An agent, and what stands around it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.consumer, self.publisher, self.store, self.loop = FakeConsumer(), FakePublisher(), FakeStore(), FakeLoop()
        self.store.keys = Keys.of(ENDPOINT)  # type: ignore[attr-defined]
        self.store.sign_of_life = lambda node, lease: None  # type: ignore[attr-defined]
        self.store.open_connection = lambda name: SimpleNamespace(send=print, fileno=lambda: 99, poll=list)  # type: ignore[attr-defined]
        self.store.close = lambda: None  # type: ignore[attr-defined]
        self.publisher.close = lambda: None  # type: ignore[attr-defined]
        self.loop.close = lambda: None  # type: ignore[attr-defined]
        self.executors: list[FakeExecutor] = []
        self.deliver: Any = None

        def consume(endpoint: Any, loop: Any, on_delivery: Any, **_: Any) -> FakeConsumer:
            self.deliver = on_delivery
            return self.consumer

        for module, name, made in (
            (model, "LeasedStore", lambda *_, **__: self.store),
            (model, "Loop", lambda: self.loop),
            (model, "open_publisher", lambda *_, **__: self.publisher),
            (model, "open_consumer", consume),
            (room, "ExecutorProcess", self.adopt),
        ):
            monkeypatch.setattr(module, name, made)
        monkeypatch.setattr(agents, "put_aside_wrong_types", lambda store: 0)
        self.ours, self.theirs = socket.socketpair()
        self.agent = Agent(NodeConfig(endpoint=ENDPOINT, totals={"CPU": 1.0}, name="n", host=b"h" * 16), (0, self.ours))
        self.agent.output.watch = lambda executor: None  # type: ignore[method-assign]
        self.agent.owners._met[OWNER] = None

    def adopt(self, loop: Any, pid: int, key: Any, fds: Any, owner: Any) -> FakeExecutor:
        executor = FakeExecutor(pid, key)
        self.executors.append(executor)
        return executor

    def fork(self) -> FakeExecutor:
        """The template has forked what it was asked for."""
        tag, _ = self.agent.forker._queue.popleft()
        self.agent.pool.on_forked(len(self.executors) + 1, tag, [])
        return self.executors[-1]

    def comes(self, *numbers: int, **fields: Any) -> None:
        head = header(OWNER, **fields)
        self.deliver(
            delivery(encode_frame(self.agent.node.signer, encode_header(head), [task(OWNER, n) for n in numbers]))
        )

    def says(self, executor: FakeExecutor, *message: Any) -> None:
        self.agent.messages.on_executor_message(executor, list(message))


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    made = House(monkeypatch)
    yield made
    made.ours.close()
    made.theirs.close()


def test_a_message_is_acknowledged_when_its_tasks_are_done(house: House):
    house.comes(1, 2)
    executor = house.fork()
    house.says(executor, DONE, 1, 1, 0.5, [], [], None)
    assert len(executor.ran()) == 2
    assert not house.consumer.acknowledged
    house.says(executor, DONE, executor.chunks[0].end, 1, 0.5, [], [], None)
    assert len(house.consumer.acknowledged) == 1
    assert house.agent.ledger.available()["CPU"] == 1
    assert house.agent.pool.idle


def test_a_parent_that_waits_lends_its_cpu_to_its_child(house: House):
    house.comes(1)
    parent = house.fork()
    house.says(parent, PUBLISH, QUEUE, 0, b"frame")
    assert house.publisher.messages == [(QUEUE, b"frame", 0)]
    house.says(parent, BLOCKED, 0, False)
    house.comes(2, function=b"g" * 16)
    child = house.fork()
    assert child.ran() == ids([task(OWNER, 2)])
    house.says(parent, UNBLOCKED)
    assert house.agent.nesting.blocked == {}


def test_a_crash_of_an_executor_fails_its_task_and_the_next_one_runs(house: House):
    house.comes(1, 2, max_retries=0)
    executor = house.fork()
    executor.progress.started[0] = 1
    house.agent.messages.on_executor_gone(executor)
    assert house.store.results[task(OWNER, 1)[0] + FIRST_INDEX]
    assert house.fork().ran() == ids([task(OWNER, 2)])


def test_one_that_says_goodbye_is_replaced(house: House):
    house.comes(1, 2)
    executor = house.fork()
    house.says(executor, BYE, "max_calls")
    assert executor.ended
    house.agent.messages.on_executor_gone(executor)
    assert set(house.fork().ran()) <= set(ids([task(OWNER, 1), task(OWNER, 2)]))


def test_a_node_runs_and_leaves_in_good_order(house: House):
    ready: list[int] = []
    house.agent._ready = lambda: ready.append(1)
    house.loop.run = lambda seconds=0.0: None  # type: ignore[method-assign]
    house.agent.forker.close = lambda: None  # type: ignore[method-assign]
    house.comes(1)
    executor = house.fork()
    house.agent.run()
    assert ready == [1]
    assert executor.signals == [9]
    keys = house.agent.node.keys
    assert keys.node(house.agent.node.id) not in house.store.data


def test_a_node_that_drains_finishes_what_runs_and_gives_the_rest_back(house: House):
    house.comes(1, 2)
    executor = house.fork()
    house.agent.on_drain("test")
    house.agent.drain()
    assert house.agent.life.phase is Phase.DRAINING
    assert len(house.publisher.messages) == 1
    house.publisher.confirm()
    house.loop.run()
    house.says(executor, DONE, 1, 1, 0.5, [], [], None)
    assert house.agent.life.phase is Phase.STOPPING
    house.loop.run()
    assert house.loop.stopped
    house.agent.stop()


def test_the_service_looks_after_all_that_waits_and_goes_on_when_redis_is_away(house: House):
    house.agent._tidied_at = -1000.0
    house.agent._service()
    house.agent.look_after_work = lambda: house.store._check()  # type: ignore[method-assign]
    house.store.away = 1
    house.loop.run(1.0)
    assert house.loop.pending


def test_the_work_of_a_dead_node_is_taken_over_in_all_its_forms(house: House):
    assert house.agent._take_over(b"n" * 28) == 0
    assert not deque(house.publisher.messages)
