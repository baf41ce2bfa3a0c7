"""The queue of a node that is gone: others look after it for a while, and again when there is something on it."""

from __future__ import annotations

import time

import pytest

from rabbitry_broker import records
from rabbitry_broker.ids import FIRST_INDEX, new_client_id, new_node_id
from rabbitry_broker.messages import Completion, encode_completion
from rabbitry_broker.queue_names import node_queue
from rabbitry_workers.node.agent import Agent
from rabbitry_workers.node.intake import sources
from rabbitry_workers.node.outcome.publishing import announce_queue
from tests.workers.conftest import MakeAgent, drive, frame, header, task

OWNER = new_client_id()


def abandon(agent: Agent, queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an agent look after a queue, and stop: nothing came for long."""
    announce_queue(agent.node, queue)
    drive(agent, lambda: queue in agent.sources.by_queue, "it looks after the queue")
    with monkeypatch.context() as patch:
        patch.setattr(sources, "ORPHAN_SECONDS", 0.0)
        time.sleep(0.001)
        agent.sources.tidy([queue.encode()])
    agent.watch.run_once()
    assert queue not in agent.sources.by_queue


@pytest.mark.parametrize("engine", ["embedded", "rabbitmq"], indirect=True)
def test_a_released_task_for_a_node_that_is_gone_is_seen_to(make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch):
    agent = make_agent()
    agent.store.register_client(OWNER, 60.0)
    queue = node_queue(new_node_id())
    abandon(agent, queue, monkeypatch)
    releaser, dependant = task(OWNER, 2), task(OWNER, 3)
    awaited = releaser[0] + FIRST_INDEX
    head = header(OWNER, elsewhere="task.CPU=1")
    spec = (dependant[0], frame(agent, head, (*dependant[:3], [awaited], *dependant[4:])), queue, 0, [awaited])
    assert agent.store.park([spec]) == [False]
    items = [awaited, records.NONE]
    entry = encode_completion(agent.node.signer, OWNER, Completion(b"", 1, 0.0, items, [releaser[0]]))
    agent.commits.follow_up(OWNER, items, agent.store.commit(OWNER, items, entry, require_owner=True), [])
    drive(agent, lambda: queue in agent.sources.by_queue, "it looks after the queue again")
    drive(agent, lambda: agent.lanes.waits("CPU=1"), "the task came to the queue of its class")
