"""From messages to lanes with fakes: what is taken, refused, sent elsewhere, cancelled, dropped and given back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry.exceptions import (
    ActorUnschedulableError,
    TaskCancelledError,
    TaskUnschedulableError,
    load_task_error,
)
from rabbitry_broker import records
from rabbitry_broker.errors import ConnectionLost
from rabbitry_broker.ids import new_client_id, new_node_id
from rabbitry_broker.messages import (
    KIND_ACTOR_CALL,
    KIND_ACTOR_CREATION,
    MalformedMessage,
    decode_completion,
    decode_frames,
    decode_header,
    encode_frame,
    encode_header,
)
from rabbitry_broker.queue_names import QueueName, actor_queue, bundle_queue, node_queue, task_queue
from rabbitry_broker.resources import UNITS, ResourceRequest
from rabbitry_broker.signing import ForgedMessage
from rabbitry_workers.node.groups.bundles import Bundles
from rabbitry_workers.node.intake import handback as handbacks
from rabbitry_workers.node.intake import sources as sources_module
from rabbitry_workers.node.intake.admission import Admission
from rabbitry_workers.node.intake.affinity import Affinity
from rabbitry_workers.node.intake.cancelling import CANCELS_KEPT, Cancelling
from rabbitry_workers.node.intake.handback import HandBack
from rabbitry_workers.node.intake.inside import InsideGroups
from rabbitry_workers.node.intake.intake import Intake
from rabbitry_workers.node.intake.locality import Locality
from rabbitry_workers.node.intake.owners import CONFIRM_SECONDS, Owners
from rabbitry_workers.node.intake.sources import Sources
from rabbitry_workers.node.model.in_hand import InHand
from rabbitry_workers.node.model.lanes import State
from rabbitry_workers.node.model.work import Held
from rabbitry_workers.node.outcome.settling import Settling
from tests.workers.conftest import header, task
from tests.workers.node.fakes import OWNER, QUEUE, World, delivery, ids


class Calls:
    """Calls to actors, as a test wants them."""

    def __init__(self) -> None:
        self.delivered: list[bytes] = []
        self.cancelled: list[bytes] = []
        self.waiting: list[Any] = []

    def redelivered(self, held: Held, head: Any, tasks: Any) -> Any:
        return tasks[1:]

    def deliver(self, held: Held, header_bytes: bytes, head: Any, tasks: Any) -> None:
        self.delivered += ids(tasks)

    def cancel(self, executor: Any, task_id: bytes) -> None:
        self.cancelled.append(task_id)

    def take_waiting(self, wanted: Any) -> list[Any]:
        return [call for call in self.waiting if call[2][0] in wanted]


class FakeGroups:
    """Knows which groups are gone, because a test says so."""

    def __init__(self, bundles: Bundles) -> None:
        self.bundles = bundles
        self.gone: set[bytes] = set()

    def serves(self, place: QueueName) -> bool:
        return self.bundles.serves(place)

    def is_gone(self, group: bytes) -> bool:
        return group in self.gone

    def has_room(self, place: QueueName) -> bool:
        return self.bundles.has_room(place)

    def slots(self, place: QueueName) -> int:
        return self.bundles.slots(place)


class Door(World):
    """All of intake, and fakes of what is below it."""

    def __init__(self, cpus: float = 2.0, **options: Any) -> None:
        super().__init__(cpus, **options)
        self.in_hand = InHand(self.lanes, self.executors)
        self.calls = Calls()
        self.later: list[bytes] = []
        self.watched: list[Held] = []
        self.forgotten: list[Held] = []
        self.moved: list[Any] = []
        self.updated: list[Held] = []
        self.means: dict[bytes, float] = {}
        self.stalls = False
        self.bundles = Bundles(self.ledger)
        self.lanes.account_of = self.bundles.account_of
        self.groups = FakeGroups(self.bundles)
        self.settling = Settling(self.consumer.ack)
        self.sources = Sources(self.node, self.consumer, self.lanes, self.ledger, self.peers, self.groups)
        self.settling.on_released = self.sources.settled
        settle = self.settling.settle
        self.commits._settle = settle
        self.cancelling = Cancelling(self.node, self.in_hand, self.commits, self.failing, lambda: 0)
        self.cancelling.calls = self.calls
        self.silent: set[bytes] = set()
        self.owners = Owners(
            self.node, self.in_hand, self.lanes, self.executors, settle, lambda owner: owner in self.silent
        )
        self.owners._met[OWNER] = None
        self.affinity = Affinity(self.node, self.lanes, self.ledger, settle, self.publishing, self.failing)
        self.handback = HandBack(
            self.node, self.lanes, self.peers, settle, self.publishing, self.means, self.life, self.sources.pause,
            lambda lane: self.stalls, self.update, self.moved.append,
        )  # fmt: skip
        self.inside = InsideGroups(
            self.node, self.lanes, self.bundles, self.groups, settle, self.publishing, self.failing,
            self.sources.forget, self.handback.give_back,
        )  # fmt: skip
        self.locality = Locality(self.node, self.peers, settle, self.publishing)
        self.admission = Admission(
            self.lanes, self.life, self.cancelling, self.owners, self.affinity, self.inside, self.locality, self.serve,
            self.handback.give_back_all,
        )  # fmt: skip
        custody: Any = SimpleNamespace(watch=self.watched.append, forget=self.forgotten.append)
        self.intake = Intake(
            self.node, self.life, self.sources, self.owners, self.settling, custody, self.failing, self.calls,
            lambda held, header_bytes, head, tasks: self.later.extend(ids(tasks)), self.admission.admit,
            self.consumer.release,
        )  # fmt: skip

    def update(self, held: Held) -> None:
        if self.store.away:
            self.store.away -= 1
            raise ConnectionLost("away")
        self.updated.append(held)

    def comes(self, *numbers: int, queue: str = QUEUE, redelivered: bool = False, **fields: Any) -> None:
        head = header(fields.pop("owner", OWNER), **fields)
        frame = encode_frame(self.node.signer, encode_header(head), [task(head.owner, n) for n in numbers])
        self.intake.on_delivery(delivery(frame, queue=queue, redelivered=redelivered))

    def cancel(self, task_id: bytes, *, force: bool = False) -> None:
        self.cancelling.cancel([task_id], OWNER, force=force)
        self.loop.run(1.0)

    def waiting(self) -> list[bytes]:
        return [each for lane in self.lanes.values() for piece in lane.all_pieces() for each in ids(piece.tasks)]

    def published(self) -> list[tuple[str, list[bytes]]]:
        return [
            (queue, ids(tasks))
            for queue, body, _ in self.publishing.messages
            for _, tasks in decode_frames(self.node.signer, body)
        ]


@pytest.fixture
def door() -> Door:
    return Door()


def of(*numbers: int) -> list[bytes]:
    return ids(task(OWNER, n) for n in numbers)


# -- taking ------------------------------------------------------------------------------------------------------------


def test_tasks_come_into_their_lane_and_the_message_is_acknowledged_after_the_last(door: Door):
    door.comes(1, 2)
    assert door.waiting() == of(1, 2)
    (lane,) = door.served
    (piece,) = lane.take_all()
    assert door.watched == [piece.held]
    door.settling.settle(piece.held, 2)
    assert len(door.consumer.acknowledged) == 1


def test_nonsense_is_put_aside(door: Door):
    door.intake.on_delivery(delivery(b"nonsense"))
    assert len(door.consumer.acknowledged) == len(door.store.aside) == 1


def test_tasks_that_no_node_could_run_fail_where_there_is_somebody_to_tell(door: Door):
    door.comes(1, priority=99)
    assert list(door.failing.failed) == of(1)
    door.comes(2, priority=99, owner=b"nobody")
    assert len(door.store.aside) == 1


def test_tasks_on_which_a_part_stumbles_are_refused(door: Door):
    door.cancelling.known = None  # type: ignore[assignment]
    door.admission._cancelling = None  # type: ignore[assignment]
    door.comes(1)
    assert list(door.failing.failed) == of(1)


def test_calls_that_are_not_on_their_actors_queue_wait_for_nobody(door: Door):
    door.comes(1, kind=KIND_ACTOR_CALL, actor=b"a" * 16)
    assert not door.calls.delivered
    assert list(door.failing.failed) == of(1)


def test_a_message_is_put_aside_once_however_many_of_its_frames_are_nonsense(door: Door):
    head = header(b"nobody", priority=99)
    frame = encode_frame(door.node.signer, encode_header(head), [task(OWNER, 1)])
    door.intake.on_delivery(delivery(3 * frame))
    assert len(door.store.aside) == len(door.consumer.acknowledged) == 1


@pytest.mark.parametrize("error", [TypeError("unforeseen"), MalformedMessage("a record"), ForgedMessage("a record")])
def test_an_error_that_would_come_again_does_not_bring_the_message_back(door: Door, error: Exception):
    def stumble(*_: Any) -> None:
        raise error

    door.calls.deliver = stumble  # type: ignore[method-assign]
    door.comes(1, queue=actor_queue(b"a" * 16), kind=KIND_ACTOR_CALL, actor=b"a" * 16)
    assert list(door.failing.failed) == of(1)
    door.owners.has_met = stumble  # type: ignore[method-assign]
    if isinstance(error, TypeError):
        door.comes(2)
        assert len(door.store.aside) == len(door.consumer.acknowledged) == 1
    door.loop.run(5.0)
    assert not door.consumer.released


def test_calls_go_to_their_actors_and_those_that_come_again_are_looked_at(door: Door):
    queue = actor_queue(b"a" * 16)
    door.comes(1, 2, queue=queue, kind=KIND_ACTOR_CALL, actor=b"a" * 16)
    door.comes(3, 4, queue=queue, kind=KIND_ACTOR_CALL, actor=b"a" * 16, redelivered=True)
    assert door.calls.delivered == of(1, 2, 4)


def test_tasks_that_come_again_wait_until_it_is_known_why(door: Door):
    door.comes(1, redelivered=True)
    assert door.later == of(1)
    assert not door.waiting()


def test_a_message_that_could_not_be_looked_at_comes_again(door: Door):
    def away(*_: Any) -> None:
        raise ConnectionLost("away")

    door.calls.deliver = away  # type: ignore[method-assign]
    door.comes(1, queue=actor_queue(b"a" * 16), kind=KIND_ACTOR_CALL, actor=b"a" * 16)
    assert not door.consumer.released
    door.loop.run(1.0)
    assert len(door.consumer.released) == len(door.forgotten) == 1


def test_work_of_an_owner_that_is_not_known_yet_waits_for_it(door: Door):
    owner = new_client_id()
    door.silent.add(owner)
    door.store.data[door.node.keys.client(owner)] = b""
    door.comes(1, owner=owner)
    door.loop.run(1.0)
    assert not door.waiting()
    door.silent.clear()
    door.loop.run(1.0)
    assert len(door.waiting()) == 1


def test_a_leaving_node_gives_a_message_back_whose_owner_it_does_not_know(door: Door):
    owner = new_client_id()
    door.silent.add(owner)
    door.store.data[door.node.keys.client(owner)] = b""
    door.life.drain()
    door.comes(1, owner=owner)
    door.loop.run(1.0)
    assert len(door.consumer.released) == 1


def test_a_leaving_node_gives_what_comes_to_others(door: Door):
    door.life.drain()
    door.comes(1)
    assert door.published() == [(QUEUE, of(1))]
    assert not door.served


# -- cancelling --------------------------------------------------------------------------------------------------------


def test_what_was_cancelled_before_it_came_fails(door: Door):
    door.cancel(of(1)[0])
    door.comes(1, 2)
    assert door.waiting() == of(2)
    assert set(door.failing.failed) == set(of(1))


def test_what_waits_fails_and_the_rest_goes_on(door: Door):
    door.comes(1, 2)
    door.cancel(of(1)[0])
    assert door.waiting() == of(2)
    assert isinstance(load_task_error(door.failing.failed[of(1)[0]][1:]), TaskCancelledError)
    assert next(iter(door.lanes.values())).waiting == 1


@pytest.mark.parametrize("force", [False, True])
def test_what_runs_is_interrupted_or_killed(door: Door, force: bool):
    executor = door.executor()
    door.chunk(executor)
    executor.progress.started[0] = 1
    door.cancel(of(1)[0], force=force)
    assert executor.signals == ([9] if force else [2])
    assert executor.cancelled == set(of(1))
    ((client, note),) = door.store.told
    assert decode_completion(door.node.signer, client, note).ended == of(1)


def test_what_was_sent_and_not_begun_is_skipped_and_interrupted_if_it_begins_all_the_same(door: Door):
    executor = door.executor()
    door.chunk(executor, 2)
    executor.progress.started[0] = 1
    door.cancel(of(2)[0])
    assert executor.skipped == of(2)
    assert of(2)[0] in door.commits.results
    executor.progress.started[0] = 2
    door.cancelling.interrupt_dropped(executor)
    door.cancelling.interrupt_dropped(executor)
    assert executor.signals == [2]
    executor.chunks.clear()
    door.cancelling.interrupt_dropped(executor)
    assert not executor.dropped


def test_calls_are_cancelled_by_their_actors(door: Door):
    executor = door.executor(state=State.ACTOR)
    executor.actor = b"a" * 16
    door.chunk(executor)
    door.cancel(of(1)[0])
    assert door.calls.cancelled == of(1)
    door.calls.waiting.append((Held(None), header(OWNER), task(OWNER, 5)))
    door.cancel(of(5)[0])
    assert list(door.failing.failed) == of(5)
    assert not door.cancelling.known


def test_what_cannot_be_cancelled_now_is_later(door: Door):
    door.chunk(door.executor())
    door.commits.away = 1
    door.cancel(of(1)[0])
    assert not door.commits.results
    door.loop.run(2.0)
    assert list(door.commits.results) == of(1)


def test_few_cancellations_are_kept_and_those_of_before_are_learned(door: Door):
    door.store.data[door.node.keys.cancelled] = {b"before": 1.0}
    door.cancelling.start()
    assert b"before" in door.cancelling.known
    for number in range(CANCELS_KEPT + 5):
        door.cancelling.cancel(b"%d" % number, OWNER, force=False)
    door.loop.run(1.0)
    door.cancel(b"the last")
    assert len(door.cancelling.known) <= CANCELS_KEPT + 1


# -- owners ------------------------------------------------------------------------------------------------------------


def test_work_whose_owner_is_gone_is_dropped_and_its_executor_ends(door: Door):
    door.comes(1)
    executor = door.executor(state=State.LEASED)
    chunk = door.chunk(executor, first=5)
    executor.progress.started[0] = 1
    door.owners.start()
    door.loop.run(1.0)
    assert OWNER in door.owners.gone
    assert not door.waiting()
    assert executor.signals == [9]
    assert set(ids(chunk.tasks)) <= executor.cancelled


def test_an_owner_whose_lease_only_has_ended_is_made_known_as_dead_the_next_time(door: Door):
    door.comes(1)
    door.store.data[door.node.keys.clients] = {OWNER: 5.0}
    door.owners.run_once()
    assert door.waiting()
    door.owners._missing[OWNER] -= CONFIRM_SECONDS
    door.store.renewed.add(OWNER)
    door.owners.run_once()
    assert door.waiting(), "it renewed its lease since"
    door.store.renewed.clear()
    door.owners.run_once()
    assert not door.waiting()
    assert door.store.gone == [OWNER], "others are told"


def test_an_owner_that_is_met_after_its_lease_has_ended_is_made_known_as_dead(door: Door):
    unknown = new_client_id()
    door.store.data[door.node.keys.clients] = {unknown: 5.0}
    assert not door.owners.has_met(header(unknown))
    door.owners._unmet[unknown] -= CONFIRM_SECONDS
    assert door.owners.has_met(header(unknown))
    assert door.store.gone == [unknown] == list(door.owners.gone)


def test_work_of_an_owner_leaves_when_its_end_is_told(door: Door):
    door.sources.consider(QUEUE)
    door.comes(1)
    source = door.sources.by_queue[QUEUE]
    assert source.outstanding == 1
    door.store.data[door.node.keys.client(OWNER)] = b""
    door.owners.told([new_client_id(), OWNER])
    assert door.waiting(), "it is not so"
    del door.store.data[door.node.keys.client(OWNER)]
    door.owners.told([new_client_id()])
    assert door.waiting(), "it is about others"
    door.owners.told([new_client_id(), OWNER])
    assert not door.waiting()
    assert source.outstanding == 0
    assert len(door.consumer.acknowledged) == 1


def test_nobody_is_gone_while_leases_are_not_trusted(door: Door):
    door.comes(1)
    door.store.trusted = False
    door.owners.run_once()
    assert door.waiting()
    assert door.owners.has_met(header(new_client_id()))


def test_detached_work_and_that_of_living_owners_is_taken_and_that_of_the_dead_is_known(door: Door):
    alive, dead, unknown = new_client_id(), new_client_id(), new_client_id()
    door.store.data[door.node.keys.client(alive)] = b""
    door.store.data[door.node.keys.clients] = {unknown: 5.0}
    assert door.owners.has_met(header(dead, lifetime="detached"))
    assert door.owners.has_met(header(alive))
    assert not door.owners.has_met(header(unknown))
    assert door.owners.has_met(header(dead))
    assert list(door.owners.gone) == [dead]
    assert door.owners.is_gone(header(dead))
    door.comes(1, owner=dead)
    assert not door.waiting()


# -- tasks for one node ------------------------------------------------------------------------------------------------


def on_node_queue(door: Door, node_id: bytes, **fields: Any) -> None:
    queue = node_queue(node_id)
    door.sources.consider(queue)
    door.comes(1, queue=queue, **fields)


def test_tasks_for_this_node_run_here(door: Door):
    on_node_queue(door, door.node.id)
    assert door.waiting() == of(1)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"elsewhere": QUEUE}, "elsewhere"),
        ({}, "fails"),
        ({"kind": KIND_ACTOR_CREATION, "actor": b"a" * 16, "extra": b""}, "fails"),
    ],
)
def test_tasks_of_a_node_that_is_gone_are_seen_to(door: Door, fields: dict[str, Any], where: str):
    head = header(OWNER, **fields)
    held = Held(delivery(queue=node_queue(new_node_id())))
    assert not door.affinity.runs_here(held, encode_header(head), head, [task(OWNER, 1)])
    assert (bool(door.publishing.messages), bool(door.failing.failed)) == (where == "elsewhere", where == "fails")
    if where == "fails":
        creates = head.kind == KIND_ACTOR_CREATION
        assert isinstance(door.failing.failed[of(1)[0]], ActorUnschedulableError if creates else TaskUnschedulableError)
    door.publishing.confirm()
    door.loop.run()
    assert held.outstanding == (1 if where == "fails" else 0)


@pytest.mark.parametrize("fields", [{"resources": "CPU=64"}, {"resources": "CPU=2", "impatient": True}])
def test_tasks_that_this_node_cannot_run_now_or_ever_go_elsewhere(door: Door, fields: dict[str, Any]):
    if fields.get("impatient"):
        door.ledger.acquire(door.node.totals)
    on_node_queue(door, door.node.id, elsewhere=QUEUE, **fields)
    assert door.published() == [(QUEUE, of(1))]


# -- queues of several jobs --------------------------------------------------------------------------------------------


def test_a_queue_that_was_deleted_is_taken_from_when_it_is_announced_anew(door: Door, monkeypatch: Any):
    now = [100.0]
    monkeypatch.setattr(sources_module.time, "monotonic", lambda: now[0])
    door.sources.consider(QUEUE)
    door.consumer.windows.clear()
    door.sources.gone(QUEUE)
    door.sources.consider(QUEUE, announced=False)
    assert not door.consumer.windows, "it may still be on record"
    door.sources.consider(QUEUE)
    assert QUEUE in door.consumer.windows
    door.consumer.windows.clear()
    door.sources.gone(QUEUE)
    now[0] += sources_module.GONE_SECONDS
    door.sources.consider(QUEUE, announced=False)
    assert QUEUE in door.consumer.windows, "its announcement was missed"


def test_a_queue_that_is_consumed_stays_on_record_and_its_use_is_told_now_and_then(door: Door, monkeypatch: Any):
    now = [100.0]
    monkeypatch.setattr(sources_module.time, "monotonic", lambda: now[0])
    keys = door.node.keys
    door.sources.consider(QUEUE)
    door.sources.tidy([])
    assert (b"SADD", keys.queues, QUEUE) in door.store.sent
    assert QUEUE in door.store.data[keys.used]
    door.store.data.clear()
    door.sources.tidy([QUEUE.encode()])
    now[0] += 2 * sources_module.USED_SECONDS
    door.sources.tidy([QUEUE.encode()])
    assert keys.used not in door.store.data, "nothing came meanwhile"
    door.comes(1)
    now[0] += 2 * sources_module.USED_SECONDS
    door.sources.tidy([QUEUE.encode()])
    assert QUEUE in door.store.data[keys.used], "what came is not done"


def test_a_job_whose_queue_is_paused_has_its_turn_although_room_is_never_seen(door: Door):
    own, job = task_queue("CPU=1", job=b"2222"), b"2222"
    door.peers.room = False
    for queue in (QUEUE, own):
        door.sources.consider(queue)
        door.sources.pause(door.sources.by_queue[queue])
    assert not door.consumer.windows
    taken = [door.ledger.acquire(ResourceRequest.parse("CPU=1")) for _ in range(2)]
    door.sources.on_room()
    assert not door.consumer.windows, "nothing waits that could take it"
    door.wait(1)
    door.sources.on_room()
    assert door.consumer.windows == {own: 1}
    door.wait(1, job=job)
    door.sources.pause(door.sources.by_queue[own])
    door.sources.on_room()
    assert not door.consumer.windows, "one is here"
    door.lanes.of(door.wait(0, job=job).header).take_all()
    door.peers.room = True
    door.sources.on_room()
    assert not door.consumer.windows, "another node has room for it"
    assert all(taken)


def test_a_queue_for_some_bundles_is_found_when_one_of_them_comes_here(door: Door):
    group = b"g" * 18
    some = bundle_queue(group, -1, [1, 2])
    door.sources.consider(some)
    assert not door.consumer.windows, "none of them is here"
    door.bundles.reserve(group, b"t", {0: ResourceRequest.parse("CPU=1")})
    door.sources.reconsider(group)
    assert not door.consumer.windows, "another one is"
    door.bundles.reserve(group, b"t", {1: ResourceRequest.parse("CPU=1")})
    door.bundles.hold(group)
    door.sources.reconsider(group)
    assert list(door.consumer.windows) == [some], "nobody announces it again"
    assert door.sources.shared_groups() == [group]
    door.bundles.close(door.bundles.of(group))
    door.sources.reconsider(group)
    assert not door.consumer.windows
    door.groups.gone.add(group)
    door.sources.reconsider(group)
    assert list(door.consumer.windows) == [some], "what waits there is to fail"


def test_queues_for_some_bundles_are_forgotten_with_their_record(door: Door):
    some = bundle_queue(b"g" * 18, -1, [1, 2])
    door.sources.consider(some)
    door.sources.tidy([some.encode()])
    assert door.sources._of_some
    door.sources.tidy(None)
    assert door.sources._of_some
    door.sources.tidy([])
    assert not door.sources._of_some


# -- giving back -------------------------------------------------------------------------------------------------------


def test_what_waits_for_long_goes_to_a_node_that_has_room_and_its_source_pauses(door: Door, monkeypatch: Any):
    now = [100.0]
    for module in (handbacks, sources_module):
        monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    door.sources.consider(QUEUE)
    door.comes(1)
    door.handback.run_once()
    assert door.waiting()
    now[0] += 1.0
    door.handback.run_once()
    now[0] += 1.0
    door.handback.run_once()
    assert not door.waiting()
    assert door.published() == [(QUEUE, of(1))]
    assert QUEUE not in door.consumer.windows
    assert door.handback.unconfirmed == 1
    door.publishing.confirm()
    door.loop.run()
    assert len(door.consumer.acknowledged) == 1
    door.sources.on_room()
    assert door.consumer.windows[QUEUE] == 2


def test_nothing_goes_back_when_nobody_else_has_room_or_blocked_tasks_wait_for_it(door: Door, monkeypatch: Any):
    now = [100.0]
    monkeypatch.setattr(handbacks.time, "monotonic", lambda: now[0])
    door.sources.consider(QUEUE)
    door.peers.room, door.stalls = False, True
    door.comes(1)
    for _ in range(3):
        now[0] += 1.0
        door.handback.run_once()
    assert door.waiting()
    assert QUEUE in door.consumer.windows
    door.stalls = door.peers.has_others = False
    door.handback.run_once()
    assert QUEUE in door.consumer.windows, "what is kept from nobody need not pause"
    door.peers.has_others = True
    door.handback.run_once()
    assert QUEUE not in door.consumer.windows


def test_what_has_priorities_goes_back_so_that_the_most_urgent_comes_first(door: Door, monkeypatch: Any):
    now = [100.0]
    monkeypatch.setattr(handbacks.time, "monotonic", lambda: now[0])
    door.peers.has_others = False
    door.sources.consider(QUEUE, prioritized=True)
    door.comes(1, priority=3)
    now[0] += 1.0
    door.handback.run_once()
    assert door.publishing.messages[0][2] == 3


def test_what_may_run_once_loses_its_mark_before_it_goes_back(door: Door):
    piece = door.wait(2, max_retries=0)
    piece.marked = 1
    key = door.node.keys.starts(OWNER)
    door.store.data[key] = dict.fromkeys(of(1, 2), b"x")
    door.lanes.of(piece.header).remove(piece)
    assert door.handback.give_back(piece)
    assert list(door.store.data[key]) == of(2)
    assert door.moved == [piece.header]


def test_what_a_node_can_run_no_more_goes_back_and_its_queue_is_left(door: Door):
    asks = task_queue("CPU=1,license=1")
    door.ledger.set_total("license", UNITS)
    for queue, resources in ((QUEUE, "CPU=1"), (asks, "CPU=1,license=1")):
        door.sources.consider(queue)
        door.comes(1, resources=resources, queue=queue)
    door.ledger.set_total("license", 0)
    door.sources.forget_unserved()
    door.handback.give_back_unserved(door.ledger.can_ever)
    assert [queue for queue, _, _ in door.publishing.messages] == [asks]
    assert list(door.consumer.windows) == [QUEUE]
    assert door.waiting() == of(1)


def test_what_cannot_go_back_now_does_later(door: Door):
    door.comes(1)
    door.store.away = 1
    door.life.drain()
    door.handback.give_back_all()
    assert door.waiting() == of(1)
    door.loop.run(1.0)
    assert not door.waiting()


def test_quick_tasks_go_back_in_one_message(door: Door):
    piece = door.wait(10)
    door.means[piece.header.function] = 0.001
    door.handback.give_back(piece)
    assert len(door.publishing.messages) == 1


# -- sources -----------------------------------------------------------------------------------------------------------


def test_queues_that_fit_are_consumed_and_others_are_not(door: Door):
    for queue in (QUEUE, "task.CPU=64", "task.GPU=1", "nonsense", node_queue(door.node.id)):
        door.sources.consider(queue)
    assert set(door.consumer.windows) == {QUEUE, node_queue(door.node.id)}
    door.sources.consider(QUEUE, prioritized=True)
    assert door.sources.by_queue[QUEUE].prioritized
    door.sources.close()
    door.sources.consider(QUEUE)
    assert not door.consumer.windows


def test_the_queue_of_a_dead_node_is_looked_after_until_nothing_comes(door: Door, monkeypatch: Any):
    queue = node_queue(new_node_id())
    door.sources.consider(queue)
    assert queue in door.consumer.windows
    monkeypatch.setattr(sources_module, "ORPHAN_SECONDS", -1.0)
    door.sources.tidy([queue.encode()])
    assert queue not in door.consumer.windows
    door.sources.consider(queue, announced=False)
    assert queue not in door.consumer.windows
    door.sources.consider(queue)
    assert queue in door.consumer.windows
    door.peers.alive.add(door.sources.by_queue[queue].place.id)
    door.sources.tidy([])
    assert queue not in door.consumer.windows


def test_among_several_nodes_the_embedded_engine_begins_narrow_and_widens_when_messages_are_done_quickly():
    door = Door(embedded=True)
    door.sources.consider(QUEUE)
    assert door.consumer.windows[QUEUE] == 2
    door.comes(1)
    door.comes(2)
    (first, _) = [piece for lane in door.lanes.values() for piece in lane.take_all()]
    door.settling.settle(first.held, 1)
    assert door.sources.by_queue[QUEUE].window == 4


def test_more_is_taken_for_blocked_tasks_and_windows_shrink_when_none_is(door: Door):
    door.sources.consider(QUEUE)
    before = door.sources.widest
    door.sources.by_queue[QUEUE].filled = True
    assert door.sources.take_more("CPU=1")
    assert not door.sources.take_more("CPU=1")
    door.sources.allow_for_blocked(before)
    assert door.consumer.windows[QUEUE] > before
    door.sources.forget_blocked()
    assert door.consumer.windows[QUEUE] == door.sources.widest == before
    door.sources.forget_blocked()


# -- locality ----------------------------------------------------------------------------------------------------------

FAR, FURTHER, HERE = b"f" * 16, b"g" * 16, b"h" * 16  # hosts; `World` is on the last


def large(host: bytes, mebibytes: float) -> bytes:
    return records.large(
        records.Manifest(b"", [int(mebibytes * 2**20)], 1, host, "session", [], token=b"t" * records.TOKEN_BYTES)
    )


def with_arguments(door: Door, *found: bytes, stored: tuple[bytes, ...] = (), **fields: Any) -> None:
    """A task comes, some of whose arguments' records came along; the others are in the store."""
    ids_ = [OWNER + bytes([at]) * 16 for at in range(1, len(found) + len(stored) + 1)]
    along = dict(zip(ids_, found, strict=False))
    door.store.results.update(zip(ids_[len(found) :], stored, strict=True))
    head = header(OWNER, **fields)
    one = (*task(OWNER, 1)[:3], ids_, along, 0)
    door.intake.on_delivery(delivery(encode_frame(door.node.signer, encode_header(head), [one])))


