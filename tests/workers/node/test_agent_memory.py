"""What an agent keeps for a job goes with the last executor of that job."""

from __future__ import annotations

from collections import deque

import pytest

from rabbitry_broker.ids import new_client_id
from rabbitry_broker.messages import encode_header
from rabbitry_workers.node.model.work import Held, Piece
from tests.workers.conftest import MakeAgent, header, task
from tests.workers.node.fakes import FakeExecutor

pytestmark = pytest.mark.parametrize("engine", ["rabbitmq"], indirect=True)


def test_nothing_is_kept_of_a_job_without_work_or_executors(make_agent: MakeAgent):
    agent = make_agent()
    head = header(new_client_id())
    held = Held(None, "task.CPU=1")
    held.outstanding = 1
    piece = Piece(held, encode_header(head), head, deque([task(head.owner, 1)]))
    agent.dispatcher.enqueue(piece)
    (lane,) = agent.lanes.values()
    (tag, _) = agent.forker._queue[0]
    made: list[FakeExecutor] = []

    def start(loop: object, pid: int, key: tuple[bytes, bytes], *_: object) -> FakeExecutor:
        made.append(FakeExecutor(pid, key))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rabbitry_workers.node.parts.room.ExecutorProcess", start)
        patch.setattr(agent.output, "watch", lambda _: None)
        agent.pool.on_forked(1, tag, [])
    (executor,) = made
    assert executor.chunks
    executor.chunks.clear()
    agent.pool.end_lease(executor)
    assert agent.pool.idle[lane.key[1:]] == [executor]
    agent.messages.on_executor_gone(executor)
    assert not agent.lanes
    assert not agent.pool.idle
    assert not lane.starting
