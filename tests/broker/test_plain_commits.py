"""The cheap form of a commit: it does what `commit.lua` would, or nothing that counts. See `store/results.py`."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from rabbitry_broker import records
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.ids import CLIENT_BYTES, OBJECT_BYTES, TASK_BYTES, new_client_id
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.redis.connection import Connection
from rabbitry_broker.store.results import PlainCommits
from rabbitry_broker.store.store import ObjectStore
from tests.servers import RedisServer

SECRETS = (b"0123456789abcdef0123456789abcdef",)
LEASE = 60.0
FEW, MANY = 1, 40


class Case:
    """A store, a living owner, and a connection that commits."""

    def __init__(self, url: str, ttl: float = 0.0) -> None:
        endpoint = Endpoint(url, "amqp://unused", SECRETS, f"plain-{secrets.token_hex(4)}:")
        self.store = ObjectStore(endpoint, Signer(SECRETS), ttl=ttl)
        self.connection: Connection = self.store.open_connection("commit")
        self.plain = PlainCommits(self.connection)
        self.owner = new_client_id()
        self.store.register_client(self.owner, LEASE)

    def results(self, count: int) -> list[bytes]:
        items: list[bytes] = []
        for _ in range(count):
            items += (self.owner + secrets.token_bytes(OBJECT_BYTES - CLIENT_BYTES), records.NONE)
        return items

    def commit(self, items: list[bytes], entry: bytes = b"entry") -> bool:
        arguments = self.store.commit_arguments(self.owner, items, entry, require_owner=True)
        assert self.plain.takes(arguments)
        commands = self.plain.commands(arguments)
        self.connection.send_many(commands)
        done = self.plain.read(len(commands))
        assert not self.connection.owed
        return done

    def inbox(self) -> list[bytes]:
        entries: list[bytes] = self.store.call(b"LRANGE", self.store.keys.inbox(self.owner), 0, -1)
        return entries

    def keys(self) -> set[bytes]:
        """Return the kinds of the owner's keys."""
        start = self.store.keys.prefix
        found = self.store.call(b"KEYS", self.store.keys.client_pattern(self.owner))
        return {each[len(start) :].partition(b":")[0] for each in found}

    def close(self) -> None:
        for _ in self.store.lives.leave((self.owner,), lambda ids: None):
            pass
        self.connection.close()
        self.store.close()


@pytest.fixture
def case(redis_server: RedisServer) -> Iterator[Case]:
    made = Case(redis_server.url)
    yield made
    made.close()


@pytest.mark.parametrize("count", [FEW, MANY])
def test_results_stand_and_their_owner_is_told(case: Case, count: int) -> None:
    items = case.results(count)
    assert case.commit(items)
    assert case.store.fetch(items[::2]) == [records.NONE] * count
    assert case.inbox() == [b"entry"]
    assert case.keys() == {b"c", b"o", b"i"}, "nothing else is left of it"


@pytest.mark.parametrize("count", [FEW, MANY])
def test_nothing_is_left_of_an_owner_that_is_gone(case: Case, count: int) -> None:
    for _ in case.store.lives.leave((case.owner,), lambda ids: None):
        pass
    assert not case.commit(case.results(count))
    assert case.keys() == set()


@pytest.mark.parametrize("count", [FEW, MANY])
def test_a_silent_owner_is_for_the_whole_script(case: Case, count: int) -> None:
    case.store.call(b"DEL", case.store.keys.client(case.owner))
    assert not case.commit(case.results(count))
    assert case.keys() == set()


@pytest.mark.parametrize("count", [FEW, MANY])
def test_what_somebody_waits_for_is_for_the_whole_script(case: Case, count: int) -> None:
    items = case.results(count)
    reader = new_client_id()
    case.store.register_client(reader, LEASE)
    case.store.subscribe(reader, [items[0]])
    assert not case.commit(items)
    assert case.inbox() == []
    arguments = case.store.commit_arguments(case.owner, items, b"entry", require_owner=True)
    assert case.store.script("commit", *arguments) == [b"c", reader, items[0][CLIENT_BYTES:]]
    assert case.inbox() == [b"entry"]


@pytest.mark.parametrize("count", [FEW, MANY])
def test_the_first_result_stands(case: Case, count: int) -> None:
    items = case.results(count)
    first = [items[-2], records.plain(b"first")]
    assert case.commit(first)
    assert not case.commit(items)
    assert case.inbox() == [b"entry"]
    assert case.store.fetch(first[:1]) == [first[1]]


@pytest.mark.parametrize("count", [FEW, MANY])
def test_an_inbox_that_others_overwrote_is_for_the_whole_script(case: Case, count: int) -> None:
    case.store.call(b"SET", case.store.keys.inbox(case.owner), b"nonsense")
    items = case.results(count)
    assert not case.commit(items)
    arguments = case.store.commit_arguments(case.owner, items, b"entry", require_owner=True)
    case.store.script("commit", *arguments)
    assert case.inbox() == [b"entry"]
    assert case.store.fetch(items[::2]) == [records.NONE] * count


@pytest.mark.parametrize("count", [FEW, MANY])
def test_scripts_that_the_server_forgot_are_sent_again(case: Case, count: int) -> None:
    assert case.commit(case.results(count))
    case.store.call(b"SCRIPT", b"FLUSH")
    assert not case.commit(case.results(count))
    case.connection.loaded.clear()  # as with the connection that takes its place
    case.commit(case.results(count))  # a mark may have stayed
    assert case.commit(case.results(count))


def test_a_lifetime_of_objects_is_heeded(redis_server: RedisServer) -> None:
    case = Case(redis_server.url, ttl=100.0)
    items = case.results(MANY)
    assert case.commit(items)
    assert 0 < case.store.call(b"PTTL", case.store.keys.object(items[0])) <= 100_000
    case.close()


def test_what_is_more_than_plain_is_not_taken(case: Case) -> None:
    def takes(**fields: object) -> bool:
        given = {"items": case.results(1), "entry": b"entry", "require_owner": True} | fields
        items, entry = given.pop("items"), given.pop("entry")
        return case.plain.takes(case.store.commit_arguments(case.owner, items, entry, **given))

    assert takes()
    assert not takes(entry=b"")
    assert not takes(items=[])
    assert not takes(require_owner=False)
    assert not takes(durable=(b"actor", b"1", b"", b""))
    assert not takes(preparer=new_client_id())
    assert not takes(ends=(b"spec", b"tag", b"suffix"))
    assert takes(to_run="task.CPU=1", continuations=b"noted"), "nothing is released, so nothing is handed over"


def test_a_mark_that_stayed_is_in_nobodys_way(case: Case) -> None:
    mark = case.store.keys.prefix + b"z" + case.store.keys.tag(case.owner)
    case.store.call(b"SET", mark, b"of one that was cut off")
    items = case.results(MANY)
    assert not case.commit(items)
    assert case.store.fetch(items[:1]) == [None]
    assert case.commit(items)


def test_task_ids_have_the_suffix_that_the_script_cuts_by() -> None:
    assert OBJECT_BYTES - CLIENT_BYTES == 16
    assert TASK_BYTES < OBJECT_BYTES
