"""Custody of long work: RabbitMQ forgets it, the cluster does not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from rabbitry.exceptions import ActorDiedError, NodeDiedError, load_task_error
from rabbitry_broker import records
from rabbitry_broker.errors import ConnectionLost, RabbitryBrokerError
from rabbitry_broker.ids import FIRST_INDEX, new_actor_id, new_client_id
from rabbitry_broker.messages import KIND_ACTOR_CALL, decode_frames
from rabbitry_workers.node.agent import Agent
from rabbitry_workers.node.outcome import custody
from tests.conftest import Engine
from tests.workers.conftest import MakeAgent, drive, frame, header, task

pytestmark = pytest.mark.parametrize("engine", ["rabbitmq"], indirect=True)

QUEUE = "task.CPU=1"
OWNER = new_client_id()


def waiting(agent: Agent) -> dict[bytes, int]:
    """Return the tasks that wait on a node, with their attempts."""
    return {each[0]: each[2] for lane in agent.lanes.values() for piece in lane.all_pieces() for each in piece.tasks}


def entries(agent: Agent) -> int:
    return int(agent.store.call(b"HLEN", agent.node.keys.custody(agent.node.id)))


def take(agent: Agent, *messages: bytes) -> None:
    """Give a node messages, and have it take them into custody."""
    agent.custody.after = 0.0
    agent.store.register_client(OWNER, 60.0)
    agent.sources.consider(QUEUE)
    for message in messages:
        agent.publisher.publish(QUEUE, message)
    drive(agent, lambda: len(waiting(agent)) >= len(messages), "the messages are here")
    agent.custody.run_once()
    agent.loop.run_once(0.0)
    assert entries(agent) == len(messages)


def die(agent: Agent) -> None:
    """End a node as a crash does."""
    agent.consumer.close()
    agent.store.call(b"DEL", agent.node.keys.node(agent.node.id))


def test_what_is_in_custody_is_acknowledged(make_agent: MakeAgent, engine: Engine):
    first, second = make_agent(), make_agent()
    take(first, frame(first, header(OWNER), task(OWNER, 1)))
    die(first)
    second.sources.consider(QUEUE)
    second.publisher.publish(QUEUE, frame(second, header(OWNER), task(OWNER, 2)))
    drive(second, lambda: waiting(second), "the second message is here")
    assert set(waiting(second)) == {task(OWNER, 2)[0]}


def test_a_dead_nodes_custody_goes_back_once(make_agent: MakeAgent):
    first, second, third = make_agent(), make_agent(), make_agent()
    take(
        first, frame(first, header(OWNER), task(OWNER, 1), task(OWNER, 2)), frame(first, header(OWNER), task(OWNER, 3))
    )
    die(first)
    assert second.custody.adopt(first.node.id) == 2
    assert third.custody.adopt(first.node.id) == 0
    drive(second, lambda: not second.custody._adopted, "the adopter has put them back")
    third.sources.consider(QUEUE)
    drive(third, lambda: len(waiting(third)) == 3, "all tasks are back")
    assert set(waiting(third).values()) == {1}  # an attempt is counted
    drive(second, lambda: entries(second) == 0, "the adopted entries are gone")


def test_the_adopters_death_loses_nothing(make_agent: MakeAgent):
    first, second, third = make_agent(), make_agent(), make_agent()
    take(first, frame(first, header(OWNER), task(OWNER, 1)))
    die(first)
    second.store.script(
        "custody_adopt", second.node.keys.custody(first.node.id), second.node.keys.custody(second.node.id)
    )  # and not a step further
    die(second)
    assert third.custody.adopt(second.node.id) == 1
    third.sources.consider(QUEUE)
    drive(third, lambda: waiting(third), "the task is back")


def test_a_task_whose_result_stands_does_not_come_back(make_agent: MakeAgent):
    first, second = make_agent(), make_agent()
    done, open_ = task(OWNER, 1), task(OWNER, 2)
    take(first, frame(first, header(OWNER), done, open_))
    first.store.commit(OWNER, [done[0] + FIRST_INDEX, records.NONE], b"", require_owner=True)
    die(first)
    second.custody.adopt(first.node.id)
    second.sources.consider(QUEUE)
    drive(second, lambda: waiting(second), "the open task is back")
    assert set(waiting(second)) == {open_[0]}


def test_a_task_without_retries_left_fails(make_agent: MakeAgent):
    head = header(OWNER, max_retries=1)
    first, second, third = make_agent(), make_agent(), make_agent()
    take(first, frame(first, head, task(OWNER, 1)))
    die(first)
    second.custody.adopt(first.node.id)
    third.custody.after = 0.0
    third.sources.consider(QUEUE)
    third.publisher.publish(QUEUE, frame(third, head, task(OWNER, 2)))
    drive(third, lambda: len(waiting(third)) == 2, "the first task is back, and another one came")
    third.custody.run_once()
    die(third)
    second.custody.adopt(third.node.id)
    lost, alive = second.store.fetch([task(OWNER, number)[0] + FIRST_INDEX for number in (1, 2)])
    assert lost is not None
    assert isinstance(load_task_error(lost[1:]), NodeDiedError)
    assert alive is None


def test_an_actors_call_that_may_have_run_fails(make_agent: MakeAgent):
    head = header(OWNER, kind=KIND_ACTOR_CALL, actor=new_actor_id(b"jjjj"), max_retries=0)
    first, second = make_agent(), make_agent()
    take(first, frame(first, header(OWNER), task(OWNER, 1)))
    (field,) = first.store.call(b"HKEYS", first.node.keys.custody(first.node.id))
    first.store.call(b"DEL", first.node.keys.custody(first.node.id))
    from rabbitry_broker.messages import encode

    call = encode(["actor.00", 0, frame(first, head, task(OWNER, 2))])
    sealed = first.node.signer.seal(b"custody" + field, call)
    first.store.call(b"HSET", first.node.keys.custody(first.node.id), field, sealed)
    die(first)
    second.custody.adopt(first.node.id)
    (record,) = second.store.fetch([task(OWNER, 2)[0] + FIRST_INDEX])
    assert record is not None
    assert isinstance(load_task_error(record[1:]), ActorDiedError)


def test_finished_work_leaves_custody(make_agent: MakeAgent):
    agent = make_agent()
    take(agent, frame(agent, header(OWNER), task(OWNER, 1)))
    (piece,) = [piece for lane in agent.lanes.values() for piece in lane.take_all()]
    agent.settling.settle(piece.held, 1)
    agent.custody.run_once()
    assert entries(agent) == 0


def test_a_node_that_ends_leaves_no_entry_of_finished_work(make_agent: MakeAgent):
    agent = make_agent()
    take(agent, frame(agent, header(OWNER), task(OWNER, 1)))
    (piece,) = [piece for lane in agent.lanes.values() for piece in lane.take_all()]
    agent.settling.settle(piece.held, 1)
    agent.custody.give_back()
    assert entries(agent) == 0
    assert not waiting(agent)


def test_what_was_handed_back_before_is_not_in_custody(make_agent: MakeAgent):
    agent = make_agent()
    agent.custody.after = 0.0
    agent.store.register_client(OWNER, 60.0)
    agent.sources.consider(QUEUE)
    agent.publisher.publish(QUEUE, frame(agent, header(OWNER), task(OWNER, 1), task(OWNER, 2)))
    drive(agent, lambda: len(waiting(agent)) == 2, "the message is here")
    agent.sources.close()
    (piece,) = [piece for lane in agent.lanes.values() for piece in lane.take_all()]
    kept = piece.tasks.pop()
    agent.handback.give_back(piece)
    agent.custody.run_once()
    field, entry = agent.store.call(b"HGETALL", agent.node.keys.custody(agent.node.id))
    from rabbitry_broker.messages import decode

    _, _, body = decode(agent.node.signer.open(b"custody" + field, entry))
    assert [each[0] for _, tasks in decode_frames(agent.node.signer, body) for each in tasks] == [kept[0]]


def test_a_node_that_leaves_puts_its_custody_back(make_agent: MakeAgent):
    first, second = make_agent(), make_agent()
    take(first, frame(first, header(OWNER), task(OWNER, 1)))
    first.custody.give_back()
    die(first)
    assert entries(first) == 0
    second.sources.consider(QUEUE)
    drive(second, lambda: waiting(second), "the task is back")
    assert waiting(second) == {task(OWNER, 1)[0]: 0}  # no attempt is counted: the node ended in good order


def leave(agent: Agent) -> None:
    """End a node in good order."""
    agent.sources.close()
    with suppress(RabbitryBrokerError):
        agent.custody.give_back()
    agent.consumer.close()
    agent.say_goodbye()


def test_what_the_broker_does_not_take_back_is_left_to_others(make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch):
    first, second = make_agent(), make_agent()
    take(first, frame(first, header(OWNER), task(OWNER, 1)))
    monkeypatch.setattr(custody, "GIVE_BACK_SECONDS", 0.1)
    first.publisher._link.close()  # type: ignore[attr-defined]
    first.publisher._on_down()  # type: ignore[attr-defined]
    leave(first)
    second.sources.consider(QUEUE)
    second.janitor.run_once()
    drive(second, lambda: waiting(second), "the task is back")


def test_what_a_leaving_node_could_not_look_at_is_left_to_others(make_agent: MakeAgent):
    first, second = make_agent(), make_agent()
    take(first, frame(first, header(OWNER), task(OWNER, 1)))
    break_next_fetch(first)
    leave(first)
    second.sources.consider(QUEUE)
    second.janitor.run_once()
    drive(second, lambda: waiting(second), "the task is back")


def break_next_fetch(agent: Agent) -> None:
    """Have Redis be away for too long, once, when the node wants to know whether results stand."""
    fetch = agent.store.fetch

    def fail(*_: object) -> list[bytes | None]:
        agent.store.fetch = fetch  # type: ignore[method-assign]
        raise ConnectionLost("away for too long")

    agent.store.fetch = fail  # type: ignore[method-assign]


def test_what_an_adopter_could_not_look_at_is_put_back_by_its_next_round(make_agent: MakeAgent):
    first, second = make_agent(), make_agent()
    take(first, frame(first, header(OWNER), task(OWNER, 1)))
    die(first)
    second.sources.consider(QUEUE)
    break_next_fetch(second)
    with suppress(RabbitryBrokerError):
        second.janitor.run_once()
    second.janitor.run_once()
    drive(second, lambda: waiting(second), "the task is back")
    drive(second, lambda: entries(second) == 0, "the adopted entry is gone")


@pytest.mark.parametrize("ends", [False, True], ids=["taken", "ended"])
def test_an_entry_whose_reply_was_lost_is_not_written_twice(make_agent: MakeAgent, ends: bool):
    agent = make_agent()
    agent.custody.after = 0.0
    agent.store.register_client(OWNER, 60.0)
    agent.sources.consider(QUEUE)
    agent.publisher.publish(QUEUE, frame(agent, header(OWNER), task(OWNER, 1)))
    drive(agent, lambda: waiting(agent), "the message is here")
    pipeline = agent.store.pipeline

    def lose_reply(commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        pipeline(commands)
        raise ConnectionLost("away for too long")

    agent.store.pipeline = lose_reply  # type: ignore[method-assign]
    agent.custody.run_once()
    agent.store.pipeline = pipeline  # type: ignore[method-assign]
    if not ends:
        agent.custody.run_once()
        assert entries(agent) == 1
    (piece,) = [piece for lane in agent.lanes.values() for piece in lane.take_all()]
    agent.settling.settle(piece.held, 1)
    agent.custody.run_once()
    assert entries(agent) == 0


def test_a_forged_entry_is_put_aside(make_agent: MakeAgent):
    first, second = make_agent(), make_agent()
    first.store.call(b"HSET", first.node.keys.custody(first.node.id), b"field", b"not ours at all, but long enough")
    die(first)
    second.custody.adopt(first.node.id)
    assert int(second.store.call(b"GET", second.node.keys.put_aside + b":count")) == 1
    drive(second, lambda: entries(second) == 0, "the entry is gone")
