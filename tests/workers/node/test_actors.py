"""Actors of a node: what messages that come twice do to them."""

from __future__ import annotations

from collections import deque

import pytest

from tests.workers.conftest import MakeAgent, drive, frame, header, task
from warren_broker.ids import new_actor_id, new_client_id
from warren_broker.messages import KIND_ACTOR_CALL, KIND_ACTOR_CREATION, encode_header
from warren_broker.queues import names
from warren_workers.node.actors import PREFETCH
from warren_workers.node.agent import Agent
from warren_workers.node.intake import Held, Piece

OWNER = new_client_id()


@pytest.mark.parametrize("place", ["hosted", "_tombstones"])
def test_an_actor_goes_on_when_a_second_copy_of_its_creation_is_handed_back(make_agent: MakeAgent, place: str):
    agent, actor = make_agent(), new_actor_id(b"jjjj")
    queue = names.actor_queue(actor)
    agent.consumer.subscribe(queue, prefetch=PREFETCH, exclusive=True)
    getattr(agent.actors, place)[actor] = None
    creation = header(OWNER, kind=KIND_ACTOR_CREATION, actor=actor)
    copy = Piece(Held(None, "task.CPU=1"), encode_header(creation), creation, deque([task(OWNER, 1)]))
    copy.held.outstanding = 1
    agent.handback.give_back(copy)
    assert calls_arrive(agent, actor)


def calls_arrive(agent: Agent, actor: bytes) -> bool:
    """Call an actor, and wait until the node has the call."""
    arrived: list[bytes] = []
    agent.actors.deliver = lambda held, header_bytes, head, tasks: arrived.append(head.actor)  # type: ignore[method-assign]
    call = header(OWNER, kind=KIND_ACTOR_CALL, actor=actor)
    agent.publisher.publish(names.actor_queue(actor), frame(agent, call, task(OWNER, 2)))
    drive(agent, lambda: arrived, "the call is here")
    return arrived == [actor]
