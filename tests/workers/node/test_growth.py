"""What lives as long as an agent keeps nothing of work, jobs, classes, clients and nodes that are gone."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from rabbitry_broker.ids import new_actor_id, new_client_id, new_node_id
from rabbitry_broker.messages import KIND_ACTOR_CALL, encode, encode_header
from rabbitry_broker.queue_names import node_queue
from rabbitry_broker.runtime_environments import Record, digest_code, record_digest
from rabbitry_broker.store.functions import Kind
from rabbitry_workers.node.agent import Agent
from rabbitry_workers.node.dispatch import environments
from rabbitry_workers.node.intake import sources
from rabbitry_workers.node.model.work import Held, Piece
from rabbitry_workers.node.outcome.publishing import announce_queue
from rabbitry_workers.node.services import janitor
from tests.workers.conftest import MakeAgent, drive, frame, header, task

# What may grow up to a bound, which its owner keeps, or stands for a server or for what is under way on it. Channels
# of RabbitMQ are closed a while after the last subscription.
BOUNDED = (
    "RunTimes.means",
    "Jobs.",
    "Cancelling.known",
    "Owners.gone",
    "Owners._met",
    "Tags._tags",
    "Loop.",
    "Connection.",
)
BOUNDED += ("Recorder.",)  # sent once a second, and limited by its bytes
BOUNDED += ("KnownQueues", "RabbitMQPublisher.", "Link.", "Keys.", "RabbitMQConsumer._subscriptions", "AMQPConnection.")


def sizes(agent: Agent) -> dict[str, int]:
    """Return how much each collection holds that an agent, or a part of it, has as an attribute."""
    found: dict[str, int] = {}
    seen: set[int] = set()
    left: list[Any] = [agent]
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        for name, value in vars(each).items():
            if isinstance(value, (dict, set, list, deque)):
                place = f"{type(each).__name__}.{name}"
                if not place.startswith(BOUNDED) and type(value).__name__ not in BOUNDED:
                    found[place] = found.get(place, 0) + len(value)
            elif type(value).__module__.startswith("rabbitry") and hasattr(value, "__dict__"):
                left.append(value)
    return found


def live(agent: Agent, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do a bit of everything, in the name of a client and job that nobody has heard of, and end it."""
    owner, job, actor, node = new_client_id(), number.to_bytes(4, "big"), new_actor_id(b"jjjj"), new_node_id()
    store = agent.store
    store.register_client(owner, 60.0)
    store.call(b"SET", agent.node.keys.job(job), agent.node.signer.seal(b"job" + job, encode({"client": owner})))
    # Work of a class of its own that is cancelled, and some that waits and is handed back.
    head = header(owner, job=job, resources=f"CPU=0.{number + 1:04d}", env=b"%d" % number)
    for at in (1, 2):
        held = Held(None, "task.CPU=1")
        held.outstanding = 1
        agent.dispatcher.enqueue(Piece(held, encode_header(head), head, deque([task(owner, at)])))
    agent.cancelling.cancel([task(owner, 1)[0]], owner, force=False)
    agent.cancelling.cancel([task(owner, 3)[0]], owner, force=False)
    agent.cancelling._look()  # its turn comes in a tenth of the loop's time, and this loop does not run
    agent.nesting.holds_back(next(iter(agent.lanes.values())))
    agent.handback.give_back_all()
    forget_starting(agent)
    # A dead actor with calls.
    agent.burials.graves[actor] = (b"E", 0.0)
    call = header(owner, kind=KIND_ACTOR_CALL, actor=actor)
    held = Held(None, "task.CPU=1")
    agent.calls.deliver(held, encode_header(call), call, [task(owner, at) for at in range(4, 8)])
    agent.burials.run_once()
    # A node that is gone, with a queue that is looked after for a while.
    queue = node_queue(node)
    announce_queue(agent.node, queue)
    agent.watch.run_once()
    store.call(b"HSET", agent.node.keys.nodes, node, b"")
    agent.janitor._clear_nodes()
    store.call(b"HDEL", agent.node.keys.nodes, node)  # it came back, and said goodbye
    with monkeypatch.context() as patch:
        patch.setattr(sources, "ORPHAN_SECONDS", -1.0)
        agent.watch.run_once()
    with monkeypatch.context() as patch:
        patch.setattr(janitor, "QUEUES_KEPT_SECONDS", -1.0)
        agent.janitor.run_once()
    # Environments: one that is ready and used by nobody, one that cannot be.
    record = Record({"working_dir": "local:///", "env_vars": {"NUMBER": str(number)}}).pack()
    store.functions.put(record_digest(record), record, owner, kind=Kind.ENVIRONMENT)
    for digest in (record_digest(record), b"%016d" % number):
        agent.environments.set_up(job, digest_code(digest))
    with monkeypatch.context() as patch:
        for constant in ("IDLE_SECONDS", "REMEMBERED_SECONDS"):
            patch.setattr(environments, constant, -1.0)
        agent.environments.run_once()
    # Nonsense.
    agent.controls.act(b"nonsense")
    agent.publisher.publish("task.CPU=1", frame(agent, header(owner, priority=99), task(owner, 9)))
    agent.pool.end_job(job)
    agent.look_after_work()
    drive(agent, lambda: not (agent.handback.unconfirmed or agent.failing), "all of it is settled")
    for piece in [piece for lane in agent.lanes.values() for piece in lane.take_all()]:
        agent.settling.settle(piece.held, len(piece.tasks))  # what was handed back, and came again
    forget_starting(agent)
    agent.lanes.forget_empty()
    agent.handback.run_once()
    agent.heartbeat.run_once()
    agent.watch.look_again()  # as now and then in any case
    agent.watch.run_once()
    agent.shadows.settle_ended()


def forget_starting(agent: Agent) -> None:
    """The template of these tests never answers: nobody starts."""
    for lane in agent.lanes.values():
        lane.starting = 0
    agent.forker._queue.clear()


@pytest.mark.parametrize("engine", ["embedded", "rabbitmq"], indirect=True)
def test_rounds_of_everything_leave_nothing(make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch):
    agent = make_agent()
    live(agent, 1, monkeypatch)
    before = sizes(agent)
    for number in range(2, 12):
        live(agent, number, monkeypatch)
    grown = {name: (before.get(name, 0), size) for name, size in sizes(agent).items() if size > before.get(name, 0) + 3}
    assert not grown
    assert agent.store.call(b"HLEN", agent.node.keys.nodes + b":died") <= 1
