"""A node copies what is on its host only: for who asks, for afterwards, and when it leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_broker.errors import ConnectionLost
from rabbitry_broker.ids import OBJECT_BYTES
from rabbitry_broker.records import COPY_ASKED, COPY_SOON
from rabbitry_broker.shared_memory import ObjectStoreFull
from rabbitry_workers.node.services import copying
from rabbitry_workers.node.services.copying import Copying
from tests.workers.node.fakes import World

TOKEN = b"12345678"


class Large:
    """The values of a host: name -> (when a copy is made, or None if it is not on record; whether there is one)."""

    def __init__(self) -> None:
        self.looks_after = True
        self.values: dict[bytes, int | None] = {}
        self.copied: list[bytes] = []
        self.notes: list[tuple[bytes, bool]] = []
        self.ages: dict[bytes, float] = {}
        self.fails: list[Exception] = []
        self.looked: list[bytes] = []
        self.copies = self

    def look_after(self) -> bool:
        return self.looks_after

    def stop_looking_after(self) -> None:
        self.looks_after = False

    def names_here(self) -> list[bytes]:
        return list(self.values)

    def age(self, name: bytes) -> float:
        return self.ages.get(name, 60.0)

    def look(self, object_ids: Sequence[bytes]) -> list[Any]:
        self.looked += object_ids
        kinds = {name[:OBJECT_BYTES]: kind for name, kind in self.values.items()}
        return [None if (kind := kinds[each]) is None else (b"", SimpleNamespace(copy=kind)) for each in object_ids]

    def is_only_here(self, name: bytes, manifest: Any) -> bool:
        return name not in self.copied

    def on_host_only(self, names: Sequence[bytes]) -> dict[bytes, Any]:
        return {name: None for name in names if self.values[name] is not None and name not in self.copied}

    def copy(self, name: bytes) -> None:
        if self.fails:
            raise self.fails.pop(0)
        self.copied.append(name)

    def note(self, object_ids: Sequence[bytes], refusal: ObjectStoreFull | None = None) -> None:
        self.notes += [(each, refusal is not None) for each in object_ids]

    def unnote(self, object_id: bytes) -> None:
        self.notes.append((object_id, False))


class Threads:
    """Runs what is submitted when the test says so."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.work: list[Callable[[], None]] = []
        self.over = False

    def submit(self, work: Callable[..., None], *arguments: Any) -> None:
        self.work.append(lambda: work(*arguments))

    def run(self) -> None:
        while self.work:
            self.work.pop(0)()

    def shutdown(self, **_: Any) -> None:
        self.work.clear()
        self.over = True


class Case(World):
    def __init__(self) -> None:
        super().__init__()
        self.large = Large()
        self.store.large = self.large  # type: ignore[assignment]
        self.alone = True
        self.copying = Copying(self.node, SimpleNamespace(is_alone_on_host=lambda: self.alone))
        self.asked: Any = self.copying._for_readers
        self.later: Any = self.copying._for_later

    def work(self) -> None:
        self.asked.run()
        self.later.run()
        self.loop.run()

    def value(self, number: int, copy: int | None) -> bytes:
        name = b"%d" % number * OBJECT_BYTES + TOKEN
        self.large.values[name] = copy
        return name


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setattr(copying, "ThreadPoolExecutor", Threads)
    return Case()


def test_a_value_is_copied_once_for_all_who_ask_meanwhile(case: Case):
    host = case.node.config.host
    for _ in range(3):
        case.copying.on_copy(host, b"object", False)
    case.copying.on_copy(b"another", b"object", False)
    case.copying.run_once()
    assert case.large.notes == [(b"object", False)]
    case.work()
    assert case.large.copied == [b"object"]
    case.copying.run_once()
    assert case.large.notes == [(b"object", False)] * 2, "it was said, and taken back"
    case.copying.on_copy(host, b"object", False)
    case.work()
    assert case.large.copied == [b"object"] * 2


