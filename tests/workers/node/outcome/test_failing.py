"""Failing many tasks: in slices, all of them once, and later if Redis is away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rabbitry.exceptions import RabbitrySystemError, load_task_error
from rabbitry_broker.errors import ConnectionLost, StoreError
from rabbitry_broker.ids import new_client_id, object_id
from rabbitry_workers.node.model.ports import Failed
from rabbitry_workers.node.model.work import Held
from rabbitry_workers.node.outcome import failing
from rabbitry_workers.node.outcome.failing import BATCH_TASKS, Failing
from rabbitry_workers.slices import SLICE_RESULTS, in_slices
from tests.workers.conftest import header, task

OWNER = new_client_id()


class Loop:
    """Keeps what is to be called."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Any]] = []

    def add_callback(self, step: Any) -> None:
        self.later.append((0.0, step))

    def call_later(self, seconds: float, step: Any) -> None:
        self.later.append((seconds, step))

    def run_one(self) -> float:
        seconds, step = self.later.pop(0)
        step()
        return seconds


class Node:
    """The ports of `Failing`."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.committed: list[bytes] = []
        self.steps = 0
        self.away = False
        self.refuses: Callable[[Failed], Exception | None] = lambda _: None
        self.records: dict[bytes, bytes] = {}

    def commit_records(self, batch: list[Failed]) -> None:
        assert len(batch) <= BATCH_TASKS
        if self.away:
            raise ConnectionLost("away")
        for each in batch:
            if (error := self.refuses(each)) is not None:
                raise error
        self.records.update((each[2][0], each[3]) for each in batch)
        self.committed += [each[2][0] for each in batch]
        self.steps += 1

    def settle(self, held: Held, count: int) -> None:
        held.outstanding -= count

    def failing(self) -> Failing:
        return Failing(self, self.settle, self, refuse_creation=lambda *_: None, on_done=lambda: None)  # type: ignore[arg-type]


def many(count: int) -> tuple[Held, list[Failed]]:
    held = Held(None, "task.CPU=1")
    held.outstanding = count
    return held, [(held, header(OWNER), task(OWNER, number), b"E") for number in range(count)]


def test_a_long_backlog_is_failed_in_slices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(failing, "SLICE_SECONDS", 0.0)
    node = Node()
    held, tasks = many(1000)
    failed = node.failing()
    failed.add(tasks)
    slices = 1
    while node.loop.later:
        assert len(node.committed) <= slices * BATCH_TASKS
        assert failed
        node.loop.run_one()
        slices += 1
    assert node.committed == [each[2][0] for each in tasks]
    assert held.outstanding == 0
    assert not failed


def test_what_comes_with_several_messages_is_failed_in_one_step():
    node = Node()
    failed = node.failing()
    messages = [many(8) for _ in range(10)]
    for _, tasks in messages:
        failed.gather(tasks)
    failed.gather([])
    assert not node.committed and failed, "not before the loop has all of them"
    assert list(failed.task_ids()) == [each[2][0] for _, tasks in messages for each in tasks], "and they are in hand"
    node.loop.run_one()
    assert node.steps == 1 and len(node.committed) == 80
    assert not failed and not node.loop.later
    assert all(held.outstanding == 0 for held, _ in messages)
    failed.gather(many(1)[1])
    failed.add(many(1)[1])
    assert len(node.committed) == 80, "what is added meanwhile keeps its turn"
    node.loop.run_one()
    assert len(node.committed) == 82


def test_what_redis_does_not_take_is_failed_later_and_once():
    node = Node()
    node.away = True
    held, tasks = many(120)
    failed = node.failing()
    failed.add(tasks[:60])
    failed.add(tasks[60:])
    assert len(list(failed.task_ids())) == held.outstanding == 120
    assert len(node.loop.later) == 1
    node.away = False
    while node.loop.later:
        node.loop.run_one()
    assert node.committed == [each[2][0] for each in tasks]
    assert held.outstanding == 0


TOO_LARGE = StoreError("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
FULL = StoreError("OOM command not allowed when used memory > 'maxmemory'.")


@pytest.mark.parametrize("refusal", [TOO_LARGE, FULL])
def test_an_error_that_redis_has_no_room_for_is_told_in_short_and_holds_up_no_other(refusal: Exception):
    node = Node()
    node.refuses = lambda failed: refusal if len(failed[3]) > failing.SHORT_BYTES else None
    held, tasks = many(120)
    tasks[7] = (*tasks[7][:3], b"E" * 100_000)
    node.failing().add(tasks)
    while node.loop.later:
        node.loop.run_one()
    assert len(node.records) == 120 and held.outstanding == 0
    error = load_task_error(node.records[tasks[7][2][0]][1:])
    assert isinstance(error, RabbitrySystemError) and "100000 bytes" in str(error)


def test_what_redis_never_takes_is_given_up_and_holds_up_no_other(caplog: pytest.LogCaptureFixture):
    node = Node()
    held, tasks = many(120)
    node.refuses = lambda failed: StoreError("WRONGTYPE") if failed is tasks[7] else None
    node.failing().add(tasks)
    while node.loop.later:
        node.loop.run_one()
    assert len(set(node.committed)) == 119 and held.outstanding == 0
    assert tasks[7][2][0].hex() in caplog.text


def test_redis_that_is_full_is_waited_for():
    node = Node()
    node.refuses = lambda _: FULL
    held, tasks = many(3)
    node.failing().add(tasks)
    assert held.outstanding == 3 and node.loop.run_one() == failing.AGAIN_SECONDS
    node.refuses = lambda _: None
    while node.loop.later:
        node.loop.run_one()
    assert len(node.committed) == 3 and held.outstanding == 0


@pytest.mark.parametrize("counts", [[], [1], [1] * 1000, [5, 9000, 7], [SLICE_RESULTS], [SLICE_RESULTS + 1] * 3])
def test_slices_hold_all_and_the_first_and_last_result_of_a_task_come_last(counts: list[int]):
    ids = [[object_id(task(OWNER, at)[0], index) for index in range(1, count + 1)] for at, count in enumerate(counts)]
    items = [part for keys in ids for key in keys for part in (key, b"record")]
    slices = list(in_slices(items))
    assert slices
    assert all(len(each) <= 4 * SLICE_RESULTS for each in slices)
    sent = [key for each in slices for key in each[::2]]
    assert sorted(sent) == sorted(items[::2])
    for keys in ids:
        places = [number for number, each in enumerate(slices) for key in each[::2] if key in (keys[0], keys[-1])]
        others = [number for number, each in enumerate(slices) for key in each[::2] if key in keys]
        assert set(places) == {max(others)}
