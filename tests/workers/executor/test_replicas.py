"""Commits that wait for replicas of Redis: see `rabbitry_workers.executor.commit`."""

from __future__ import annotations

from typing import Any

import pytest

from rabbitry_broker.ids import FIRST_INDEX, new_client_id
from rabbitry_broker.messages import decode_completion
from rabbitry_broker.signing import Signer
from rabbitry_workers.executor import commit
from rabbitry_workers.executor.commit import Committer

OWNER = new_client_id()
SIGNER = Signer((b"0123456789abcdef",))
RESULT = OWNER + b"12345678jobs" + FIRST_INDEX


class Connection:
    """Answers: the commit leaves nothing to do, and `have` replicas have it."""

    closed = False

    def __init__(self, events: list[Any]) -> None:
        self.events = events
        self.have = 0
        self.replies: list[Any] = []

    def script(self, source: str) -> Connection:
        return self

    def command(self, keys: Any, arguments: Any) -> tuple[Any, ...]:
        return (b"COMMIT", arguments)

    def send_many(self, commands: list[tuple[Any, ...]]) -> None:
        for command in commands:
            self.events.append(command)
            self.replies.append(self.have if command[0] == b"WAIT" else [])

    def read(self) -> Any:
        self.events.append("reply")
        return self.replies.pop(0)


class Store:
    """The ports of `Committer`."""

    signer = SIGNER

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.connection = Connection(self.events)
        self.entries: list[bytes] = []

    def open_connection(self, name: str) -> Connection:
        return self.connection

    def commit_arguments(self, owner: bytes, items: list[bytes], entry: bytes, **_: Any) -> bytes:
        return entry

    def left_to_do(self, owner: bytes, left: list[Any]) -> tuple[list[Any], list[Any], list[bytes], None]:
        return [], [], [], None

    def tell(self, client: bytes, entry: bytes) -> None:
        self.events.append("told")
        self.entries.append(entry)


class Channel:
    def send(self, message: list[Any]) -> None:
        pass


@pytest.fixture
def store() -> Store:
    commit.replicas_seconds.cache_clear()
    return Store()


def committed(store: Store, replicas: int) -> Committer:
    committer = Committer(store, Channel(), OWNER)  # type: ignore[arg-type]
    committer.replicas = replicas
    results = committer.of(OWNER)
    results.items += (RESULT, b"N")
    results.tasks = committer.tasks = 1
    committer.commit(last=True)
    return committer


def test_the_owner_is_told_after_the_replicas_have_it(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RABBITRY_REPLICAS_TIMEOUT", "2.5")
    store.connection.have = 2
    committed(store, replicas=2)
    assert store.events == [(b"COMMIT", b""), (b"WAIT", 2, 2500), "reply", "reply", "told"]
    assert decode_completion(SIGNER, OWNER, store.entries[0]).items == [RESULT, b"N"]


def test_replicas_that_are_not_there_in_time_are_told_of_now_and_then(store: Store, caplog: pytest.LogCaptureFixture):
    store.connection.have = 1
    committer = committed(store, replicas=2)
    committer.of(OWNER).items += (RESULT, b"N")
    committer.tasks = 1
    committer.commit(last=True)
    assert len(store.entries) == 2, "the owner is told all the same"
    assert [each.getMessage()[:24] for each in caplog.records] == ["1 of 2 replicas of Redis"]


def test_others_do_not_wait(store: Store):
    committed(store, replicas=0)
    ((_, entry), reply) = store.events
    assert decode_completion(SIGNER, OWNER, entry).items == [RESULT, b"N"] and reply == "reply" and not store.entries
