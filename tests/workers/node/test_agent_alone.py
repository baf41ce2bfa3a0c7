"""The agent with fakes in the place of its servers and processes: a task's whole way, and how a node leaves."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pytest

from rabbitry_broker.ids import FIRST_INDEX
from rabbitry_workers.channel import BLOCKED, BYE, DONE, PUBLISH, UNBLOCKED
from rabbitry_workers.node.model.life import Phase
from tests.workers.conftest import task
from tests.workers.node.fakes import OWNER, QUEUE, ids
from tests.workers.node.house import House


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    made = House(monkeypatch)
    yield made
    made.close()


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
