"""Agents without executors: their parts are driven by hand, on real servers."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from rabbitry_broker.messages import Task, TaskHeader, encode_frame, encode_header
from rabbitry_workers.node.agent import Agent
from rabbitry_workers.node.model.config import NodeConfig
from tests.conftest import Engine

MakeAgent = Callable[..., Agent]


@pytest.fixture
def make_agent(engine: Engine) -> Iterator[MakeAgent]:
    """Return a function that makes an agent, whose template never answers: what it admits waits for an executor."""
    agents: list[tuple[Agent, socket.socket]] = []

    def make(**options: object) -> Agent:
        ours, theirs = socket.socketpair()
        settings = {"totals": {"CPU": 1.0}, "lease": 30.0, "session": "", **options}
        agent = Agent(NodeConfig(endpoint=engine.endpoint, **settings), (0, ours))  # type: ignore[arg-type]
        agents.append((agent, theirs))
        agent.watch.start()
        agent.heartbeat.run_once()
        return agent

    yield make
    for agent, theirs in agents:
        with suppress(OSError):
            agent.consumer.close()
            agent.publisher.close()
            agent.store.close()
            theirs.close()


def drive(agent: Agent, condition: Callable[[], object], what: str, timeout: float = 10.0) -> None:
    """Run the agent's loop until a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"gave up waiting until {what}"
        agent.loop.run_once(0.02)


def header(owner: bytes, **fields: object) -> TaskHeader:
    """Return the header of tasks that need one CPU."""
    settings = {"function": b"f" * 16, "name": "f", "owner": owner, "job": b"jjjj", "resources": "CPU=1", **fields}
    return TaskHeader(**settings)  # type: ignore[arg-type]


def task(owner: bytes, number: int) -> Task:
    """Return a task without arguments."""
    return (owner + number.to_bytes(8, "big") + b"jjjj", b"", 0, [], {}, 0)


def frame(agent: Agent, head: TaskHeader, *tasks: Task) -> bytes:
    """Return the message that holds tasks."""
    return encode_frame(agent.node.signer, encode_header(head), list(tasks))
