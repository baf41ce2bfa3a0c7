"""Calls between processes of one node: which of them need no broker, and that none is lost or overtakes another."""

from __future__ import annotations

from typing import Any

import pytest

from rabbitry.core.submit.plans import END_METHOD
from rabbitry_broker import queue_names as names
from rabbitry_broker.messages import KIND_ACTOR_CALL, KIND_TASK, decode_frames, encode_frame, encode_header
from rabbitry_broker.store.actors import STALE
from rabbitry_workers.node.actors.hosted import PREFETCH
from rabbitry_workers.node.intake.local_calls import LocalCalls
from tests.workers.conftest import header, task
from tests.workers.node.actors.test_actors_alone import ACTOR_ID, ACTOR_QUEUE, Stage, of
from tests.workers.node.fakes import OWNER

OTHER = b"o" * len(OWNER)


class Case(Stage):
    """Local calls over the parts of `node.actors`."""

    def __init__(self) -> None:
        super().__init__()
        self.local = LocalCalls(self.node, self.life, self.table, self.calls, self.cancelling)

    def frame(self, *numbers: int, owner: bytes = OWNER, **fields: Any) -> bytes:
        head = header(owner, **{"kind": KIND_ACTOR_CALL, "actor": ACTOR_ID, "method": "m", "max_retries": 0, **fields})
        tasks: Any = [(*task(owner, n)[:5], n) for n in numbers]
        return encode_frame(self.node.signer, encode_header(head), tasks)

    def take(self, *numbers: int, **fields: Any) -> bool:
        return self.local.take(ACTOR_QUEUE, self.frame(*numbers, **fields))


@pytest.fixture
def case() -> Case:
    return Case()


def test_calls_in_their_order_are_handed_over(case: Case) -> None:
    executor = case.create()
    assert case.take(1)
    assert case.take(2, 3)
    assert executor.ran() == of(1, 2, 3)
    assert not case.publishing.messages


def test_calls_under_several_headers_are_one_message(case: Case) -> None:
    executor = case.create()
    assert case.local.take(ACTOR_QUEUE, case.frame(1) + case.frame(2, 3, method="n") + case.frame(4))
    assert executor.ran() == of(1, 2, 3, 4)
    assert not case.local.take(ACTOR_QUEUE, case.frame(5) + case.frame(7, method="n")), "6 is still to come"
    assert not case.local.take(ACTOR_QUEUE, case.frame(5) + case.frame(6, method=END_METHOD))
    assert executor.ran() == of(1, 2, 3, 4), "all of a message goes one way"


def test_a_call_behind_one_that_went_by_the_broker_goes_there_until_that_has_come(case: Case) -> None:
    executor = case.create()
    assert not case.take(2), "1 is on the actor's queue"
    case.call(1)
    assert case.take(2)
    assert not case.take(2), "twice"
    assert not case.take(3, 5)
    assert case.take(1, owner=OTHER), "each caller has numbers of its own"
    assert executor.ran() == [*of(1, 2), task(OTHER, 1)[0]]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"max_retries": 1}, id="to be tried again"),
        pytest.param({"max_retries": -1}, id="again and again"),
        pytest.param({"method": END_METHOD}, id="the actor's end"),
        pytest.param({"kind": KIND_TASK}, id="none"),
        pytest.param({"actor": b"x" * len(ACTOR_ID)}, id="to another actor"),
        pytest.param({"job": b"too long for a job"}, id="nonsense"),
    ],
)
def test_other_calls_go_by_the_broker(case: Case, fields: dict[str, Any]) -> None:
    executor = case.create()
    assert not case.take(1, **fields)
    assert not case.take(0), "without a number"
    assert executor.ran() == []


def test_nonsense_is_left_to_who_finds_it_on_the_queue(case: Case) -> None:
    case.create()
    assert not case.local.take(ACTOR_QUEUE, b"nonsense")
    for queue in ("actor.xyz", "actor.", "actor.00", names.task_queue("CPU=1"), "", ACTOR_QUEUE[len("actor.") :]):
        assert not case.local.take(queue, case.frame(1))


def test_actors_that_are_not_here_or_begin_or_end_or_keep_state_get_theirs_by_the_broker(case: Case) -> None:
    assert not case.take(1)
    executor = case.create(alive=False)
    assert not case.take(1), "it is in its constructor"
    case.hosting.on_created(executor, b"", "")
    executor.dismissed = "its actor was ended"
    assert not case.take(1)
    executor.dismissed, executor.leaving = "", "exit_actor"
    assert not case.take(1)
    executor.leaving = ""
    case.life.drain()
    assert not case.take(1), "the node leaves"
    durable = Case()
    durable.create(durable=True)
    assert not durable.take(1)


def test_a_cancelled_call_goes_where_that_is_seen_to(case: Case) -> None:
    case.create()
    case.cancelling.known[of(1)[0]] = None
    assert not case.take(1)


def test_a_process_that_has_enough_to_do_gets_no_more(case: Case) -> None:
    executor = case.create()
    taken = 0
    while case.take(taken + 1):
        taken += 1
    assert taken == PREFETCH + 1, "one can run at a time"
    executor.chunks.popleft()
    assert case.take(taken + 1)


def test_calls_that_an_actor_lost_are_answered_and_the_next_process_gets_the_next_ones(case: Case) -> None:
    case.create()
    assert case.take(1, 2)
    case.crash(begun=1)
    assert list(case.failing.failed) == of(1, 2)
    assert not case.take(3), "it is being restarted"
    executor = case.create()
    assert case.take(3)
    assert executor.ran() == of(3)


def test_an_actor_that_another_node_took_over_gets_what_had_not_begun_by_its_queue(case: Case) -> None:
    case.create()
    assert case.take(1, 2)
    case.records.ended = (STALE, b"", "")
    case.crash(begun=1)
    assert list(case.failing.failed) == of(1)
    assert [(queue, ids_of(case, frame)) for queue, frame in sent(case)] == [(ACTOR_QUEUE, of(2))]


def test_a_node_that_leaves_gives_the_broker_what_has_not_begun(case: Case) -> None:
    executor = case.create()
    kept = case.call(1)
    assert case.take(2, 3) and case.take(4)
    executor.progress.started[0] = 2
    case.ends.publish_local()
    assert [ids_of(case, frame) for _, frame in sent(case)] == [of(3), of(4)]
    assert kept.outstanding == 1, "its queue takes that back"


def sent(case: Case) -> list[tuple[str, bytes]]:
    return [(each[0], each[1]) for each in case.publishing.messages]


def ids_of(case: Case, frame: bytes) -> list[bytes]:
    return [each[0] for _, tasks in decode_frames(case.node.signer, frame) for each in tasks]
