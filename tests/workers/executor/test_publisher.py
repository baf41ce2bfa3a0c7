"""What an executor has its agent publish, and what it tells of what it had published before."""

from __future__ import annotations

from typing import Any

import pytest

from rabbitry_workers.channel import PUBLISH
from rabbitry_workers.executor import publisher as module
from rabbitry_workers.executor.publisher import AgentPublisher


class Channel:
    """Keeps what the agent would hear."""

    def __init__(self) -> None:
        self.sent: list[list[Any]] = []

    def send(self, message: list[Any]) -> None:
        self.sent.append(message)


def test_the_agent_hears_with_the_next_message_which_ones_matter_no_more() -> None:
    channel, running = Channel(), {1, 2}
    publisher = AgentPublisher(channel)  # type: ignore[arg-type]
    publisher.publish("q", b"1", needed=lambda: 1 in running)
    publisher.publish("q", b"2", priority=3, needed=lambda: 2 in running)
    running.discard(1)
    publisher.publish("q", b"3")
    running.discard(2)
    publisher.publish("q", b"4")
    publisher.publish("q", b"5")
    assert channel.sent == [
        [PUBLISH, "q", 0, b"1", 1, []],
        [PUBLISH, "q", 3, b"2", 2, []],
        [PUBLISH, "q", 0, b"3", 0, [1]],
        [PUBLISH, "q", 0, b"4", 0, [2]],
        [PUBLISH, "q", 0, b"5", 0, []],
    ]


def test_only_so_many_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEEDED_MOST", 1)
    channel, running = Channel(), [True]
    publisher = AgentPublisher(channel)  # type: ignore[arg-type]
    for _ in range(2):
        publisher.publish("q", b"", needed=lambda: bool(running))
    running.clear()
    publisher.publish("q", b"", needed=lambda: True)
    assert [message[4:] for message in channel.sent] == [[1, []], [0, []], [2, [1]]]
