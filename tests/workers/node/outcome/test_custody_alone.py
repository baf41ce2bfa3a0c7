"""Custody with fakes around it: what is taken when, what goes back, what is deleted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry.exceptions import ActorDiedError, ActorUnavailableError, load_task_error
from rabbitry_broker.errors import ConnectionLost
from rabbitry_broker.messages import KIND_ACTOR_CALL, Task, decode_frames, encode, encode_frame, encode_header
from rabbitry_broker.store.actors import DEAD
from rabbitry_workers.node.model.work import Held
from rabbitry_workers.node.outcome.custody import Custody
from rabbitry_workers.node.outcome.settling import Settling
from tests.workers.conftest import header, task
from tests.workers.node.fakes import OWNER, QUEUE, World, delivery, ids

OTHER = b"n" * 28


class Keeping(World):
    def __init__(self, *, embedded: bool = False) -> None:
        super().__init__(embedded=embedded)
        self.done: set[bytes] = set()
        self.actor: Any = (None, None)
        rechecks: Any = SimpleNamespace(recheck=self.recheck)
        actors: Any = SimpleNamespace(fields=lambda *_: self.actor, cause=lambda _: b"")
        self.settling = Settling(self.consumer.ack)
        self.custody = Custody(self.node, self.settling, self.commits, self.publishing, rechecks, actors, after=0.0)
        self.settling.on_settled = self.custody.settled
        self.key = self.node.keys.custody(self.node.id)

    def recheck(self, held: Held, head: Any, tasks: list[Task], *, lost: bool | None = None) -> list[Task]:
        return [each for each in tasks if each[0] not in self.done]

    def message(self, *numbers: int, **fields: Any) -> bytes:
        return encode_frame(self.node.signer, encode_header(header(OWNER, **fields)), [task(OWNER, n) for n in numbers])

    def take(self, *numbers: int, **fields: Any) -> Held:
        held = Held(delivery(self.message(*numbers, **fields)))
        held.outstanding = len(numbers)
        self.custody.watch(held)
        return held

    def entries(self) -> dict[bytes, bytes]:
        return dict(self.store.data.get(self.key, {}))

    def published(self) -> list[bytes]:
        frames = [decode_frames(self.node.signer, body) for _, body, _ in self.publishing.messages]
        return [each for frame in frames for _, tasks in frame for each in ids(tasks)]


@pytest.fixture
def world() -> Keeping:
    return Keeping()


def test_long_work_is_written_down_and_acknowledged_and_its_entry_goes_when_it_is_done(world: Keeping):
    held = world.take(1)
    world.custody.run_once()
    assert list(world.entries()) == [held.custody]
    assert world.consumer.acknowledged == [held.delivery]
    world.settling.settle(held, 1)
    world.custody.run_once()
    assert not world.entries()
    assert len(world.consumer.acknowledged) == 1


def test_short_work_is_not(world: Keeping):
    held = world.take(1)
    world.custody.after = 60.0
    world.custody.run_once()
    world.settling.settle(held, 1)
    world.custody.after = 0.0
    world.custody.run_once()
    assert not world.store.sent


def test_nothing_is_on_the_embedded_engine():
    world = Keeping(embedded=True)
    world.take(1)
    world.custody.run_once()
    assert not world.store.sent


def test_what_was_given_up_is_not_taken(world: Keeping):
    world.custody.forget(world.take(1))
    world.custody.run_once()
    assert not world.entries()


@pytest.mark.parametrize("ends", ["settled", "forgotten"])
def test_an_entry_that_may_have_been_written_goes_with_its_delivery(world: Keeping, ends: str):
    held = world.take(1)
    world.store.away = 1
    world.custody.run_once()
    assert not world.consumer.acknowledged
    (field,) = world.custody._tried.values()
    world.store.data[world.key] = {field: b"written after all"}
    world.settling.settle(held, 1) if ends == "settled" else world.custody.forget(held)
    world.custody.run_once()
    assert not world.entries()


def test_tasks_that_were_handed_back_leave_the_entry(world: Keeping):
    held = world.take(1, 2)
    world.custody.run_once()
    held.returned.add(task(OWNER, 1)[0])
    world.custody.update(held)
    world.custody.give_back()
    assert world.published() == [task(OWNER, 2)[0]]


def test_nothing_is_left_of_an_entry_whose_tasks_were_all_handed_back(world: Keeping):
    held = world.take(1)
    world.custody.run_once()
    held.returned.add(task(OWNER, 1)[0])
    world.custody.update(held)
    world.custody.give_back()
    assert not world.published()
    assert not world.store.aside


def test_a_node_that_leaves_puts_back_what_is_not_done(world: Keeping):
    world.take(1)
    world.take(2)
    world.custody.run_once()
    world.done.add(task(OWNER, 1)[0])
    world.custody.give_back()
    assert world.published() == [task(OWNER, 2)[0]]
    assert not world.entries()
    assert not world.custody.left


def test_what_the_broker_does_not_take_back_is_left(world: Keeping):
    world.take(1)
    world.custody.run_once()
    world.publishing.flushes = False
    world.custody.give_back()
    assert world.custody.left
    assert world.entries()


def test_nothing_to_give_back_costs_nothing(world: Keeping):
    world.custody.give_back()
    assert not world.store.sent


def unreachable(*_: Any, **__: Any) -> list[Task]:
    raise ConnectionLost("away")


def adopt(world: Keeping, body: bytes, *, forged: bool = False) -> int:
    field = b"field"
    entry = world.node.signer.seal(b"custody" + field, encode([QUEUE, 3, body]))
    world.store.data[world.node.keys.custody(OTHER)] = {field: b"forged, and long enough" if forged else entry}
    return world.custody.adopt(OTHER)


def test_the_custody_of_a_dead_node_goes_back_and_its_entries_with_the_confirms(world: Keeping):
    assert adopt(world, world.message(1, 2)) == 1
    assert world.published() == ids([task(OWNER, 1), task(OWNER, 2)])
    assert world.publishing.messages[0][2] == 3
    assert world.entries()
    world.publishing.confirm()
    world.loop.run()
    assert not world.entries()
    assert world.custody.adopt(OTHER) == 0


def test_it_goes_back_later_when_redis_is_away(world: Keeping):
    recheck, tries = world.recheck, iter([True, False])

    def fail(*args: Any, **options: Any) -> list[Task]:
        if next(tries):
            raise ConnectionLost("away")
        return recheck(*args, **options)

    world.custody._rechecks.recheck = fail  # type: ignore[method-assign]
    adopt(world, world.message(1))
    assert not world.publishing.messages
    world.loop.run(1.0)
    assert world.published() == [task(OWNER, 1)[0]]


def test_a_node_that_leaves_puts_back_what_it_has_adopted(world: Keeping):
    world.custody._rechecks.recheck = unreachable  # type: ignore[method-assign]
    adopt(world, world.message(1))
    assert not world.publishing.messages
    world.custody._rechecks.recheck = world.recheck  # type: ignore[method-assign]
    world.custody.give_back()
    assert world.published() == [task(OWNER, 1)[0]]
    assert not world.entries()


def test_what_it_has_adopted_and_put_back_without_a_confirm_is_left(world: Keeping):
    adopt(world, world.message(1))
    world.publishing.flushes = False
    world.custody.give_back()
    assert world.published() == [task(OWNER, 1)[0]]
    assert world.custody.left
    assert world.entries()


def test_a_forged_entry_is_put_aside(world: Keeping):
    adopt(world, b"", forged=True)
    world.loop.run()
    assert world.store.aside
    assert not world.entries()


@pytest.mark.parametrize(
    ("state", "durable", "retries", "error"),
    [
        (b"ALIVE", b"1", 0, None),
        (b"ALIVE", None, -1, None),
        (b"ALIVE", None, 0, ActorUnavailableError),
        (DEAD.encode(), None, -1, ActorDiedError),
        (None, None, -1, ActorDiedError),
    ],
)
def test_calls_go_back_if_they_may_run_again(world: Keeping, state: Any, durable: Any, retries: int, error: Any):
    world.actor = (state, durable)
    adopt(world, world.message(1, kind=KIND_ACTOR_CALL, actor=b"a" * 16, max_retries=retries))
    if error is None:
        assert world.published() == [task(OWNER, 1)[0]]
    else:
        record: Any = world.commits.results[task(OWNER, 1)[0]]
        assert isinstance(load_task_error(record[1:]), error)