@pytest.fixture
def spread() -> Door:
    """A node of a cluster with other hosts, each of which has room for one task."""
    door = Door()
    door.peers.on_other_hosts = True
    door.peers.room_at = {FAR: [b"f" * 28], FURTHER: [b"g" * 28]}
    door.sources.consider(QUEUE)
    return door


def test_a_task_goes_where_most_of_its_large_arguments_are(spread: Door):
    with_arguments(spread, large(HERE, 4), stored=(large(FAR, 8), large(FURTHER, 6), records.plain(b"x")))
    assert spread.waiting() == []
    ((queue, sent, _),) = spread.publishing.messages
    assert queue == node_queue(b"f" * 28)
    ((head, tasks),) = decode_frames(spread.node.signer, sent)
    assert ids(tasks) == of(1)
    assert (decode_header(head).elsewhere, decode_header(head).impatient) == (QUEUE, True)
    assert not spread.consumer.acknowledged
    spread.publishing.confirm()
    spread.loop.run(0.1)
    assert len(spread.consumer.acknowledged) == 1


def test_the_next_best_host_will_do_if_the_best_has_no_room(spread: Door):
    del spread.peers.room_at[FAR]
    with_arguments(spread, large(FAR, 8), large(FURTHER, 4))
    assert spread.publishing.messages[0][0] == node_queue(b"g" * 28)


