"""What executors commit, cheaply or by the whole script: see `rabbitry_workers.executor.commit`."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_broker import records
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.ids import CLIENT_BYTES, OBJECT_BYTES, new_client_id
from rabbitry_broker.messages import decode_completion
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.store import ObjectStore
from rabbitry_workers.executor import commit
from rabbitry_workers.executor.commit import Committer
from tests.servers import RedisServer

SECRETS = (b"0123456789abcdef0123456789abcdef",)
MANY = 50
PATIENCE_S = 10.0


class Channel:
    """Keeps what the agent would hear."""

    def __init__(self) -> None:
        self.sent: list[list[Any]] = []

    def send(self, message: list[Any]) -> None:
        self.sent.append(message)


class Case:
    """A committer over a real store."""

    def __init__(self, url: str) -> None:
        endpoint = Endpoint(url, "amqp://unused", SECRETS, f"commits-{secrets.token_hex(4)}:")
        self.store = ObjectStore(endpoint, Signer(SECRETS))
        self.channel = Channel()
        self.committer = Committer(self.store, self.channel, new_client_id())  # type: ignore[arg-type]
        self.owner = self.a_client()

    def a_client(self) -> bytes:
        client = new_client_id()
        self.store.register_client(client, 60.0)
        return client

    def result(self) -> bytes:
        return self.owner + secrets.token_bytes(OBJECT_BYTES - CLIENT_BYTES)

    def commit(self, *keys: bytes) -> None:
        results = self.committer.of(self.owner)
        for key in keys:
            results.items += (key, records.NONE)
        results.tasks += len(keys)
        self.committer.tasks += len(keys)
        self.committer.commit(last=True)

    def told(self, client: bytes) -> list[bytes]:
        """Return the ids of results on an inbox."""
        entries = self.store.call(b"LRANGE", self.store.keys.inbox(client), 0, -1)
        return [key for each in entries for key in decode_completion(self.store.signer, client, each).items[::2]]

    def scripts(self) -> dict[str, int]:
        stats = self.store.call(b"INFO", b"commandstats").decode()
        lines = [each.split(":", 1) for each in stats.splitlines() if each.startswith("cmdstat_")]
        return {name.removeprefix("cmdstat_"): int(facts.split(",")[0].split("=")[1]) for name, facts in lines}


@pytest.fixture
def case(redis_server: RedisServer) -> Iterator[Case]:
    made = Case(redis_server.url)
    yield made
    made.store.close()


@pytest.mark.parametrize("count", [1, MANY])
def test_what_is_committed_is_told_and_done(case: Case, count: int) -> None:
    keys = [case.result() for _ in range(count)]
    case.commit(*keys)
    assert case.store.fetch(keys) == [records.NONE] * count
    assert case.told(case.owner) == keys
    assert [each[2] for each in case.channel.sent] == [count]


def test_many_go_by_one_command(case: Case) -> None:
    before = case.scripts()
    case.commit(*[case.result() for _ in range(MANY)])
    after = case.scripts()
    assert after.get("msetnx", 0) == before.get("msetnx", 0) + 1
    assert after.get("set", 0) == before.get("set", 0)


@pytest.mark.parametrize("count", [1, MANY])
def test_who_waits_for_somebody_elses_result_is_told(case: Case, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(commit.time, "monotonic", lambda: now)
    reader = case.a_client()
    for _ in range(2):  # the second time it is known that somebody waits
        keys = [case.result() for _ in range(count)]
        case.store.subscribe(reader, keys[-1:])
        case.commit(*keys)
        assert case.told(reader)[-1:] == keys[-1:]
        assert case.told(case.owner)[-count:] == keys
    scripts = case.scripts()
    now += 2 * commit.WAITED_SECONDS
    case.commit(*[case.result() for _ in range(MANY)])
    assert case.scripts()["msetnx"] == scripts.get("msetnx", 0) + 1, "it is tried again"


@pytest.mark.parametrize("count", [1, MANY])
def test_the_first_result_stands_and_the_others_of_its_commit_are_written(case: Case, count: int) -> None:
    keys = [case.result() for _ in range(count)]
    case.store.commit(case.owner, [keys[0], records.plain(b"first")], b"", require_owner=True)
    case.commit(*keys)
    assert case.store.fetch(keys) == [records.plain(b"first"), *[records.NONE] * (count - 1)]
    assert case.told(case.owner) == keys


@pytest.mark.parametrize("count", [1, MANY])
def test_nothing_is_written_for_an_owner_that_is_gone(case: Case, count: int) -> None:
    for _ in case.store.lives.leave((case.owner,), lambda ids: None):
        pass
    case.commit(*[case.result() for _ in range(count)])
    assert case.store.call(b"KEYS", case.store.keys.client_pattern(case.owner)) == []
    assert [each[2] for each in case.channel.sent] == [count]


@pytest.mark.parametrize("count", [1, MANY])
def test_a_silent_owner_is_told_all_the_same(case: Case, count: int) -> None:
    case.store.call(b"DEL", case.store.keys.client(case.owner))
    keys = [case.result() for _ in range(count)]
    case.commit(*keys)
    assert case.told(case.owner) == keys


@pytest.mark.parametrize("count", [1, MANY])
def test_scripts_that_the_server_forgot_are_sent_again(case: Case, count: int) -> None:
    case.commit(*[case.result() for _ in range(count)])
    case.store.call(b"SCRIPT", b"FLUSH")
    keys = [case.result() for _ in range(count)]
    case.commit(*keys)
    assert case.store.fetch(keys) == [records.NONE] * count


@pytest.mark.parametrize("count", [1, MANY])
def test_rights_of_before_are_enough(case: Case, count: int, redis_server: RedisServer) -> None:
    name = f"node-{secrets.token_hex(4)}"
    rights = ("on", ">secret", "~*", "&*", "+@all", "-msetnx", "-multi", "-exec")
    case.store.call(b"ACL", b"SETUSER", name, *rights)
    try:
        url = redis_server.url.replace("://", f"://{name}:secret@", 1)
        prefix = case.store.endpoint.prefix
        limited = ObjectStore(Endpoint(url, "amqp://unused", SECRETS, prefix), Signer(SECRETS))
        case.committer = Committer(limited, case.channel, new_client_id())  # type: ignore[arg-type]
        keys = [case.result() for _ in range(count)]
        case.commit(*keys)
        assert case.told(case.owner) == keys
        limited.close()
    finally:
        case.store.call(b"ACL", b"DELUSER", name)


def test_an_actor_is_alive_before_its_first_result_is_told(case: Case) -> None:
    actor = case.store.keys.actor(secrets.token_bytes(16))
    case.store.call(b"HSET", actor, b"epoch", 3, b"state", b"PENDING_CREATION")
    case.committer.announce = (actor, 3, 17)
    case.commit(case.result())
    assert case.store.call(b"HMGET", actor, b"state", b"pid") == [b"ALIVE", b"17"]
    assert case.committer.announce is None
    keys = [case.result() for _ in range(MANY)]
    case.commit(*keys)
    assert case.store.fetch(keys) == [records.NONE] * MANY


def test_an_actor_that_cannot_be_announced_has_its_results_committed_all_the_same(case: Case) -> None:
    actor = case.store.keys.actor(secrets.token_bytes(16))
    case.store.call(b"SET", actor, b"no record")
    case.committer.announce = (actor, 3, 17)
    key = case.result()
    case.commit(key)
    assert case.store.fetch([key]) == [records.NONE]
    assert case.told(case.owner) == [key]


def test_the_flusher_is_woken_once_while_calls_come(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeps, looks = threading.Semaphore(0), threading.Semaphore(0)

    def sleep(_: float) -> None:
        sleeps.release()
        looks.acquire()

    monkeypatch.setattr(commit, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    committer = case.committer
    woken: list[bool] = []
    wake = committer._flush_wanted.set
    monkeypatch.setattr(committer._flush_wanted, "set", lambda: (woken.append(True), wake()))

    def finish_a_call() -> None:
        committer.of(case.owner).items += (case.result(), records.NONE)
        committer.tasks += 1
        committer.before_user_code()

    def look() -> None:
        looks.release()
        assert sleeps.acquire(timeout=PATIENCE_S)

    finish_a_call()
    assert sleeps.acquire(timeout=PATIENCE_S)
    for _ in range(10):
        committer.commit(last=True)
        look()
        finish_a_call()
    assert woken == [True]
    look()
    look()
    assert not committer.pending, "what nobody else commits it does, at the second look"
    for _ in range(commit.QUIET_LOOKS + 1):
        looks.release()
    deadline = time.monotonic() + PATIENCE_S
    while committer._flushing and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not committer._flushing, "and when nothing comes it sleeps"
    finish_a_call()
    assert woken == [True, True]
    for _ in range(100):
        looks.release()
