"""Redis stays away for longer than anybody waits, just between two steps of an agent: no work is lost, none hangs."""

from __future__ import annotations

import time
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry.actor import Facts
from rabbitry.exceptions import ActorUnavailableError, TaskCancelledError, load_task_error
from rabbitry_broker.errors import ConnectionLost
from rabbitry_broker.ids import FIRST_INDEX, new_actor_id, new_client_id
from rabbitry_broker.messages import (
    KIND_ACTOR_CALL,
    KIND_ACTOR_CREATION,
    ActorSpec,
    Task,
    TaskHeader,
    decode_header,
    encode,
    encode_header,
)
from rabbitry_broker.queues.protocol import Delivery
from rabbitry_workers.channel import DONE, PUBLISH
from rabbitry_workers.node.actors import ends, hosting, recovery
from rabbitry_workers.node.actors.hosted import Hosted
from rabbitry_workers.node.agent import Agent
from rabbitry_workers.node.dispatch import crashes, dispatcher
from rabbitry_workers.node.dispatch.executors import ExecutorProcess
from rabbitry_workers.node.intake import handback, intake
from rabbitry_workers.node.model.lanes import State
from rabbitry_workers.node.model.life import Phase
from rabbitry_workers.node.model.work import Chunk, Held, Piece
from rabbitry_workers.node.outcome import failing, publishing, redelivery
from tests.workers.conftest import MakeAgent, drive, frame, header, task
from tests.workers.node.fakes import FakeExecutor

pytestmark = pytest.mark.parametrize("engine", ["rabbitmq"], indirect=True)

QUEUE = "task.CPU=1"
OWNER = new_client_id()
SPEC = ActorSpec("CPU=1", 1, {}, False, "", "", "A", encode(Facts("A", {}, 0, -1)))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (
        ends, hosting, recovery, crashes, dispatcher, handback, intake, failing, publishing, redelivery
    ):  # fmt: skip
        monkeypatch.setattr(module, "AGAIN_SECONDS", 0.05)


@pytest.fixture
def agent(make_agent: MakeAgent) -> Agent:
    made = make_agent()
    made.store.register_client(OWNER, 60.0)
    return made


def lose_reply(owner: Any, name: str) -> None:
    """Have the next call of a method do its work, and its reply be lost for good."""
    method = getattr(owner, name)

    def fail(*args: Any, **options: Any) -> None:
        setattr(owner, name, method)
        method(*args, **options)
        raise ConnectionLost("away for too long")

    setattr(owner, name, fail)


def waiting(agent: Agent) -> set[bytes]:
    return {each[0] for lane in agent.lanes.values() for piece in lane.all_pieces() for each in piece.tasks}


def leased() -> FakeExecutor:
    """Return an executor that has been leased."""
    executor = FakeExecutor()
    executor.move(State.LEASED)
    return executor


def enqueue(agent: Agent, head: TaskHeader, *tasks: Task, executor: Any = None) -> Held:
    """Give an agent work, and its lane an executor."""
    held = Held(None, QUEUE)
    held.outstanding = len(tasks)
    if executor is not None:
        lane = agent.lanes.of(head)
        lane.executors.append(executor)
        executor.lane = lane
    agent.dispatcher.enqueue(Piece(held, encode_header(head), head, deque(tasks)))
    return held


def result(agent: Agent, each: Task) -> bytes:
    (record,) = agent.store.fetch([each[0] + FIRST_INDEX])
    return record or b""


def test_what_comes_again_is_taken_later(agent: Agent):
    held, head = Held(None, QUEUE), header(OWNER)
    lose_reply(agent.store, "fetch")
    agent.redelivery.take_later(held, encode_header(head), head, [task(OWNER, 1)])
    drive(agent, lambda: waiting(agent), "the task is taken")
    assert held.outstanding == 1


def test_what_is_in_doubt_stays_so(agent: Agent):
    head = header(OWNER, max_retries=0)
    tasks = [task(OWNER, 1), task(OWNER, 2)]
    for each in tasks:
        held = Held(None, QUEUE)
        held.outstanding = 1
        agent.doubts.add(held, encode_header(head), head, each)
    lose_reply(agent.store, "started_by")
    with pytest.raises(ConnectionLost):
        agent.doubts.run_once()
    agent.doubts.run_once()
    assert waiting(agent) == {each[0] for each in tasks}


def test_what_is_in_doubt_is_acknowledged_only_when_it_is_done(agent: Agent):
    head = header(OWNER, max_retries=0)
    acknowledged: list[Delivery] = []
    agent.settling._ack = acknowledged.append
    held = Held(Delivery(QUEUE, b"", None))
    held.outstanding = 1
    agent.doubts.add(held, encode_header(head), head, task(OWNER, 1))
    agent.doubts.run_once()
    assert waiting(agent) == {task(OWNER, 1)[0]}
    assert not acknowledged
    agent.settling.settle(held, 1)
    assert acknowledged