@pytest.mark.parametrize(
    ("found", "fields"),
    [
        ((large(HERE, 8), large(FAR, 8)), {}),  # no less to be copied
        ((large(FAR, 0.5),), {}),  # not worth it
        ((large(b"", 8),), {}),  # in the store alone
        ((records.plain(b"x"), records.NONE), {}),
        ((large(b"another", 8),), {}),  # no room there, or no node
        ((large(FAR, 8),), {"elsewhere": QUEUE}),  # it was sent on before
        ((records.LARGE + b"rubbish",), {}),
        ((b"",), {}),
    ],
)
def test_a_task_stays_where_it_is_if_it_was_no_better_elsewhere(spread: Door, found: Any, fields: Any):
    with_arguments(spread, *found, **fields)
    assert spread.waiting() == of(1)
    assert not spread.publishing.messages


def test_a_task_stays_if_redis_cannot_say_where_its_arguments_are(spread: Door, monkeypatch: pytest.MonkeyPatch):
    def away(_: Any) -> Any:
        raise ConnectionLost("away")

    monkeypatch.setattr(spread.store, "fetch", away)
    with_arguments(spread, large(FAR, 8), stored=(large(FAR, 8),))
    assert spread.waiting() == of(1)


def test_a_cluster_on_one_host_looks_at_no_arguments(spread: Door, monkeypatch: pytest.MonkeyPatch):
    spread.peers.on_other_hosts = False
    monkeypatch.setattr(spread.store, "fetch", None)
    with_arguments(spread, large(FAR, 8), stored=(large(FAR, 8),))
    assert spread.waiting() == of(1)
