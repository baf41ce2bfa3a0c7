"""The channel of an executor's process: what is sent arrives in order, what it said last is heard before its end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from rabbitry_broker.loop import Loop
from rabbitry_workers.channel import EXIT, Splitter, pack_message
from rabbitry_workers.executor import progress
from rabbitry_workers.node.dispatch import executors
from rabbitry_workers.node.dispatch.executors import ExecutorProcess
from rabbitry_workers.node.model.lanes import State


class Channel:
    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.gone = 0
        self.loop = Loop()
        ours, self.theirs = socket.socketpair()
        self.process = ExecutorProcess(
            self.loop, 2**30, (b"jjjj", b""), [ours.detach(), -1, -1, progress.create()], self
        )

    def on_executor_message(self, executor: Any, message: list[Any]) -> None:
        self.heard.append(message)
        if message[0] == "trouble":
            raise ValueError

    def on_executor_gone(self, executor: Any) -> None:
        self.gone += 1
        executor.close()


@pytest.fixture
def channel() -> Iterator[Channel]:
    made = Channel()
    yield made
    made.theirs.close()
    if made.process.state is not State.DEAD:
        made.process.close()
    made.loop.close()


def test_what_does_not_fit_into_the_socket_follows(channel: Channel):
    splitter, received = Splitter(), []
    for number in range(3):
        channel.process.send([number, b"x" * 500_000])
    channel.theirs.setblocking(False)
    while len(received) < 3:
        channel.loop.run_once(0.01)
        try:
            received += splitter.feed(channel.theirs.recv(1 << 20))
        except BlockingIOError:
            continue
    assert [message[0] for message in received] == [0, 1, 2]


def test_messages_behind_one_that_is_trouble_are_heard_and_then_the_end(channel: Channel):
    channel.theirs.sendall(pack_message(["trouble"]) + pack_message(["next"]))
    channel.loop.run_once(0.1)
    assert channel.heard == [["trouble"], ["next"]]
    channel.theirs.close()
    channel.loop.run_once(0.1)
    assert channel.gone == 1
    channel.process.send(["nobody hears it"])


def test_what_a_process_said_last_is_heard_though_a_child_holds_its_channel(channel: Channel):
    channel.theirs.sendall(pack_message(["last"]))
    channel.process.on_exit()
    channel.process.on_exit()
    assert channel.heard == [["last"]]
    assert channel.gone == 1


def test_a_process_that_does_not_end_is_killed(channel: Channel, monkeypatch: pytest.MonkeyPatch):
    signals: list[int] = []
    monkeypatch.setattr(executors, "EXIT_SECONDS", 0.0)
    monkeypatch.setattr(executors.children, "descendants", lambda pid: [])
    monkeypatch.setattr(executors.os, "kill", lambda pid, number: signals.append(number))
    channel.process.end()
    channel.loop.run_once(0.01)
    channel.loop.run_once(0.01)
    assert signals == [9]
    assert Splitter().feed(channel.theirs.recv(4096)) == [[EXIT]]


def test_a_signal_to_a_process_that_is_gone_is_nobodys_trouble(channel: Channel):
    channel.process.kill(0)
    with pytest.raises(ProcessLookupError):
        os.kill(channel.process.pid, 0)


def test_a_page_is_shared_with_the_process(channel: Channel):
    channel.process.revoke()
    assert list(channel.process.progress.revocations)[:2] == [1, 0]