def test_a_task_whose_start_could_not_be_marked_runs(agent: Agent):
    executor = leased()
    lose_reply(agent.store, "start_once")
    enqueue(agent, header(OWNER, max_retries=0), task(OWNER, 1), executor=executor)
    assert not executor.ran()
    drive(agent, executor.ran, "the task runs")
    assert executor.ran() == [task(OWNER, 1)[0]]


def test_a_lane_whose_job_could_not_be_read_gets_its_executor(agent: Agent):
    lose_reply(agent.store, "job")
    enqueue(agent, header(OWNER), task(OWNER, 1))
    assert agent.ledger.available()["CPU"] == 1
    drive(agent, lambda: agent.ledger.available()["CPU"] == 0, "an executor is asked for")
    assert sum(lane.starting for lane in agent.lanes.values()) == 1


def test_an_actor_whose_start_could_not_be_recorded_is_created(agent: Agent):
    actor, executor = new_actor_id(b"jjjj"), leased()
    agent.records.create(actor, name=b"", fields={"owner": OWNER, "detached": b"0"})
    agent.hosting.host = lambda *_: agent.records.start(actor, agent.node.id)[0] == "PENDING"  # type: ignore[method-assign]
    lose_reply(agent.records, "start")
    enqueue(agent, header(OWNER, kind=KIND_ACTOR_CREATION, actor=actor), task(OWNER, 1), executor=executor)
    assert waiting(agent)
    drive(agent, lambda: not waiting(agent), "the actor has its executor")


def test_a_node_leaves_though_it_cannot_say_so(agent: Agent):
    lose_reply(agent.heartbeat, "run_once")
    agent.drain()
    assert agent.life.phase is Phase.STOPPING


def test_a_leaving_node_gives_back_what_it_could_not_at_once(agent: Agent):
    head = header(OWNER)
    agent.custody.after = 0.0
    agent.sources.consider(QUEUE)
    agent.publisher.publish(QUEUE, frame(agent, head, task(OWNER, 1)))
    drive(agent, lambda: waiting(agent), "the message is here")
    agent.custody.run_once()
    lose_reply(agent.handback, "_update_custody")
    agent.drain()
    drive(agent, lambda: agent.life.phase is Phase.STOPPING, "the node leaves")
    assert not waiting(agent)


def test_dependants_are_published_when_redis_knows_their_queue(agent: Agent):
    lose_reply(agent.store, "announce_queue")
    held = Held(None, QUEUE)
    lose_reply(agent.store, "launched")
    agent.publishing.publish_dependants(
        [held], [(b"spec", frame(agent, header(OWNER), task(OWNER, 1)), QUEUE, 0, b"{x}", b"y")]
    )
    assert held.outstanding == 1
    agent.sources.consider(QUEUE)
    drive(agent, lambda: waiting(agent) and not held.outstanding, "the dependant is here, and its releaser done")


def test_what_executors_submit_waits_for_rabbitmq_however_long(agent: Agent):
    publisher: Any = agent.publisher
    drive(agent, lambda: publisher._channel is not None, "the publisher is ready")
    channel, publisher._channel = publisher._channel, None
    publisher._away_since = time.monotonic() - 3600
    agent.messages.on_executor_message(leased(), [PUBLISH, QUEUE, 0, frame(agent, header(OWNER), task(OWNER, 1))])  # type: ignore[arg-type]
    publisher._channel = channel
    with publisher._loop.lock:
        message = publisher._waiting.popleft()
        publisher._loop.write_inline(lambda: publisher._send(message))
    agent.sources.consider(QUEUE)
    drive(agent, lambda: waiting(agent), "the task is here")


def test_all_messages_of_an_executor_count_though_one_of_them_fails(agent: Agent):
    told: list[int] = []

    def tell(_: object, message: list[Any]) -> None:
        told.append(message[0])
        if len(told) == 1:
            raise ConnectionLost("away for too long")

    owner = SimpleNamespace(on_executor_message=tell)
    executor = SimpleNamespace(_owner=owner, pid=1)
    for word in (PUBLISH, DONE):
        ExecutorProcess._tell(executor, [word])  # type: ignore[arg-type]
    assert told == [PUBLISH, DONE]


