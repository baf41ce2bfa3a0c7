"""What an executor hands to its agent, and what it sends to queues by itself."""

from __future__ import annotations

from typing import Any

from rabbitry_broker import queue_names as names
from rabbitry_workers.channel import PUBLISH
from rabbitry_workers.executor.publisher import AgentPublisher, CallsByAgent


class Queues:
    """Another publisher."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def publish(self, queue: str, body: bytes, *, priority: int = 0, on_confirm: Any = None) -> None:
        self.calls.append((queue, body, priority, on_confirm))

    def flush(self, timeout: float | None = None) -> bool:
        self.calls.append(("flush", timeout))
        return False

    def close(self) -> None:
        self.calls.append("close")


class Channel:
    """To an agent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)


def test_calls_go_to_the_agent_and_tasks_to_their_queues() -> None:
    channel, queues = Channel(), Queues()
    publisher = CallsByAgent(AgentPublisher(channel), queues)  # type: ignore[arg-type]
    confirmed: list[bool] = []
    actor, tasks = names.actor_queue(b"a" * 16), names.task_queue("CPU=1")
    publisher.publish(actor, b"call", on_confirm=lambda: confirmed.append(True))
    publisher.publish(tasks, b"task", priority=3)
    publisher.publish(names.node_queue(b"n" * 16), b"there")
    assert channel.sent == [[PUBLISH, actor, 0, b"call"]]
    assert confirmed == [True], "the agent lives as long as this process"
    assert queues.calls == [(tasks, b"task", 3, None), (names.node_queue(b"n" * 16), b"there", 0, None)]
    queues.calls.clear()
    assert not publisher.flush(0.5)
    publisher.close()
    assert queues.calls == [("flush", 0.5), "close"]
