"""What an agent keeps for a job goes with the last executor of that job."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from tests.workers.conftest import MakeAgent, header, task
from warren_broker.ids import new_client_id
from warren_broker.messages import encode_header
from warren_workers.node.executors import ExecutorProcess, State
from warren_workers.node.intake import Held, Piece

pytestmark = pytest.mark.parametrize("engine", ["rabbitmq"], indirect=True)


def test_nothing_is_kept_of_a_job_without_work_or_executors(make_agent: MakeAgent):
    agent = make_agent()
    head = header(new_client_id())
    held = Held(None, "task.CPU=1")
    held.outstanding = 1
    piece = Piece(held, encode_header(head), head, deque([task(head.owner, 1)]))
    agent.enqueue(piece)
    (lane,) = agent.lanes.values()
    (tag, _) = agent.forker._queue[0]
    made: list[ExecutorProcess] = []

    class Started(SimpleNamespace):
        send = kill = close = lambda self, *_: None

        def move(self, state: State) -> None:
            self.state = state

    def start(loop: object, pid: int, key: tuple[bytes, bytes], *_: object) -> Any:
        progress = SimpleNamespace(started=[0])
        made.append(Started(  # type: ignore[arg-type]
            pid=pid, key=key, chunks=deque(), leaving="", revoked=False, state=State.IDLE, next_sequence=0, grant=None,
            lane=None, actor=b"", dropped={}, cancelled=set(), progress=progress, outputs=(),
        ))  # fmt: skip
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warren_workers.node.agent.ExecutorProcess", start)
        patch.setattr(agent.output, "watch", lambda _: None)
        agent._on_forked(1, tag, [])
    (executor,) = made
    assert executor.chunks
    executor.chunks.clear()
    agent.end_lease(executor)
    assert agent.idle[lane.key[1:]] == [executor]
    agent.on_executor_gone(executor)
    assert not agent.lanes
    assert not agent.idle
    assert not agent.starting