def test_the_calls_of_an_actor_that_ended_fail_and_it_is_restarted(agent: Agent):
    actor, executor = new_actor_id(b"jjjj"), leased()
    creation = header(OWNER, kind=KIND_ACTOR_CREATION, actor=actor, extra=encode(SPEC))
    message = frame(agent, creation, task(OWNER, 1))
    fields = {"owner": OWNER, "detached": b"0", "max_restarts": 1, "frame": message, "queue": QUEUE}
    agent.records.create(actor, name=b"", fields=fields)
    _, epoch, *_ = agent.records.start(actor, agent.node.id)
    executor.actor = actor
    executor.progress.started[0] = 2
    hosted = Hosted(executor, decode_header(encode_header(creation)), task(OWNER, 1), Held(None, QUEUE), epoch, OWNER)  # type: ignore[arg-type]
    hosted.alive = True
    agent.table.hosted[actor] = hosted
    call = header(OWNER, kind=KIND_ACTOR_CALL, actor=actor, max_retries=0)
    calls = [task(OWNER, 2), task(OWNER, 3)]
    held = Held(None, QUEUE)
    held.outstanding = 2
    executor.chunks.append(Chunk(Piece(held, encode_header(call), call, deque()), 0, calls))
    lose_reply(agent.store, "commit")
    agent.ends.gone(executor)  # type: ignore[arg-type]
    drive(agent, lambda: waiting(agent) and not held.outstanding, "the actor is to be created again, its calls fail")
    for each in calls:
        assert isinstance(load_task_error(result(agent, each)[1:]), ActorUnavailableError)
    restarts, state = agent.records.fields(actor, "restarts", "state")
    assert (restarts, state) == (b"1", b"RESTARTING")


def test_a_message_that_could_not_be_taken_comes_again(agent: Agent):
    head = header(OWNER)
    cancelled = task(OWNER, 1)
    agent.cancelling.known[cancelled[0]] = None
    lose_reply(agent.commits, "commit_records")
    agent.sources.consider(QUEUE)
    agent.publisher.publish(QUEUE, frame(agent, head, cancelled, task(OWNER, 2)))
    drive(agent, lambda: waiting(agent), "the other task is here")
    assert waiting(agent) == {task(OWNER, 2)[0]}
    (source,) = agent.sources.by_queue.values()
    assert source.outstanding == 1


def test_control_messages_count_though_one_before_them_fails(agent: Agent):
    store, killed = agent.store, []
    executor = leased()
    executor.chunks.append(Chunk(Piece(Held(None, QUEUE), b"", header(OWNER), deque()), 0, [task(OWNER, 1)]))
    agent.executors[0] = executor  # type: ignore[assignment]
    agent.cancelling.cancel_sent = lambda *_, **__: store.call(b"no such command")  # type: ignore[method-assign]
    agent.ends.kill = lambda actor_id, **_: killed.append(actor_id)  # type: ignore[method-assign]
    seal = agent.node.signer.seal
    messages = [
        seal(b"control", encode(["cancel", task(OWNER, 1)[0], OWNER, False, False])),
        seal(b"control", encode(["kill-actor", b"actor", True, b""])),
    ]
    other = store.open_connection("test")
    other.pipeline([(b"PUBLISH", agent.node.keys.control_channel, each) for each in messages])
    other.close()
    drive(agent, lambda: killed, "the second one is heard")
    agent.executors.clear()


def test_an_actor_of_a_lost_node_is_restarted_by_the_node_that_became_its_keeper(make_agent: MakeAgent):
    gone, agent = make_agent(), make_agent()
    agent.store.register_client(OWNER, 60.0)
    actor = new_actor_id(b"jjjj")
    message = frame(agent, header(OWNER, kind=KIND_ACTOR_CREATION, actor=actor, extra=encode(SPEC)), task(OWNER, 1))
    fields = {"owner": OWNER, "detached": b"0", "max_restarts": 1, "frame": message, "queue": QUEUE}
    agent.records.create(actor, name=b"", fields=fields)
    agent.records.start(actor, gone.node.id)
    gone.consumer.close()
    agent.store.call(b"DEL", agent.node.keys.node(gone.node.id))
    lose_reply(agent.records, "end")
    with pytest.raises(ConnectionLost):
        agent.recovery.run_once()
    agent.sources.consider(QUEUE)
    drive(agent, lambda: waiting(agent), "it is to be created")


def test_a_task_that_is_cancelled_before_it_is_tried_again_fails(agent: Agent):
    head = header(OWNER, retry_delay=0.2)
    each, held = task(OWNER, 1), Held(None, QUEUE)
    held.outstanding = 1
    agent.retries.retry_later(Chunk(Piece(held, encode_header(head), head, deque()), 0, [each]), each)
    agent.cancelling.cancel([each[0]], OWNER, force=False)
    drive(agent, lambda: not agent.retries.delayed, "it would be tried again")
    assert isinstance(load_task_error(result(agent, each)[1:]), TaskCancelledError)
    assert held.outstanding == 0
