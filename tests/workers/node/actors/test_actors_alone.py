"""Actors of a node with fakes for its ports: hosting, calls, ends, recovery and burials."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from rabbitry.actor import Facts
from rabbitry.core.submit.plans import END_METHOD
from rabbitry.exceptions import ActorUnavailableError, load_task_error
from rabbitry_broker import queue_names as names
from rabbitry_broker import records
from rabbitry_broker.errors import ConnectionLost, StoreError
from rabbitry_broker.ids import FIRST_INDEX, new_actor_id, new_client_id
from rabbitry_broker.messages import (
    KIND_ACTOR_CALL,
    KIND_ACTOR_CREATION,
    ActorSpec,
    Task,
    decode_header,
    encode,
    encode_frame,
    encode_header,
)
from rabbitry_broker.store.actors import DEAD, PENDING, RESTARTING, STALE
from rabbitry_workers.channel import ACTOR, CANCEL
from rabbitry_workers.node.actors import burials as burials_module
from rabbitry_workers.node.actors.burials import Burials
from rabbitry_workers.node.actors.calls import ActorCalls
from rabbitry_workers.node.actors.ends import Ends
from rabbitry_workers.node.actors.hosted import PREFETCH, ActorTable
from rabbitry_workers.node.actors.hosting import PREFETCH_WHILE_LOST, Hosting
from rabbitry_workers.node.actors.recovery import AGAIN_SECONDS, WATCH_SECONDS, Recovery
from rabbitry_workers.node.model.lanes import State
from rabbitry_workers.node.model.work import Held, Piece
from tests.workers.conftest import header, task
from tests.workers.node.fakes import OWNER, QUEUE, FakeExecutor, World, ids

ACTOR_ID = new_actor_id(b"jjjj")
ACTOR_QUEUE = names.actor_queue(ACTOR_ID)
OTHER = b"n" * 28


class Records:
    """The records of actors, as a test wants them."""

    def __init__(self) -> None:
        self.next: tuple[Any, ...] = (PENDING, 1, 0, OWNER, False)
        self.ended: tuple[str, bytes, str] = (RESTARTING, b"", QUEUE)
        self.ends: list[dict[str, Any]] = []
        self.lives: list[bytes] = []
        self.actors: list[bytes] = []
        self.dead: list[bytes] = []
        self.forgotten: list[bytes] = []
        self.stands: dict[bytes, list[int]] = {}
        self.durable: bytes | None = None
        self.why = b""
        self.away = 0
        self.killed: list[tuple[bytes, bool, bytes]] = [(b"", False, b"")]

    def _check(self) -> None:
        if self.away:
            self.away -= 1
            raise ConnectionLost("away")

    def start(self, actor_id: bytes, node: bytes) -> Any:
        self._check()
        return self.next

    def end(self, actor_id: bytes, **fields: Any) -> tuple[str, bytes, str]:
        self._check()
        self.ends.append(fields)
        return self.ended

    def alive(self, actor_id: bytes, epoch: int, pid: int) -> None:
        self._check()
        self.lives.append(actor_id)

    def cause(self, actor_id: bytes) -> bytes:
        return self.why

    def states(self, ids: list[bytes]) -> list[tuple[str, int]]:
        return [(self.ended[0], 1) for _ in ids]

    def fields(self, actor_id: bytes, *names: str) -> list[bytes | None]:
        return [self.durable for _ in names]

    def applied(self, actor_id: bytes) -> dict[bytes, list[int]]:
        return self.stands

    def ids(self) -> list[bytes]:
        return list(self.actors)

    def burials(self) -> list[bytes]:
        return list(self.dead)

    def kills(self, actor_ids: list[bytes]) -> list[tuple[bytes, bool, bytes]]:
        self._check()
        return self.killed

    def to_bury(self, actor_id: bytes, keeper: bytes) -> None:
        self.dead.append(actor_id)

    def buried(self, actor_ids: list[bytes]) -> None:
        self.dead = [each for each in self.dead if each not in actor_ids]

    def forget(self, actor_id: bytes) -> None:
        self.forgotten.append(actor_id)


def spec(*, durable: bool = False, retries: int = 0, concurrency: int = 1) -> bytes:
    facts = encode(Facts("A", {}, retries, -1))
    made = ActorSpec("CPU=1", concurrency, {}, False, "", "", "A", facts)
    return encode(msgspec.structs.replace(made, durable="always" if durable else ""))


class Stage(World):
    """All parts of `node.actors`, and fakes of what is below them."""

    def __init__(self, *, embedded: bool = False) -> None:
        super().__init__(embedded=embedded)
        self.records: Any = Records()
        self.table = ActorTable()
        self.burials = Burials(self.node, self.consumer, self.records)
        self.enqueued: list[Piece] = []
        self.custody_forgotten: list[Held] = []
        self.cancelling: Any = SimpleNamespace(known={}, without_cancelled=self.without_cancelled)
        shadows: Any = SimpleNamespace(not_held_here=lambda held, head, tasks: tasks)
        rechecks: Any = SimpleNamespace(recheck=lambda held, head, tasks: tasks)
        self.ends = Ends(
            self.node, self.table, self.records, self.burials, self.consumer, self.settle, self.commits,
            self.publishing, self.failing, self.enqueued.append, self.custody_forgotten.append, lambda _: "",
        )  # fmt: skip
        self.calls = ActorCalls(
            self.table, self.records, self.burials.graves, self.settle, self.commits, self.publishing, self.failing,
            self.cancelling, shadows, rechecks, self.peers.lost_a_node, self.ends.refuse, self.consumer,
            self.loop,  # type: ignore[arg-type]
        )  # fmt: skip
        self.hosting = Hosting(
            self.node, self.table, self.records, self.burials, self.consumer, self.settle,
            self.cancelling, self.calls, self.ends, self.serve_all,
        )  # fmt: skip
        self.recovery = Recovery(self.node, self.table, self.records, self.burials, self.ends, self.publishing)
        self.one = self.executor()

    def without_cancelled(self, held: Held, head: Any, tasks: list[Task], *, outstanding: bool = False) -> Any:
        kept = [each for each in tasks if each[0] not in self.cancelling.known]
        if outstanding:
            self.settle(held, len(tasks) - len(kept))
        return kept

    def create(
        self, *, retries: int = 0, durable: bool = False, alive: bool = True, concurrency: int = 1
    ) -> FakeExecutor:
        """Host the actor."""
        extra = spec(durable=durable, retries=retries, concurrency=concurrency)
        head = header(OWNER, kind=KIND_ACTOR_CREATION, actor=ACTOR_ID, extra=extra)
        self.creation = Held(None, QUEUE)
        self.creation.outstanding = 1
        piece = Piece(self.creation, encode_header(head), decode_header(encode_header(head)), deque())
        self.hosts = self.hosting.host(self.one, piece, task(OWNER, 100))
        if self.hosts and alive:
            self.hosting.on_created(self.one, b"", "")
        return self.one

    def call(
        self, *numbers: int, retries: int = 0, method: str = "m", owner: bytes = OWNER, again: bool = False
    ) -> Held:
        held = Held(None, ACTOR_QUEUE)
        head = header(owner, kind=KIND_ACTOR_CALL, actor=ACTOR_ID, max_retries=retries, method=method)
        tasks: Any = [(*task(owner, n)[:5], n) for n in numbers]
        if again:
            tasks = self.calls.redelivered(held, head, tasks)
        self.calls.deliver(held, encode_header(head), head, tasks)
        return held

    def crash(self, begun: int = 0) -> None:
        self.one.progress.started[0] = begun
        self.ends.gone(self.one)
        self.one = self.executor()

    def waiting(self) -> list[bytes]:
        return list(self.table.kept_ids())


def of(*numbers: int) -> list[bytes]:
    return ids(task(OWNER, n) for n in numbers)


@pytest.fixture
def stage() -> Stage:
    return Stage()


# -- hosting -----------------------------------------------------------------------------------------------------------


def test_an_executor_becomes_the_host_and_the_creation_is_settled_with_the_constructor(stage: Stage):
    executor = stage.create(alive=False)
    assert executor.state is State.ACTOR
    assert executor.words() == [ACTOR]
    assert stage.consumer.windows[ACTOR_QUEUE] == PREFETCH
    assert stage.creation.outstanding == 1
    stage.records.away = 1
    stage.hosting.on_created(executor, b"", "label")
    assert (stage.creation.outstanding, executor.last_name) == (0, "label")
    stage.loop.run(1.0)
    assert stage.records.lives == [ACTOR_ID]


def test_a_constructor_that_raised_is_not_run_again(stage: Stage):
    executor = stage.create(alive=False)
    stage.hosting.on_created(executor, b"error", "")
    stage.records.ended = (DEAD, b"", "")
    stage.crash()
    assert stage.records.ends[0]["final"]
    assert stage.records.ends[0]["cause"] == b"error"
    stage.hosting.created(FakeExecutor(), b"")  # nobody's


def test_a_second_copy_of_a_creation_starts_nothing(stage: Stage):
    stage.create()
    stage.create()
    assert not stage.hosts
    assert stage.creation.outstanding == 0


@pytest.mark.parametrize("state", ["DUPLICATE", DEAD])
def test_an_actor_that_another_node_has_or_that_is_dead_is_not_hosted(stage: Stage, state: str):
    waiting = stage.call(1)
    stage.records.next = (state, 1, 0, OWNER, False)
    stage.create()
    assert not stage.hosts
    assert stage.creation.outstanding == 0
    assert stage.consumer.abandoned == [ACTOR_QUEUE]
    assert stage.waiting() == []
    if state == DEAD:
        assert list(stage.failing.failed) == of(1)
    else:
        assert stage.custody_forgotten == [waiting]


def test_what_came_early_is_handed_over_but_for_what_was_cancelled(stage: Stage):
    stage.call(1, 2)
    stage.cancelling.known[of(1)[0]] = None
    executor = stage.create()
    assert executor.ran() == of(2)


def test_calls_that_wait_are_handed_over_also_if_redis_is_away_while_one_of_them_is_cancelled(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    def away(*_: Any, **__: Any) -> Any:
        raise ConnectionLost("away")

    first, second = stage.call(1), stage.call(2)
    stage.cancelling.known[of(1)[0]] = None
    monkeypatch.setattr(stage.cancelling, "without_cancelled", away)
    executor = stage.create()
    assert stage.hosts
    assert executor.ran() == of(1, 2)
    assert executor.sent.count([CANCEL, of(1)[0]]) == 1
    assert [CANCEL, of(2)[0]] not in executor.sent
    assert (first.outstanding, second.outstanding) == (1, 1)


def test_a_call_that_could_not_be_refused_comes_again_and_is_refused_then(stage: Stage):
    stage.create()
    stage.crash()
    stage.commits.away = 1
    with pytest.raises(ConnectionLost):
        stage.call(1)
    assert stage.call(1).outstanding == 0
    assert list(stage.commits.results) == of(1)


def test_calls_of_a_durable_actor_that_lost_its_node_are_handed_over_in_order(stage: Stage):
    stage.records.next = (PENDING, 2, 1, OWNER, True)
    stage.records.stands = {OWNER: [1, 1]}
    executor = stage.create(durable=True)
    assert stage.consumer.windows[ACTOR_QUEUE] == PREFETCH_WHILE_LOST
    stage.call(3)
    assert executor.ran() == []
    assert stage.waiting() == of(3)
    stage.call(2)
    assert executor.ran() == of(2, 3)
    stage.call(9)
    stage.loop.run(60.0)
    assert executor.ran() == of(2, 3, 9)


def test_where_nobody_keeps_what_a_lost_node_had_a_call_waits_for_none_that_was_cancelled():
    stage = Stage(embedded=True)
    stage.records.next = (PENDING, 2, 1, OWNER, True)
    executor = stage.create(durable=True)
    stage.call(2)  # the first was cancelled
    stage.loop.run(1.0)
    assert executor.ran() == []
    stage.loop.run(2.0)
    assert executor.ran() == of(2)


def test_calls_that_may_all_wait_for_a_later_one_do_not_keep_it_away(stage: Stage):
    executor = stage.create(concurrency=100)
    for number in range(PREFETCH - 1):
        stage.call(number + 1)
    stage.loop.run(1.0)
    assert not stage.consumer.allowed, "its window is not full"
    stage.call(PREFETCH)
    stage.consumer.full = False
    stage.loop.run(1.0)
    assert set(stage.consumer.allowed) == {ACTOR_QUEUE}, "its window may be full again with what came twice"
    stage.consumer.full = True
    del stage.consumer.allowed[:]
    for number in range(PREFETCH, PREFETCH + 99):
        stage.call(number + 1)
    stage.loop.run(0.2)
    assert stage.consumer.allowed
    stage.call(PREFETCH + 100)
    del stage.consumer.allowed[:]
    stage.loop.run(1.0)
    assert not stage.consumer.allowed, "more than can run at a time"
    for chunk in list(executor.chunks)[:100]:
        chunk.done.update(range(chunk.first, chunk.end))
    stage.loop.run(1.0)
    assert stage.consumer.allowed, "few of its messages have calls left"
    del stage.consumer.allowed[:]
    stage.crash()
    stage.loop.run(1.0)
    assert not stage.consumer.allowed


def test_a_leaving_node_takes_no_more_calls(stage: Stage):
    stage.create()
    stage.hosting.drain()
    assert not stage.consumer.windows


# -- calls -------------------------------------------------------------------------------------------------------------


def test_a_call_that_comes_twice_runs_once(stage: Stage):
    executor = stage.create()
    stage.call(1, 2)
    second = stage.call(2, 3)
    assert executor.ran() == of(1, 2, 3)
    assert second.outstanding == 1


@pytest.mark.parametrize("when", ["dead", "starting", "alive"])
def test_a_copy_of_a_call_that_comes_after_a_restart_does_not_run_again(stage: Stage, when: str):
    stage.create()
    stage.call(1)
    stage.store.results[of(1)[0] + FIRST_INDEX] = b"N"
    stage.call(2)
    stage.crash(begun=2)
    refused = stage.call(3)
    copy = stage.call(1, 2, 3) if when == "dead" else None
    stage.records.next = (RESTARTING, 2, 1, OWNER, False)
    executor = stage.create(alive=when == "alive")
    copy = copy or stage.call(1, 2, 3)
    assert (refused.outstanding, copy.outstanding) == (0, 0)
    if when != "alive":
        stage.hosting.on_created(executor, b"", "")
    stage.call(4)
    assert executor.ran() == of(4)
    stage.crash(begun=1)
    stage.records.next = (RESTARTING, 3, 2, OWNER, False)
    executor = stage.create()
    stage.call(1, 2, 3, 4, 5)
    assert executor.ran() == of(5)


def test_what_waits_for_the_next_process_is_no_copy_of_itself(stage: Stage):
    stage.create(retries=1)
    held = stage.call(1, 2, retries=1)
    stage.crash(begun=1)
    copy = stage.call(1, 2, retries=1)
    stage.records.next = (RESTARTING, 2, 1, OWNER, False)
    assert stage.create(retries=1).ran() == of(1, 2)
    assert (held.outstanding, copy.outstanding) == (2, 0)


def test_which_calls_an_actor_had_is_forgotten_when_it_goes_elsewhere_or_ends(stage: Stage):
    head = header(OWNER, kind=KIND_ACTOR_CREATION, actor=ACTOR_ID)
    for leave in (
        lambda: stage.ends.moved_away(head),
        lambda: stage.ends.give_up(ACTOR_ID, ()),
        lambda: stage.ends.bury(ACTOR_ID, b"Ecause"),
    ):
        stage.create()
        stage.call(1)
        stage.crash(begun=1)
        assert stage.table.seen
        leave()
        assert not stage.table.seen
        stage.burials.graves.clear()


def test_calls_are_settled_in_any_order_and_tried_again_where_they_are(stage: Stage):
    executor = stage.create()
    held = stage.call(1, 2, 3)
    first = executor.chunks[0].first
    again = (*task(OWNER, 1)[:5], 1)
    stage.calls.on_done(executor, [first + 2, first], 2, 0.0, [(first, again)], [[b"s", b"f", QUEUE, 0, b"", b""]])
    assert held.outstanding == 2
    assert len(stage.publishing.released) == 1
    assert executor.ran() == [*of(1, 2, 3), *of(1)]
    assert len(executor.chunks) == 2


def test_calls_are_cancelled_where_they_are(stage: Stage):
    waiting = stage.call(1)
    ((held, _, call),) = stage.calls.take_waiting(of(1, 2))
    assert (held, call[0]) == (waiting, of(1)[0])
    assert not stage.calls.take_waiting(of(1))
    executor = stage.create()
    stage.calls.cancel(executor, of(2)[0])
    assert executor.sent[-1] == [CANCEL, of(2)[0]]


def test_calls_that_come_again_from_a_lost_process_fail_if_they_may_run_once(stage: Stage):
    stage.records.next = (PENDING, 2, 1, OWNER, False)
    executor = stage.create()
    stage.call(1)
    stage.peers.lost = True
    stage.call(1, 2, again=True)
    assert executor.ran() == of(1)
    assert list(stage.commits.results) == of(2)
    stage.call(3, retries=1, again=True)
    assert executor.ran() == of(1, 3)


def test_a_durable_actors_process_knows_which_calls_took_effect(stage: Stage):
    executor = stage.create(durable=True)
    stage.peers.lost = True
    stage.call(1, again=True)
    assert executor.ran() == of(1)


def test_calls_on_the_dead_fail_with_the_cause(stage: Stage):
    stage.ends.bury(ACTOR_ID, b"Ecause")
    stage.call(1)
    assert stage.failing.failed == {of(1)[0]: b"Ecause"}


# -- ends --------------------------------------------------------------------------------------------------------------


def test_after_a_crash_what_may_be_tried_again_waits_and_the_actor_is_created_again(stage: Stage):
    stage.create(retries=2)
    head = header(OWNER, kind=KIND_ACTOR_CREATION, actor=ACTOR_ID)
    frame = encode_frame(stage.node.signer, encode_header(head), [task(OWNER, 100)])
    stage.records.ended = (RESTARTING, frame, QUEUE)
    stage.call(1, 2, retries=2)
    stage.store.results[of(1)[0] + FIRST_INDEX] = b"N"
    stage.crash(begun=2)
    assert stage.waiting() == of(2)
    assert stage.commits.stands == of(1)
    assert [ids(piece.tasks) for piece in stage.enqueued] == [of(100)]
    stage.records.next = (RESTARTING, 2, 1, OWNER, False)
    assert stage.create(retries=2).ran() == of(2)
    assert stage.hosting.awaits_creation(ACTOR_ID)


def test_after_a_crash_what_may_run_once_fails_and_so_does_what_comes_meanwhile(stage: Stage):
    stage.create()
    stage.call(1)
    stage.crash(begun=1)
    late = stage.call(2)
    assert list(stage.failing.failed) == of(1)
    error: Any = stage.commits.results[of(2)[0]]
    assert isinstance(load_task_error(error[1:]), ActorUnavailableError)
    assert late.outstanding == 0
    assert stage.waiting() == []


def test_an_actor_that_nobody_has_a_handle_on_is_not_restarted(stage: Stage):
    stage.create()
    stage.crash()
    stage.records.ended = (DEAD, b"", "")
    stage.call(1, method=END_METHOD)
    assert ACTOR_ID in stage.burials.graves
    assert not stage.table.restarting


def test_a_killed_actor_is_buried_and_its_calls_fail(stage: Stage):
    executor = stage.create()
    stage.call(1)
    stage.ends.kill(ACTOR_ID, no_restart=True, cause=b"killed")
    stage.ends.kill(b"x" * 16, no_restart=True, cause=b"")  # not here
    assert executor.signals == [9]
    stage.records.ended = (DEAD, b"", "")
    stage.crash(begun=1)
    assert stage.failing.failed == {of(1)[0]: records.ERROR + b"killed"}
    assert stage.burials.graves[ACTOR_ID][0] == records.ERROR + b"killed"


def test_who_made_an_actor_that_cannot_be_placed_is_told(stage: Stage):
    stage.records.ended = (DEAD, b"", "")
    creation, waiting = Held(None, QUEUE), stage.call(1)
    creation.outstanding = 1
    head = header(OWNER, kind=KIND_ACTOR_CREATION, actor=ACTOR_ID)
    stage.ends.refuse_creation(creation, head, task(OWNER, 100), b"no room")
    assert stage.commits.results[of(100)[0]] == records.ERROR + b"no room"
    assert stage.commits.ended == of(100)
    assert (creation.outstanding, waiting.outstanding) == (0, 1)
    assert stage.failing.failed == {of(1)[0]: records.ERROR + b"no room"}


def test_an_actor_that_another_node_took_over_gives_its_calls_back(stage: Stage):
    stage.create()
    stage.records.ended = (STALE, b"", "")
    kept, custody = stage.call(1, retries=1), stage.call(2, retries=1)
    custody.custody = b"field"
    failed = stage.call(3)
    stage.crash(begun=9)
    assert stage.custody_forgotten == [kept]
    assert len(stage.publishing.messages) == 1
    stage.publishing.confirm()
    stage.loop.run()
    assert custody.outstanding == 0
    assert list(stage.failing.failed) == of(3)
    assert failed.outstanding == 1
    assert stage.consumer.abandoned == [ACTOR_QUEUE]


@pytest.mark.parametrize("state", [DEAD, RESTARTING, STALE])
def test_the_creation_is_answered_when_the_constructor_never_ended(stage: Stage, state: str):
    stage.create(alive=False)
    stage.records.ended = (state, b"", QUEUE)
    stage.records.away = 1
    stage.crash()
    assert stage.creation.outstanding == 1
    stage.loop.run(1.0)
    assert stage.creation.outstanding == 0
    assert (task(OWNER, 100)[0] in stage.commits.results) is (state != STALE)


def test_a_creation_that_cannot_be_read_is_put_aside(stage: Stage):
    stage.create()
    stage.records.ended = (RESTARTING, b"nonsense", QUEUE)
    stage.crash()
    assert stage.store.aside


def test_calls_follow_a_creation_that_is_handed_back(stage: Stage):
    held = stage.call(1)
    stage.ends.moved_away(header(OWNER))
    stage.ends.moved_away(header(OWNER, kind=KIND_ACTOR_CREATION, actor=ACTOR_ID))
    assert [queue for queue, *_ in stage.publishing.messages] == [ACTOR_QUEUE]
    stage.publishing.confirm()
    stage.loop.run()
    assert held.outstanding == 0


# -- recovery ----------------------------------------------------------------------------------------------------------


def record(stage: Stage, actor_id: bytes = ACTOR_ID, **fields: bytes) -> None:
    stage.records.actors.append(actor_id)
    stage.store.data[stage.node.keys.actor(actor_id)] = fields


def live(stage: Stage, *clients: bytes) -> None:
    for client in clients:
        stage.store.data[stage.node.keys.client(client)] = b""


def test_an_actor_of_a_dead_node_is_created_again_and_nonsense_among_them_is_put_aside(stage: Stage):
    record(stage, b"x" * 16, state=b"ALIVE", node=OTHER, epoch=b"nonsense")
    record(stage, state=b"ALIVE", node=OTHER, epoch=b"1")
    stage.records.ended = (RESTARTING, b"frame", QUEUE)
    stage.recovery.start()
    stage.loop.run(WATCH_SECONDS + 1.0)
    assert stage.publishing.messages == [(QUEUE, b"frame", 0)]
    assert stage.records.ends[0]["lost"]
    assert stage.store.aside


def test_an_unborn_actor_whose_owner_is_gone_is_refused_and_one_that_was_killed_is_buried(stage: Stage):
    killed, gone, kept = (new_actor_id(b"jjjj") for _ in range(3))
    alive = new_client_id()
    live(stage, alive)
    for actor_id, fields in (
        (killed, {"state": DEAD.encode()}),
        (gone, {"state": b"PENDING", "owner": new_client_id()}),
        (kept, {"state": b"PENDING", "owner": alive}),
    ):
        stage.records.actors.append(actor_id)
        stage.store.data[stage.node.keys.actor(actor_id)] = fields
    stage.records.ended = (DEAD, b"", "")
    stage.recovery.run_once()
    assert set(stage.burials.graves) == {killed, gone}


def test_actors_whose_owner_is_gone_are_killed_and_callers_that_are_gone_are_forgotten(stage: Stage):
    executor = stage.create()
    live(stage, OWNER)
    caller = new_client_id()
    stage.call(1, owner=caller)
    for _ in range(2):
        stage.recovery._callers_seen_at = -1000.0
        stage.recovery.run_once()
    assert caller not in stage.table.hosted[ACTOR_ID].seen
    assert not executor.signals
    del stage.store.data[stage.node.keys.client(OWNER)]
    stage.recovery.run_once()
    assert executor.signals == [9]


def test_after_a_silence_processes_of_actors_that_others_have_end(stage: Stage):
    executor = stage.create()
    stage.store.data[stage.node.keys.actor(ACTOR_ID)] = {"node": stage.node.id}
    stage.recovery.doubt()
    assert not executor.signals
    stage.store.data[stage.node.keys.actor(ACTOR_ID)] = {"node": OTHER}
    stage.recovery.run_once()
    assert 9 in executor.signals


@pytest.mark.parametrize(
    ("kill", "ends"),
    [
        ((b"1", True, b"why"), True),
        ((b"1", False, b"why"), True),
        ((b"", False, b""), False),
        ((b"7", True, b""), False),
    ],
)
def test_an_actor_that_was_killed_while_nobody_listened_ends(stage: Stage, kill: tuple[bytes, bool, bytes], ends: bool):
    stage.recovery.listens_again()
    executor = stage.create()
    stage.records.killed = [kill]
    stage.records.away = 1
    stage.recovery.listens_again()
    assert not executor.signals, "the store was away"
    stage.loop.run(2 * AGAIN_SECONDS)
    assert executor.signals == ([9] if ends else [])
    assert stage.table.hosted[ACTOR_ID].final == (ends and kill[1])
    stage.recovery.listens_again()
    assert len(executor.signals) == ends, "once"


def test_the_burials_of_a_dead_node_go_on_here(stage: Stage):
    stage.records.dead.append(ACTOR_ID)
    stage.store.data[stage.node.keys.actor(ACTOR_ID)] = {"keeper": OTHER}
    stage.records.why = b"cause"
    stage.recovery.run_once()
    assert stage.burials.graves[ACTOR_ID][0] == records.ERROR + b"cause"
    assert stage.consumer.windows[ACTOR_QUEUE] == PREFETCH


def test_queues_of_the_dead_are_deleted_after_a_while_and_with_the_node(stage: Stage, monkeypatch: Any):
    stage.ends.bury(ACTOR_ID, b"E")
    stage.burials.run_once()
    assert not stage.consumer.deleted
    monkeypatch.setattr(burials_module, "KEPT_SECONDS", -1.0)
    stage.burials.run_once()
    assert stage.consumer.deleted == [ACTOR_QUEUE]
    stage.ends.bury(ACTOR_ID, b"E")
    stage.burials.close()
    assert not stage.burials.graves


def test_a_record_that_somebody_else_wrote_in_another_type_goes_with_its_actor(stage: Stage):
    stage.records.actors.append(ACTOR_ID)
    wrong = StoreError("WRONGTYPE Operation against a key holding the wrong kind of value")
    pipeline = stage.store.pipeline

    def fields(*_: Any) -> Any:
        raise wrong

    def fail(commands: Any) -> Any:
        if commands and commands[0][0] == b"HMGET":
            raise wrong
        return pipeline(commands)

    stage.records.fields = fields
    stage.store.pipeline = fail  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        stage.recovery.run_once()
    assert stage.records.forgotten == [ACTOR_ID]
    assert stage.store.aside


def test_looking_after_actors_goes_on_whatever_happens(stage: Stage):
    stage.recovery.start()
    stage.store.away = 1
    stage.loop.run(WATCH_SECONDS)
    stage.records.ids = lambda: 1 / 0
    stage.loop.run(2 * WATCH_SECONDS)
    assert stage.loop.pending == 1
