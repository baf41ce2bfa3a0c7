"""Placement groups as a client deals with them, without a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rabbitry.core.groups import Groups
from rabbitry.exceptions import TaskPlacementGroupRemoved, load_task_error
from rabbitry_broker import records
from rabbitry_broker.messages import Completion
from rabbitry_broker.store.groups import CREATED, PENDING, REMOVED, Group, GroupSpec
from tests.api.core.fakes import JOB, Surroundings

GROUP = b"g" * 14 + JOB
HANDLE = {"a": "handle"}


class FakeRecords:
    """Records in memory."""

    def __init__(self) -> None:
        self.answer = PENDING
        self.on_wait: Callable[[bytes, bytes], None] = lambda object_id, record: None
        self.waiting: list[tuple[bytes, bytes]] = []
        self.groups: dict[bytes, GroupSpec] = {}
        self.reads = 0
        self.error: Exception | None = None

    def create(self, group_id: bytes, spec: GroupSpec) -> bytes | None:
        taken = [other for other, each in self.groups.items() if spec.name and each.name == spec.name]
        if taken:
            return taken[0]
        self.groups[group_id] = spec
        return None

    def remove(self, group_id: bytes) -> str:
        self.groups.pop(group_id, None)
        return CREATED

    def wait(self, group_id: bytes, object_id: bytes, record: bytes) -> str:
        if self.error is not None:
            raise self.error
        self.waiting.append((object_id, record))
        self.on_wait(object_id, record)
        return self.answer

    def read(self, group_ids: Any) -> list[Group | None]:
        self.reads += 1
        return [
            Group(each, CREATED, self.groups[each], b"", "", 0, 0.0, 0.0, {}, {}) if each in self.groups else None
            for each in group_ids
        ]

    def states(self, group_ids: Any) -> list[str]:
        return [PENDING if each in self.groups else "" for each in group_ids]

    def by_name(self, namespace: str, name: str) -> bytes | None:
        return None

    def ids(self) -> list[bytes]:
        return list(self.groups)

    def removed(self) -> list[bytes]:
        return []


class Client(Surroundings):
    def begin(self) -> None:
        self.records = FakeRecords()
        self.stored: list[Any] = []
        known = self.known()
        self.accept = known.accept
        self.groups = Groups(
            self.identity, self.records, self.ids, self.flight, self.references,
            put=lambda value: self.stored.append(value) or "put",  # type: ignore[arg-type,func-returns-value]
            is_known=self.values.__contains__,
            commit_errors=lambda items: self.stored.append(("error", items[0])),
            make_known=lambda items: known.accept(Completion(b"", 0, 0.0, list(items))),
            register=self.register,
        )  # fmt: skip


@pytest.fixture
def client() -> Client:
    made = Client()
    made.begin()
    return made


def test_who_waits_is_in_flight_until_told_and_all_wait_for_one_object(client: Client):
    ref = client.groups.ready(GROUP, HANDLE, b"packed")
    assert (client.flight.count, client.registered) == (1, 1)
    assert client.groups.ready(GROUP, HANDLE, b"packed") is ref
    assert client.records.waiting == [(ref._id, records.PLAIN + b"packed")]
    client.accept(Completion(b"", 1, 0.0, [ref._id, records.PLAIN + b"packed"]))
    assert (client.flight.count, client.values[ref._id]) == (0, records.PLAIN + b"packed")
    assert client.groups.waits
    client.groups.run_once()
    assert not client.groups.waits
    # Then anew: it may have been rescheduled since.
    assert client.groups.ready(GROUP, HANDLE, b"packed") is not ref


def test_what_is_told_before_the_answer_comes_counts_all_the_same(client: Client):
    client.records.on_wait = lambda key, record: client.accept(Completion(b"", 1, 0.0, [key, record]))
    ref = client.groups.ready(GROUP, HANDLE, b"packed")
    assert client.flight.count == 0
    assert ref._id in client.values


def test_a_group_that_stands_is_a_value(client: Client):
    client.records.answer = CREATED
    assert client.groups.ready(GROUP, HANDLE, b"packed") == "put"
    assert (client.stored, client.flight.count) == ([HANDLE], 0)


@pytest.mark.parametrize("answer", [REMOVED, ""])
def test_a_group_that_is_gone_is_an_error(client: Client, answer: str):
    client.records.answer = answer
    ref = client.groups.ready(GROUP, HANDLE, b"packed")
    assert client.stored == [("error", ref._id)]
    assert isinstance(load_task_error(client.values[ref._id][1:]), TaskPlacementGroupRemoved)
    assert client.flight.count == 0


def test_nothing_is_in_flight_if_nobody_could_be_asked(client: Client):
    client.records.error = OSError()
    with pytest.raises(OSError):
        client.groups.ready(GROUP, HANDLE, b"packed")
    assert client.flight.count == 0


def test_bundles_are_looked_up_once_and_forgotten_with_the_group(client: Client):
    group_id, taken = client.groups.create(GroupSpec(["CPU=1", "x=0.5"], name="n"))
    assert taken is None
    assert client.groups.create(GroupSpec(["CPU=1"], name="n"))[1] == group_id
    for _ in range(2):
        assert client.groups.bundles(group_id) == [{"CPU": 1.0}, {"x": 0.5}]
    assert client.records.reads == 1
    client.groups.remove(group_id)
    assert client.groups.bundles(group_id) is None
    assert client.groups.bundles(GROUP) is None
