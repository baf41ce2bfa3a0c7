"""An agent over fakes: all parts of a node and how they are wired, without a server or a process."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.messages import encode_frame, encode_header
from rabbitry_broker.queues.protocol import Delivery
from rabbitry_broker.store.keys import Keys
from rabbitry_workers.node import agent as agents
from rabbitry_workers.node.agent import Agent
from rabbitry_workers.node.model.config import NodeConfig
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
)

ENDPOINT = Endpoint("redis://nowhere", "amqp://nowhere", (b"s" * 32,), "test:")


class House:
    """An agent, and what stands around it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cpus: float = 1.0) -> None:
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
        self.agent = Agent(
            NodeConfig(endpoint=ENDPOINT, totals={"CPU": cpus}, name="n", host=b"h" * 16), (0, self.ours)
        )
        self.store.node = self.agent.node
        self.agent.output.watch = lambda executor: None  # type: ignore[method-assign]
        self.agent.owners._met[OWNER] = None

    def adopt(self, loop: Any, pid: int, key: Any, fds: Any, owner: Any) -> FakeExecutor:
        """The node makes an executor of a process."""
        executor = FakeExecutor(pid, key)
        self.executors.append(executor)
        return executor

    def fork(self) -> FakeExecutor:
        """The template has forked what it was asked for."""
        tag, _ = self.agent.forker._queue.popleft()
        self.agent.pool.on_forked(len(self.executors) + 1, tag, [])
        return self.executors[-1]

    def comes(self, *numbers: int, queue: str = QUEUE, **fields: Any) -> Delivery:
        """A message with these tasks is delivered."""
        frame = encode_frame(
            self.agent.node.signer, encode_header(header(OWNER, **fields)), [task(OWNER, n) for n in numbers]
        )
        message = delivery(frame, queue=queue)
        self.deliver(message)
        return message

    def says(self, executor: FakeExecutor, *message: Any) -> None:
        """An executor has sent a message."""
        self.agent.messages.on_executor_message(executor, list(message))

    def close(self) -> None:
        """Close what is real: the socket pair to a template that is none."""
        self.ours.close()
        self.theirs.close()
