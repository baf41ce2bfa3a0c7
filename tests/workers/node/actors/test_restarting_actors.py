"""Calls of an actor whose process has died, as its node sees them: which are run again, which wait, which fail."""

from __future__ import annotations

from collections import deque

import pytest

from rabbitry.actor import Facts
from rabbitry.core.submit.plans import END_METHOD
from rabbitry.exceptions import ActorUnavailableError, TaskCancelledError, load_task_error
from rabbitry_broker import records
from rabbitry_broker.ids import FIRST_INDEX, new_actor_id, new_client_id
from rabbitry_broker.messages import (
    KIND_ACTOR_CALL,
    KIND_ACTOR_CREATION,
    ActorSpec,
    Task,
    decode_header,
    encode,
    encode_header,
)
from rabbitry_broker.store.actors import DEAD, RESTARTING
from rabbitry_workers.node.actors.hosted import Hosted
from rabbitry_workers.node.agent import Agent
from rabbitry_workers.node.model.work import Chunk, Held, Piece
from tests.workers.conftest import MakeAgent, drive, frame, header, task
from tests.workers.node.fakes import FakeExecutor

OWNER = new_client_id()


@pytest.fixture
def agent(make_agent: MakeAgent) -> Agent:
    made = make_agent()
    made.store.register_client(OWNER, 60.0)
    return made


class Restarting:
    """An actor with calls in the hands of its process, of which the first two have begun."""

    def __init__(self, agent: Agent, *, alive: bool = True, method: str = "method", retries: int = 0) -> None:
        self.agent = agent
        self.id = new_actor_id(b"jjjj")
        facts = encode(Facts("A", {}, retries, -1))
        spec = ActorSpec("CPU=1", 1, {}, False, "", "", "A", facts)
        creation = header(OWNER, kind=KIND_ACTOR_CREATION, actor=self.id, extra=encode(spec))
        message = frame(agent, creation, task(OWNER, 1))
        fields = {"owner": OWNER, "detached": b"0", "max_restarts": 1, "frame": message, "queue": "task.CPU=1"}
        agent.records.create(self.id, name=b"", fields=fields)
        _, epoch, *_ = agent.records.start(self.id, agent.node.id)
        self.executor = FakeExecutor()
        self.executor.actor, self.executor.next_sequence = self.id, 3
        self.executor.progress.started[0] = 2
        hosted = Hosted(self.executor, decode_header(encode_header(creation)), task(OWNER, 1), Held(None), epoch, OWNER)
        hosted.alive = alive
        agent.table.hosted[self.id] = hosted
        self.header = header(OWNER, kind=KIND_ACTOR_CALL, actor=self.id, max_retries=retries, method=method)
        self.held = Held(None)

    def crash(self, *calls: Task) -> None:
        self.held.outstanding += len(calls)
        piece = Piece(self.held, encode_header(self.header), self.header, deque())
        self.executor.chunks.append(Chunk(piece, 0, list(calls)))
        self.agent.ends.gone(self.executor)

    def deliver(self, call: Task) -> None:
        self.agent.calls.deliver(self.held, encode_header(self.header), self.header, [call])

    def waiting(self) -> list[bytes]:
        return [call[0] for _, _, _, call in self.agent.table.kept()]

    def state(self) -> str:
        return self.agent.records.states([self.id])[0][0]

    def answer(self, call: Task) -> BaseException | None:
        (record,) = self.agent.store.fetch([call[0] + FIRST_INDEX])
        return None if record is None or record[:1] != records.ERROR else load_task_error(record[1:])


def test_calls_that_were_answered_are_not_run_again(agent: Agent) -> None:
    actor = Restarting(agent, retries=-1)
    answered, begun, waits = task(OWNER, 2), task(OWNER, 3), task(OWNER, 4)
    agent.store.commit(OWNER, [answered[0] + FIRST_INDEX, b"N"], b"", require_owner=False)
    actor.crash(answered, begun, waits)
    assert actor.waiting() == [begun[0], waits[0]]
    assert actor.held.outstanding == 2


@pytest.mark.parametrize("retries", [0, 1])
def test_what_may_not_run_again_fails(agent: Agent, retries: int) -> None:
    actor = Restarting(agent, retries=retries)
    begun, sent, late = task(OWNER, 2), task(OWNER, 4), task(OWNER, 5)
    actor.crash(begun, sent)
    assert actor.state() == RESTARTING
    actor.deliver(late)
    if retries:
        assert actor.waiting() == [begun[0], sent[0], late[0]]
    else:
        assert actor.waiting() == []
        assert all(isinstance(actor.answer(each), ActorUnavailableError) for each in (begun, sent, late))
        assert actor.held.outstanding == 0


def test_calls_wait_while_the_first_constructor_is_not_through(agent: Agent) -> None:
    actor = Restarting(agent, alive=False)
    sent = task(OWNER, 2)
    actor.crash(sent)
    assert actor.waiting() == [sent[0]]


def test_a_call_that_waits_is_cancelled(agent: Agent) -> None:
    actor = Restarting(agent, retries=-1)
    first, second = task(OWNER, 2), task(OWNER, 3)
    actor.crash(first, second)
    agent.cancelling.cancel([first[0]], OWNER, force=False)
    drive(agent, lambda: actor.waiting() == [second[0]], "it is taken out")
    drive(agent, lambda: not agent.failing, "it has failed")
    assert isinstance(actor.answer(first), TaskCancelledError)
    assert actor.held.outstanding == 1
    assert not agent.cancelling.known


@pytest.mark.parametrize("before", [True, False])
def test_an_actor_without_handles_and_calls_is_not_restarted(agent: Agent, before: bool) -> None:
    actor = Restarting(agent, method=END_METHOD)
    if before:
        actor.crash(task(OWNER, 2))
    else:
        actor.crash()
        assert actor.state() == RESTARTING
        actor.deliver(task(OWNER, 2))
    assert actor.state() == DEAD
    assert actor.held.outstanding == 0
