"""The janitor: what it clears up, and what it leaves alone; on both engines."""

from __future__ import annotations

import pytest

from rabbitry.exceptions import OwnerDiedError, load_task_error
from rabbitry_broker import records
from rabbitry_broker.ids import FIRST_INDEX, new_client_id
from rabbitry_broker.messages import decode_completion, encode
from rabbitry_broker.queue_names import task_queue
from rabbitry_workers.node.agent import Agent
from rabbitry_workers.node.services import janitor
from tests.conftest import Engine
from tests.workers.conftest import MakeAgent, drive, frame, header, task


def an_object(owner: bytes, number: int = 1) -> bytes:
    return task(owner, number)[0] + FIRST_INDEX


def a_client(agent: Agent, *, alive: bool = True) -> bytes:
    """Register a client; a dead one has left its keys behind."""
    client = new_client_id()
    agent.store.register_client(client, 60.0)
    if not alive:
        die(agent, client)
    return client


def die(agent: Agent, client: bytes) -> None:
    """Let a client's lease end."""
    agent.store.call(b"DEL", agent.node.keys.client(client))
    agent.store.call(b"ZADD", agent.node.keys.clients, 0, client)


def keys_of(engine: Engine, client: bytes) -> list[str]:
    left = engine.keys()
    return [key for key in left if client.hex() in key]


def test_a_dead_clients_keys_go(make_agent: MakeAgent, engine: Engine):
    agent = make_agent()
    client = a_client(agent, alive=False)
    store, keys = agent.store, agent.node.keys
    store.put_records([(an_object(client, number), records.NONE) for number in range(1, 1200)])
    store.call(b"RPUSH", keys.inbox(client), b"unread")
    store.call(b"HSET", keys.starts(client), b"task", b"node")
    store.call(b"HSET", keys.attempts(client), b"task", 1)
    store.park([(task(client, 5)[0], b"frame", "task.CPU=1", 0, [an_object(client, 2000)])])
    agent.janitor.run_once()
    assert keys_of(engine, client) == []
    assert store.call(b"ZSCORE", keys.clients, client) is None


def test_a_living_clients_keys_stay(make_agent: MakeAgent, engine: Engine):
    agent = make_agent()
    client = a_client(agent)
    agent.store.put_records([(an_object(client), records.NONE)])
    agent.store.call(b"ZADD", agent.node.keys.clients, 0, client)  # late, but its sign of life is there
    agent.janitor.run_once()
    assert agent.store.fetch([an_object(client)]) == [records.NONE]


def test_an_object_that_somebody_holds_stays_until_that_one_lets_go(make_agent: MakeAgent, engine: Engine):
    agent = make_agent()
    dead, holder = a_client(agent, alive=False), a_client(agent)
    held = an_object(dead)
    agent.store.put_records([(held, records.NONE)])
    agent.store.lives.borrow(holder, [held])
    agent.janitor.run_once()
    assert agent.store.fetch([held]) == [records.NONE]
    agent.store.lives.give_back(holder, [held])
    assert agent.store.fetch([held]) == [None]


def test_what_a_dead_client_held_is_released(make_agent: MakeAgent, engine: Engine):
    agent = make_agent()
    owner, dead = a_client(agent), a_client(agent, alive=False)
    held = an_object(owner)
    agent.store.put_records([(held, records.NONE)])
    agent.store.lives.borrow(dead, [held])
    kept, _ = agent.store.lives.drop([held])
    assert kept == {held}  # the owner lets go; the dead client still holds it
    agent.janitor.run_once()
    assert agent.store.fetch([held]) == [None]


def test_who_waits_for_an_object_of_the_dead_is_told(make_agent: MakeAgent, engine: Engine):
    agent = make_agent()
    dead, waits = a_client(agent), a_client(agent)
    wanted = an_object(dead)
    agent.store.subscribe(waits, [wanted])
    die(agent, dead)
    agent.janitor.run_once()
    (entry,) = agent.store.call(b"LRANGE", agent.node.keys.inbox(waits), 0, -1)
    object_id, record = decode_completion(agent.node.signer, waits, entry).items
    assert object_id == wanted
    assert isinstance(load_task_error(record[1:]), OwnerDiedError)


def test_a_task_that_waits_for_an_object_of_the_dead_is_released(make_agent: MakeAgent, engine: Engine):
    agent = make_agent()
    dead, owner = a_client(agent), a_client(agent)
    spec = task(owner, 1)
    message = frame(agent, header(owner), spec)
    agent.store.announce_queue("task.CPU=1")
    agent.store.park([(spec[0], message, "task.CPU=1", 0, [an_object(dead)])])
    die(agent, dead)
    agent.janitor.run_once()
    agent.sources.consider("task.CPU=1")
    drive(agent, lambda: agent.lanes.waits("CPU=1"), "the task is published: it runs, and fails with its input")


