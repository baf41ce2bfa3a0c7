"""What becomes of tasks, part by part: settling, commits, publishing, doubts, shadows, redelivery, continuations."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry.exceptions import NodeDiedError, OwnerDiedError, TaskUnschedulableError, load_task_error
from rabbitry_broker.errors import ConnectionLost, StoreError
from rabbitry_broker.ids import FIRST_INDEX, new_client_id
from rabbitry_broker.messages import KIND_ACTOR_CREATION, decode_completion, encode_frame, encode_header
from rabbitry_workers.node.model.in_hand import InHand
from rabbitry_workers.node.model.work import Held
from rabbitry_workers.node.outcome.commits import Commits
from rabbitry_workers.node.outcome.continuations import Continuations
from rabbitry_workers.node.outcome.doubts import Doubts
from rabbitry_workers.node.outcome.failing import Failing
from rabbitry_workers.node.outcome.publishing import Publishing, announce_queue
from rabbitry_workers.node.outcome.redelivery import Redelivery
from rabbitry_workers.node.outcome.settling import Settling
from rabbitry_workers.node.outcome.shadows import ShadowDeliveries
from tests.workers.conftest import header, task
from tests.workers.node.fakes import OWNER, QUEUE, World, delivery, ids

OTHER = b"n" * 28


@pytest.fixture
def world() -> World:
    return World()


# -- settling ----------------------------------------------------------------------------------------------------------


class Heard:
    def __init__(self) -> None:
        self.acknowledged: list[Any] = []
        self.order: list[str] = []
        self.settling = Settling(self.ack)
        self.settling.on_settled = lambda _: self.order.append("settled")
        self.settling.on_released = lambda _: self.order.append("released")
        self.settling.on_continued = lambda _: self.order.append("continued")

    def ack(self, each: Any) -> None:
        self.acknowledged.append(each)
        self.order.append("ack")


def test_a_delivery_is_acknowledged_after_its_last_task_and_everybody_is_told():
    heard, held = Heard(), Held(delivery())
    held.outstanding = 3
    heard.settling.settle(held, 2)
    assert not heard.order
    heard.settling.settle(held, 1)
    assert heard.order == ["settled", "ack", "released"]


def test_one_in_custody_was_acknowledged_before():
    heard, held = Heard(), Held(delivery())
    heard.settling.release(held)
    assert heard.order == ["ack", "released"]
    held.custody = b"field"
    held.outstanding = 1
    heard.settling.settle(held, 1)
    assert len(heard.acknowledged) == 1


def test_the_end_of_a_continuation_is_told_and_that_of_a_restart_is_nobodys_business():
    heard, held = Heard(), Held(None, QUEUE)
    held.outstanding = 2
    heard.settling.settle(held, 1)
    held.continues = (b"spec", b"{t}", b"s")
    heard.settling.settle(held, 1)
    assert heard.order == ["continued"]
    heard.settling.settle(Held(None, QUEUE), 0)
    assert heard.order == ["continued"]


# -- commits -----------------------------------------------------------------------------------------------------------


def test_an_error_becomes_every_result_and_the_owner_is_told_of_the_end(world: World):
    commits = Commits(world.node, world.publishing, world.settle)
    held, head, each = Held(None, QUEUE), header(OWNER, num_returns=3), task(OWNER, 1)
    held.outstanding = 1
    commits.commit_error(held, head, each, TaskUnschedulableError("no"), outstanding=True)
    assert len(world.store.results) == 3
    assert held.outstanding == 0
    assert isinstance(load_task_error(world.store.results[each[0] + FIRST_INDEX][1:]), TaskUnschedulableError)


def test_many_tasks_are_committed_in_one_step_for_each_owner(world: World):
    commits = Commits(world.node, world.publishing, world.settle)
    held, other = Held(None, QUEUE), new_client_id()
    failed: list[Any] = [(held, header(owner), task(owner, at), b"E") for owner in (OWNER, other) for at in range(9)]
    commits.commit_records(failed)
    assert [(owner, len(items)) for owner, items, _ in world.store.committed] == [(OWNER, 18), (other, 18)]


def test_results_under_anothers_tag_are_told_to_the_client(world: World):
    commits = Commits(world.node, world.publishing, world.settle)
    other = new_client_id()
    commits.commit(Held(None), header(OWNER), [task(other, 1)[0] + FIRST_INDEX, b"N"], [task(OWNER, 1)[0]])
    ((client, entry),) = world.store.told
    assert client == OWNER
    assert decode_completion(world.node.signer, OWNER, entry).ended == [task(OWNER, 1)[0]]


def test_what_a_commit_released_is_published_and_who_waited_is_told(world: World):
    commits = Commits(world.node, world.publishing, world.settle)
    held, key = Held(None), task(OWNER, 1)[0] + FIRST_INDEX
    waits, dependant = new_client_id(), (b"spec", b"frame", QUEUE, 0, b"{t}", b"s")
    world.store.left = ([dependant], [(waits, key[len(OWNER) :])])
    commits.commit(held, header(OWNER), [key, b"N"], [])
    assert world.publishing.released == [([held], [dependant], False)]
    assert decode_completion(world.node.signer, waits, world.store.told[-1][1]).items == [key, b"N"]


def test_what_a_result_released_that_stood_before_is_published_unless_it_has_ended(world: World):
    commits = Commits(world.node, world.publishing, world.settle)
    commits.not_ended = lambda released: []
    world.store.left = ([(b"spec", b"frame", QUEUE, 0, b"{t}", b"s")], [])
    commits.commit(Held(None), header(OWNER), [task(OWNER, 1)[0] + FIRST_INDEX, b"N"], [], stands=True)
    assert not world.publishing.released
    assert world.store.committed[0][2] is False


def test_objects_of_the_dead_become_errors(world: World):
    commits = Commits(world.node, world.publishing, world.settle)
    key = task(OWNER, 1)[0] + FIRST_INDEX
    commits.orphan([key])
    assert isinstance(load_task_error(world.store.results[key][1:]), OwnerDiedError)


# -- publishing --------------------------------------------------------------------------------------------------------


def publishing_of(world: World, *, abandoned: bool = False) -> Publishing:
    return Publishing(world.node, world.publisher, world.settle, lambda queue: abandoned)


@pytest.mark.parametrize("noted", [False, True])
def test_releasers_are_settled_when_the_broker_has_all_that_they_released(world: World, noted: bool):
    held = Held(None)
    dependants: list[Any] = [(b"spec%d" % at, b"frame", QUEUE, 0, b"{t}", b"s") for at in range(2)]
    world.store.data[world.node.keys.continuations(world.node.id)] = {b"spec0": b"x"}
    publishing_of(world).publish_dependants([held], dependants, noted=noted)
    assert held.outstanding == 1
    world.publisher.unconfirmed.pop()()
    world.loop.run()
    assert held.outstanding == 1
    world.store.away = 1
    world.publisher.confirm()
    world.loop.run()
    assert held.outstanding == 1  # the specs are still there
    world.loop.run(1.0)
    assert held.outstanding == 0
    assert world.store.forgotten == dependants
    assert (world.node.keys.continuations(world.node.id) in world.store.data) is not noted


def test_what_cannot_be_published_now_is_later(world: World):
    world.publisher.away = 2
    publishing_of(world).publish(QUEUE, b"frame", 3)
    world.loop.run(2.0)
    assert world.publisher.messages == [(QUEUE, b"frame", 3)]
    world.publisher.away = 1
    with pytest.raises(ConnectionLost):
        publishing_of(world).publish_now(QUEUE, b"frame", 0)


def test_an_abandoned_queue_is_announced_again(world: World):
    publishing_of(world, abandoned=True).publish(QUEUE, b"", 0)
    assert world.store.announced == [QUEUE]


def test_a_queue_is_announced_though_somebody_wrote_in_the_place_of_the_others(world: World, monkeypatch: Any):
    from rabbitry_workers.node.outcome import publishing

    announce, tries = world.store.announce_queue, iter([StoreError("WRONGTYPE Operation against a key"), None])

    def fail(queue: str) -> None:
        error = next(tries)
        if error is not None:
            raise error
        announce(queue)

    world.store.announce_queue = fail  # type: ignore[method-assign]
    monkeypatch.setattr(publishing, "put_aside_wrong_types", lambda store: 1)
    announce_queue(world.node, QUEUE)
    assert world.store.announced == [QUEUE]


# -- failing -----------------------------------------------------------------------------------------------------------


def test_a_creation_that_can_never_be_run_refuses_the_actor_when_redis_is_back(world: World):
    refused: list[Any] = []
    tries = iter([ConnectionLost("away"), None])

    def refuse(held: Held, head: Any, creation: Any, cause: bytes) -> None:
        error = next(tries)
        if error is not None:
            raise error
        refused.append(head.actor)
        world.settle(held, 1)

    failing = Failing(world.node, world.settle, world.commits, refuse, lambda: None)
    held = Held(None)
    held.outstanding = 1
    head = header(OWNER, kind=KIND_ACTOR_CREATION, actor=b"a" * 16)
    failing.fail_tasks(held, head, [task(OWNER, 1)], TaskUnschedulableError("no"))
    assert not refused
    world.loop.run(1.0)
    assert refused == [b"a" * 16]
    assert held.outstanding == 0


def test_tasks_that_can_never_be_run_fail(world: World):
    done: list[int] = []
    failing = Failing(world.node, world.settle, world.commits, lambda *_: None, lambda: done.append(1))
    held = Held(None)
    held.outstanding = 1
    failing.fail_tasks(held, header(OWNER), [task(OWNER, 1)], TaskUnschedulableError("no"))
    assert task(OWNER, 1)[0] in world.commits.results
    assert (held.outstanding, done) == (0, [1])


def test_a_task_on_which_the_commit_stumbles_keeps_no_other(world: World):
    failing = Failing(world.node, world.settle, world.commits, lambda *_: None, lambda: None)
    commit, odd = world.commits.commit_records, task(OWNER, 2)[0]

    def stumble(failed: list[Any]) -> None:
        if any(each[0] == odd for _, _, each, _ in failed):
            raise TypeError("unforeseen")
        commit(failed)

    world.commits.commit_records = stumble  # type: ignore[method-assign]
    held = Held(None)
    held.outstanding = 3
    failing.fail_tasks(held, header(OWNER), [task(OWNER, n) for n in (1, 2, 3)], TaskUnschedulableError("no"))
    assert list(world.commits.results) == [task(OWNER, n)[0] for n in (1, 3)]
    assert held.outstanding == 0
    assert not failing


# -- doubts ------------------------------------------------------------------------------------------------------------


class Doubted:
    def __init__(self, world: World, started_by: bytes | None) -> None:
        self.world = world
        self.admitted: list[bytes] = []
        self.doubts = Doubts(
            world.node, world.settle, world.commits, world.peers.is_alive,
            lambda held, header_bytes, head, tasks: self.admitted.extend(ids(tasks)),
        )  # fmt: skip
        self.held, self.task = Held(None), task(OWNER, 1)
        self.held.outstanding = 1
        if started_by is not None:
            world.store.starts[self.task[0]] = started_by
        head = header(OWNER, max_retries=0)
        self.doubts.add(self.held, encode_header(head), head, self.task)


def test_a_doubt_stays_while_the_node_that_started_it_lives(world: World):
    world.peers.alive.add(OTHER)
    doubted = Doubted(world, OTHER)
    doubted.doubts.start()
    world.loop.run(10.0)
    assert doubted.held.outstanding == 1
    world.store.results[doubted.task[0] + FIRST_INDEX] = b"N"
    world.loop.run(1.0)
    assert doubted.held.outstanding == 0
    assert not world.commits.results


def test_a_doubt_fails_when_that_node_is_gone(world: World):
    doubted = Doubted(world, OTHER)
    doubted.doubts.run_once()
    assert isinstance(world.commits.results[doubted.task[0]], NodeDiedError)


def test_a_doubt_runs_when_that_node_gave_it_back(world: World):
    doubted = Doubted(world, None)
    doubted.doubts.run_once()
    assert doubted.admitted == [doubted.task[0]]
    assert doubted.held.outstanding == 0


def test_doubts_stay_when_redis_is_away(world: World):
    doubted = Doubted(world, None)
    world.store.away = 1
    with pytest.raises(ConnectionLost):
        doubted.doubts.run_once()
    doubted.doubts.run_once()
    assert doubted.admitted


# -- shadows and redelivery --------------------------------------------------------------------------------------------


class Again:
    def __init__(self, world: World) -> None:
        self.world = world
        self.admitted: list[bytes] = []
        self.awaited = False
        self.in_hand = InHand(world.lanes, world.executors)
        self.shadows = ShadowDeliveries(self.in_hand, world.settle)
        self.redelivery = Redelivery(
            world.node, world.settle, world.commits, self.shadows, world.peers,
            lambda held, header_bytes, head, tasks: self.admitted.extend(ids(tasks)), lambda actor: self.awaited,
        )  # fmt: skip


@pytest.mark.parametrize("where", ["lane", "executor", "elsewhere"])
def test_what_is_in_hand_is_not_taken_twice_wherever_it_is(world: World, where: str):
    again = Again(world)
    if where == "lane":
        world.wait(1)
    elif where == "executor":
        world.chunk(world.executor())
    else:
        again.in_hand.watch(lambda: [task(OWNER, 1)[0]])
    held = Held(delivery())
    left = again.shadows.not_held_here(held, header(OWNER), [task(OWNER, 1), task(OWNER, 2)])
    assert ids(left) == [task(OWNER, 2)[0]]
    assert held.outstanding == 1
    again.shadows.settle_ended()
    assert held.outstanding == 1
    world.lanes.clear()
    world.executors.clear()
    again.in_hand._elsewhere.clear()
    again.shadows.settle_ended()
    assert held.outstanding == 0


def test_tasks_that_come_again_are_taken_a_little_later(world: World):
    again, held, head = Again(world), Held(delivery()), header(OWNER)
    world.store.away = 1
    again.redelivery.take_later(held, encode_header(head), head, [task(OWNER, 1)])
    assert not again.admitted
    world.loop.run(2.0)
    assert again.admitted == [task(OWNER, 1)[0]]
    assert held.outstanding == 0


def test_tasks_that_come_again_and_cannot_be_taken_are_put_aside(world: World):
    again, held, head = Again(world), Held(delivery()), header(OWNER)

    def stumble(*_: Any) -> None:
        raise TypeError("unforeseen")

    again.redelivery._admit = stumble
    again.redelivery.take_later(held, encode_header(head), head, [task(OWNER, 1)])
    world.loop.run(2.0)
    assert len(world.store.aside) == 1
    assert held.outstanding == 0


def test_a_result_that_stands_is_told_again(world: World):
    again, done = Again(world), task(OWNER, 1)
    world.store.results[done[0] + FIRST_INDEX] = b"N"
    left = again.redelivery.recheck(Held(None), header(OWNER), [done, task(OWNER, 2)])
    assert ids(left) == [task(OWNER, 2)[0]]
    assert world.commits.stands == [done[0]]


def test_an_actor_that_is_to_be_restarted_is_created_though_its_first_result_stands(world: World):
    again, creation = Again(world), task(OWNER, 1)
    again.awaited = True
    world.store.results[creation[0] + FIRST_INDEX] = b"A"
    head = header(OWNER, kind=KIND_ACTOR_CREATION, actor=b"a" * 16)
    assert again.redelivery.recheck(Held(None), head, [creation]) == [creation]


@pytest.mark.parametrize(("lost", "attempts"), [(False, 0), (True, 1)])
def test_an_attempt_is_counted_if_a_node_was_lost(world: World, lost: bool, attempts: int):
    again = Again(world)
    world.peers.lost = lost
    ((_, _, counted, *_),) = again.redelivery.recheck(Held(None), header(OWNER, max_retries=2), [task(OWNER, 1)])
    assert counted == attempts


def test_a_task_that_lost_too_many_nodes_fails(world: World):
    again, each = Again(world), task(OWNER, 1)
    world.store.attempts[each[0]] = 1
    assert again.redelivery.recheck(Held(None), header(OWNER, max_retries=1), [each], lost=True) == []
    assert isinstance(load_task_error(world.commits.results[each[0]][1:]), NodeDiedError)  # type: ignore[index]


def test_released_tasks_that_have_ended_are_forgotten(world: World):
    again = Again(world)
    frames = {at: encode_frame(world.node.signer, encode_header(header(OWNER)), [task(OWNER, at)]) for at in (1, 2)}
    world.store.results[task(OWNER, 1)[0] + FIRST_INDEX] = b"N"
    dependants: list[Any] = [(b"spec%d" % at, frame, QUEUE, 0, b"{t}", b"s") for at, frame in frames.items()]
    nonsense: Any = (b"spec3", b"nonsense", QUEUE, 0, b"{t}", b"s")
    assert again.redelivery.not_ended([*dependants, nonsense]) == [dependants[1], nonsense]
    assert world.store.forgotten == [dependants[0]]


# -- continuations -----------------------------------------------------------------------------------------------------


class Continued:
    def __init__(self, world: World) -> None:
        self.cancelled: list[bytes] = []
        self.ended: set[bytes] = set()
        cancelling: Any = SimpleNamespace(
            known={}, cancel_sent=lambda executor, chunk, at, each, client, force: self.cancelled.append(each[0])
        )
        self.known = cancelling.known
        rechecks: Any = SimpleNamespace(not_ended=lambda all_: [each for each in all_ if each[0] not in self.ended])
        self.continuations = Continuations(world.node, world.publishing, rechecks, cancelling)
        self.key = world.node.keys.continuations(world.node.id)


def test_what_an_executor_goes_on_with_is_its_first_chunk_and_its_note_goes_when_it_ends(world: World):
    continued, executor = Continued(world), world.executor()
    behind, each = world.chunk(executor, first=9), task(OWNER, 1)
    fields = [b"spec", QUEUE, b"{t}", b"s", encode_header(header(OWNER)), list(each)]
    continued.continuations.adopt(executor, 7, fields)
    chunk = executor.chunks[0]
    assert (chunk.first, ids(chunk.tasks), chunk.clears_note) == (7, [each[0]], True)
    assert executor.chunks[1] is behind
    world.store.data[continued.key] = {b"spec": b"{t}s"}
    world.store.away = 1
    continued.continuations.settled(chunk.held)
    world.loop.run(1.0)
    assert continued.key not in world.store.data


def test_one_that_was_cancelled_before_is_cancelled_there(world: World):
    continued, each = Continued(world), task(OWNER, 1)
    continued.known[each[0]] = None
    fields = [b"spec", QUEUE, b"{t}", b"s", encode_header(header(OWNER)), list(each)]
    continued.continuations.adopt(world.executor(), 7, fields)
    assert continued.cancelled == [each[0]]


def test_notes_without_a_spec_go(world: World):
    continued = Continued(world)
    world.store.data[continued.key] = {b"gone": b"{t}s", b"there": b"{t}s"}
    world.store.data[b"there"] = {b"f": b"frame"}
    continued.continuations.start()
    world.loop.run(10.0)
    assert world.store.data[continued.key] == {b"there": b"{t}s"}


def test_the_continuations_of_a_dead_node_are_published_and_its_notes_go_when_the_broker_has_them(world: World):
    continued, key = Continued(world), world.node.keys.continuations(OTHER)
    world.store.data[key] = {b"open": b"{t}s", b"done": b"{t}s", b"gone": b"{t}s"}
    for spec in (b"open", b"done"):
        world.store.data[spec] = {b"f": b"frame", b"q": QUEUE.encode(), b"p": b"2"}
    continued.ended.add(b"done")
    assert continued.continuations.publish_of(OTHER) == 3
    assert world.publishing.messages == [(QUEUE, b"frame", 2)]
    assert list(world.store.data[key]) == [b"open"]
    world.publishing.confirm()
    world.loop.run()
    assert key not in world.store.data


@pytest.mark.parametrize("flushes", [True, False])
def test_a_leaving_node_gives_back_what_executors_were_at_or_says_that_it_could_not(world: World, flushes: bool):
    continued = Continued(world)
    world.store.data[continued.key] = {b"open": b"{t}s"}
    world.store.data[b"open"] = {b"f": b"frame", b"q": QUEUE.encode(), b"p": b"2"}
    world.publishing.flushes = flushes
    continued.continuations.give_back()
    assert continued.continuations.left is not flushes
    assert (continued.key in world.store.data) is not flushes
