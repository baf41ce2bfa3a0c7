"""Actors of a node: messages about them that come twice, and those that end before they have a process."""

from __future__ import annotations

from collections import deque

import pytest

from rabbitry.core.failures import death_record
from rabbitry.exceptions import ActorDiedError, load_task_error
from rabbitry_broker import queue_names as names
from rabbitry_broker import records
from rabbitry_broker.ids import FIRST_INDEX, new_actor_id, new_client_id
from rabbitry_broker.messages import KIND_ACTOR_CALL, KIND_ACTOR_CREATION, encode_header
from rabbitry_broker.store.actors import DEAD, PENDING
from rabbitry_workers.node.actors.hosted import PREFETCH
from rabbitry_workers.node.agent import Agent
from rabbitry_workers.node.model.work import Held, Piece
from tests.workers.conftest import MakeAgent, drive, frame, header, task

OWNER = new_client_id()


@pytest.mark.parametrize("lives", [True, False])
def test_an_actor_goes_on_when_a_second_copy_of_its_creation_is_handed_back(make_agent: MakeAgent, lives: bool):
    agent, actor = make_agent(), new_actor_id(b"jjjj")
    queue = names.actor_queue(actor)
    agent.consumer.subscribe(queue, prefetch=PREFETCH, exclusive=True)
    place = agent.table.hosted if lives else agent.burials.graves
    place[actor] = None  # type: ignore[index]
    creation = header(OWNER, kind=KIND_ACTOR_CREATION, actor=actor)
    copy = Piece(Held(None, "task.CPU=1"), encode_header(creation), creation, deque([task(OWNER, 1)]))
    copy.held.outstanding = 1
    agent.handback.give_back(copy)
    assert calls_arrive(agent, actor)


def calls_arrive(agent: Agent, actor: bytes) -> bool:
    """Call an actor, and wait until the node has the call."""
    arrived: list[bytes] = []
    agent.calls.deliver = lambda held, header_bytes, head, tasks: arrived.append(head.actor)  # type: ignore[method-assign]
    call = header(OWNER, kind=KIND_ACTOR_CALL, actor=actor)
    agent.publisher.publish(names.actor_queue(actor), frame(agent, call, task(OWNER, 2)))
    drive(agent, lambda: arrived, "the call is here")
    return arrived == [actor]


def test_a_node_that_is_killed_leaves_its_burials_to_another(make_agent: MakeAgent):
    killed, agent = make_agent(), make_agent()
    actor = unborn(agent, OWNER)
    cause = death_record("", actor, "Nobody could place it.")
    killed.ends.refuse(actor, cause)
    agent.recovery.run_once()
    assert agent.records.burials() == [actor]
    assert actor not in agent.burials.graves
    killed.consumer.close()
    killed.store.call(b"DEL", killed.node.keys.node(killed.node.id), killed.node.keys.janitor + b":actors")
    agent.heartbeat.run_once()  # which brings that it is nobody's turn
    agent.recovery.run_once()
    assert_buried(agent, actor, "Nobody could place it")
    agent.burials.close()
    assert agent.records.burials() == []


def unborn(agent: Agent, owner: bytes) -> bytes:
    """Register an actor of which nothing else is anywhere."""
    actor = new_actor_id(b"jjjj")
    agent.records.create(actor, name=b"", fields={"owner": owner, "detached": b"0"})
    return actor


def assert_buried(agent: Agent, actor: bytes, reason: str) -> None:
    """Calls fail with the reason, the queue goes with the node, nothing but the record stays."""
    ((state, _),) = agent.records.states([actor])
    assert state == DEAD
    assert agent.records.ids() == []
    call = header(OWNER, kind=KIND_ACTOR_CALL, actor=actor)
    agent.store.register_client(OWNER, 60.0)
    agent.publisher.publish(names.actor_queue(actor), frame(agent, call, task(OWNER, 3)))
    drive(agent, lambda: agent.store.fetch([task(OWNER, 3)[0] + FIRST_INDEX]) != [None], "the call has failed")
    (record,) = agent.store.fetch([task(OWNER, 3)[0] + FIRST_INDEX])
    error = load_task_error((record or b"")[1:])
    assert isinstance(error, ActorDiedError)
    assert reason in str(error)
    assert actor in agent.burials.graves


def test_an_actor_that_was_killed_before_it_had_a_process_is_buried(make_agent: MakeAgent):
    agent = make_agent()
    agent.store.register_client(OWNER, 60.0)
    actor = unborn(agent, OWNER)
    cause = death_record("", actor, "It was killed early.")
    assert agent.records.kill(actor, no_restart=True, cause=cause) == PENDING
    agent.recovery.run_once()
    assert_buried(agent, actor, "killed early")


def test_an_actor_without_a_process_is_buried_when_its_owner_is_gone(make_agent: MakeAgent):
    agent = make_agent()
    agent.store.register_client(OWNER, 60.0)
    kept, actor = unborn(agent, OWNER), unborn(agent, new_client_id())
    agent.recovery.run_once()
    assert agent.records.ids() == [kept]
    agent.records.forget(kept)
    assert_buried(agent, actor, "its owner has died")


def test_who_created_an_actor_is_told_although_its_first_node_is_gone(make_agent: MakeAgent):
    first, agent = make_agent(), make_agent()
    agent.store.register_client(OWNER, 60.0)
    actor = unborn(agent, OWNER)
    agent.records.start(actor, first.node.id)
    creation = header(OWNER, kind=KIND_ACTOR_CREATION, actor=actor)
    copy = Piece(Held(None, "task.CPU=1"), encode_header(creation), creation, deque())
    copy.held.outstanding = 1
    assert not agent.hosting.host(None, copy, task(OWNER, 1))  # type: ignore[arg-type]
    assert agent.store.fetch([task(OWNER, 1)[0] + FIRST_INDEX]) == [records.ACTOR + actor]
    assert copy.held.outstanding == 0
    agent.records.forget(actor)