def test_the_job_of_a_dead_driver_ends(make_agent: MakeAgent, engine: Engine):
    agent = make_agent()
    dead, alive = a_client(agent, alive=False), a_client(agent)
    for job, driver in ((b"dead", dead), (b"live", alive)):
        sealed = agent.node.signer.seal(b"job" + job, encode({"client": driver}))
        agent.store.call(b"SET", agent.node.keys.job(job), sealed)
    agent.janitor.run_once()
    assert agent.store.call(b"EXISTS", agent.node.keys.job(b"dead")) == 0
    assert agent.store.call(b"EXISTS", agent.node.keys.job(b"live")) == 1


def test_a_dead_node_is_forgotten_after_a_while(make_agent: MakeAgent, engine: Engine, monkeypatch: pytest.MonkeyPatch):
    agent, dead = make_agent(), make_agent()
    agent.store.call(b"DEL", agent.node.keys.node(dead.node.id))
    agent.janitor.run_once()
    assert agent.store.call(b"HEXISTS", agent.node.keys.nodes, dead.node.id) == 1
    monkeypatch.setattr(janitor, "DEAD_NODES_KEPT_SECONDS", 0.0)
    agent.janitor.run_once()
    assert agent.store.call(b"HKEYS", agent.node.keys.nodes) == [agent.node.id]
    assert agent.store.call(b"EXISTS", agent.node.keys.nodes + b":died") == 0


def test_one_janitor_works_at_a_time(make_agent: MakeAgent, engine: Engine):
    first, second = make_agent(), make_agent()
    assert first.janitor._locked()
    assert not second.janitor._locked()


def test_it_may_run_again_after_it_was_interrupted(make_agent: MakeAgent, engine: Engine):
    agent = make_agent()
    client = a_client(agent, alive=False)
    agent.store.put_records([(an_object(client, number), records.NONE) for number in range(1, 1200)])
    steps = agent.janitor._steps()
    next(steps)
    next(steps, None)
    steps.close()
    agent.janitor.run_once()
    assert keys_of(engine, client) == []


def test_a_job_goes_whose_driver_was_cleared_away_without_it(make_agent: MakeAgent, engine: Engine):
    agent = make_agent()
    alive, gone, never = a_client(agent), new_client_id(), new_client_id()
    for job, client, is_missed in ((b"live", alive, True), (b"gone", gone, True), (b"idle", never, False)):
        sealed = agent.node.signer.seal(b"job" + job, encode({"client": client, "is_missed": is_missed}))
        agent.store.call(b"SET", agent.node.keys.job(job), sealed)
    a_client(agent, alive=False)
    agent.janitor.run_once()
    found = agent.store.pipeline([(b"EXISTS", agent.node.keys.job(job)) for job in (b"live", b"gone", b"idle")])
    assert found == [1, 0, 1]


def test_cancellations_are_forgotten_when_their_time_is_over(make_agent: MakeAgent):
    agent = make_agent()
    agent.store.announce_cancel(agent.node.keys, [b"new"], b"client", force=False, recursive=False)
    agent.store.call(b"ZADD", agent.node.keys.cancelled, 1, b"old", 2, b"older")
    agent.janitor.run_once()
    assert agent.store.call(b"ZRANGE", agent.node.keys.cancelled, 0, -1) == [b"new"]
    assert agent.store.call(b"TTL", agent.node.keys.cancelled) > 0


def test_nothing_is_noted_of_nodes_that_have_left(make_agent: MakeAgent):
    agent = make_agent()
    notes = (agent.node.keys.nodes + b":died", agent.node.keys.nodes + b":slots")
    for key in notes:
        agent.store.call(b"HSET", key, b"left" * 7, b"1")
    agent.janitor.run_once()
    died, slots = agent.store.pipeline([(b"HKEYS", key) for key in notes])
    assert died == []
    assert slots == [agent.node.id]


def test_a_queue_that_nobody_uses_goes_and_comes_back_with_the_next_message(make_agent: MakeAgent) -> None:
    agent = make_agent()
    agent.watch.run_once()
    queue, keys = task_queue("CPU=1"), agent.node.keys
    head = header(new_client_id(), lifetime="detached")
    agent.publisher.publish(queue, frame(agent, head, task(head.owner, 1)))
    drive(agent, agent.in_hand.has_waiting, "the first task is here")
    for lane in list(agent.lanes.values()):
        for piece in lane.take_all():
            agent.settling.settle(piece.held, len(piece.tasks))
    agent.watch.run_once()
    drive(agent, lambda: agent.store.call(b"HEXISTS", keys.used, queue), "its use is put down")
    agent.store.call(b"HSET", keys.used, queue, b"1")
    agent.janitor.run_once()

    def is_gone() -> bool:
        return queue not in agent.sources.by_queue and not agent.store.call(b"SISMEMBER", keys.queues, queue)

    drive(agent, is_gone, "the queue is deleted")
    assert not agent.store.call(b"HEXISTS", keys.used, queue)
    agent.publisher.publish(queue, frame(agent, head, task(head.owner, 2)))
    drive(agent, lambda: agent.publisher.flush(0.0) and agent.in_hand.has_waiting(), "the next task is here")

    def is_on_record() -> bool:
        agent.watch.look_again()
        agent.watch.run_once()
        return bool(agent.store.call(b"SISMEMBER", keys.queues, queue))

    drive(agent, is_on_record, "it is on record again")