def test_a_node_leaves_requests_to_the_one_that_looks_after_the_host_unless_it_is_silent(case: Case):
    case.large.looks_after = False
    case.copying.on_copy(case.node.config.host, b"object", False)
    case.work()
    assert case.large.copied == []
    case.copying.on_copy(case.node.config.host, b"object", True)
    case.work()
    assert case.large.copied == [b"object"]


@pytest.mark.parametrize("error", [ObjectStoreFull(1, 0, "Redis"), ConnectionLost("away"), ValueError("a bug")])
def test_who_asks_in_vain_may_ask_again(case: Case, error: Exception):
    case.large.fails.append(error)
    case.copying.on_copy(case.node.config.host, b"object", False)
    case.work()
    assert case.large.notes == ([(b"object", True)] if isinstance(error, ObjectStoreFull) else [])
    case.copying.on_copy(case.node.config.host, b"object", False)
    case.work()
    assert case.large.copied == [b"object"]


def test_what_is_to_outlive_its_host_is_copied_after_a_while(case: Case):
    result, put, uncommitted = case.value(1, COPY_SOON), case.value(2, COPY_ASKED), case.value(3, None)
    young = case.value(4, COPY_SOON)
    case.large.ages[young] = 0.1
    case.copying.run_once()
    case.copying.run_once()
    case.work()
    assert case.large.copied == [result]
    case.large.looked.clear()
    case.large.ages.clear()
    case.large.values[uncommitted] = COPY_SOON
    case.copying.run_once()
    case.work()
    assert case.large.copied == [result, uncommitted, young]
    assert put[:OBJECT_BYTES] not in case.large.looked and result[:OBJECT_BYTES] not in case.large.looked


def test_only_one_node_of_a_host_copies_for_afterwards(case: Case):
    case.value(1, COPY_SOON)
    case.large.looks_after = False
    case.copying.run_once()
    case.work()
    assert case.large.copied == []
    case.large.looks_after = True  # the other one has ended
    case.copying.run_once()
    case.work()
    assert len(case.large.copied) == 1


def test_a_full_store_is_left_alone_for_a_while(case: Case, monkeypatch: pytest.MonkeyPatch):
    names = [case.value(number, COPY_SOON) for number in range(3)]
    case.large.fails.append(ObjectStoreFull(1, 0, "Redis"))
    case.copying.run_once()
    case.work()
    case.copying.run_once()
    case.work()
    assert case.large.copied == []
    monkeypatch.setattr(copying, "NO_ROOM_SECONDS", 0.0)
    case.copying._not_before = 0.0
    case.copying.run_once()
    case.work()
    assert case.large.copied == names


def test_a_copy_that_failed_is_made_later(case: Case):
    name = case.value(1, COPY_SOON)
    case.large.fails.append(ConnectionLost("away"))
    for _ in range(2):
        case.copying.run_once()
        case.work()
    assert case.large.copied == [name]


def test_nothing_is_remembered_of_what_is_gone(case: Case):
    case.value(1, COPY_ASKED)
    case.copying.run_once()
    assert case.copying._settled
    case.large.values.clear()
    case.copying.run_once()
    assert not case.copying._settled


def test_the_last_node_of_a_host_copies_everything_before_it_leaves(case: Case):
    names = {case.value(1, COPY_SOON), case.value(2, COPY_ASKED)}
    case.value(3, None)
    case.copying.on_copy(case.node.config.host, b"object", False)
    case.copying.leave()
    assert set(case.large.copied) == names and not case.large.looks_after
    assert case.asked.over and case.later.over


def test_a_node_with_neighbours_leaves_it_to_them(case: Case):
    case.value(1, COPY_SOON)
    case.alone = False
    case.copying.leave()
    assert case.large.copied == [] and not case.large.looks_after


def test_a_node_that_leaves_does_not_wait_for_room_or_for_long(
    case: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    case.value(1, COPY_SOON)
    case.large.fails.append(ObjectStoreFull(1, 0, "Redis"))
    case.copying.leave()
    assert "no room" in caplog.text and "1 large values are" in caplog.text
    case.large.looks_after = True
    monkeypatch.setattr(copying, "LEAVE_SECONDS", -1.0)
    case.copying.leave()
    assert case.large.copied == []
