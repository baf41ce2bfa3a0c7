"""Who holds a function in the store, and when it goes; on both engines' stores."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from rabbitry_broker import records
from rabbitry_broker.errors import StoreError
from rabbitry_broker.functions import HASH_BYTES
from rabbitry_broker.ids import (
    FIRST_INDEX,
    INDEX_ARGUMENTS,
    TaskIds,
    new_actor_id,
    new_client_id,
    new_detached_id,
)
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.actors import ActorRecords
from rabbitry_broker.store.store import ObjectStore
from tests.conftest import Engine

STAYS = -1
GONE = -2
WEEK = 604_800


@pytest.fixture
def store(engine: Engine) -> Iterator[ObjectStore]:
    opened = ObjectStore(engine.endpoint, Signer(engine.secrets))
    yield opened
    opened.close()


def a_client(store: ObjectStore) -> bytes:
    client = new_client_id()
    store.register_client(client, 60.0)
    return client


def exported(store: ObjectStore, *clients: bytes, detached: bool = False) -> bytes:
    digest = secrets.token_bytes(HASH_BYTES)
    for client in clients:
        store.functions.put(digest, b"pickled", client, detached=detached)
    assert store.functions.get(digest) == b"pickled"
    return digest


def left(store: ObjectStore, digest: bytes) -> int:
    """Return the seconds that a function has left."""
    return int(store.call(b"TTL", store.keys.function(digest)))


def leave(store: ObjectStore, client: bytes) -> None:
    for _ in store.lives.leave((client,), lambda object_ids: None):
        pass


def test_a_function_stays_until_the_last_client_that_exported_it_leaves(store: ObjectStore, engine: Engine):
    first, second = a_client(store), a_client(store)
    digest = exported(store, first, second)
    leave(store, first)
    assert left(store, digest) == STAYS
    leave(store, second)
    assert 0 < left(store, digest) <= 900
    third = a_client(store)
    store.functions.put(digest, b"pickled", third)
    assert left(store, digest) == STAYS
    leave(store, third)
    leave(store, third)
    every = engine.keys()
    assert [key for key in every if key.startswith(f"{engine.prefix}f:")] == [store.keys.function(digest).decode()]


def test_what_the_client_cannot_use_any_more_goes_before_it_does(store: ObjectStore):
    client = a_client(store)
    released, kept = exported(store, client), exported(store, client)
    store.functions.release(client, [released])
    assert left(store, kept) == STAYS
    assert 900 < left(store, released) <= 86_400
    store.functions.put(released, b"pickled", client)
    assert left(store, released) == STAYS


def test_who_counts_as_dead_holds_nothing(store: ObjectStore):
    client = a_client(store)
    leave(store, client)
    digest = exported(store, client)
    assert 0 < left(store, digest) <= 900
    store.register_client(client, 60.0)
    store.functions.put(digest, b"pickled", client)
    assert left(store, digest) == STAYS


def test_functions_of_detached_tasks_stay_for_a_week_after_their_last_client(store: ObjectStore):
    first, second = a_client(store), a_client(store)
    digest = exported(store, first, detached=True)
    leave(store, first)
    assert 900 < left(store, digest) <= WEEK
    store.functions.put(digest, b"pickled", second)
    assert left(store, digest) == STAYS
    leave(store, second)
    assert 900 < left(store, digest) <= WEEK, "those of the first client may still wait"
    assert 900 < store.call(b"TTL", store.keys.function_holders(digest)) <= WEEK


@pytest.mark.parametrize("end", ["dies", "is killed"])
def test_the_class_of_a_detached_actor_stays_as_long_as_it_lives(store: ObjectStore, end: str):
    client, actor, actors = a_client(store), new_actor_id(b"jjjj"), ActorRecords(store)
    digest = exported(store, client)
    fields = {"owner": client, "detached": b"1", "max_restarts": 1}
    assert actors.create(actor, name=b"", fields=fields, holds=digest) is None
    leave(store, client)
    assert left(store, digest) == STAYS
    if end == "dies":
        assert actors.end(actor, final=False, cause=b"", epoch=None, keeper=b"")[0] == "RESTARTING"
        assert left(store, digest) == STAYS
        assert actors.end(actor, final=True, cause=b"", epoch=None, keeper=b"")[0] == "DEAD"
    else:
        actors.kill(actor, no_restart=True, cause=b"")
    assert 0 < left(store, digest) <= 900
    assert store.call(b"EXISTS", store.keys.function_holders(digest)) == 0


def test_a_function_that_is_not_there_says_what_to_do(store: ObjectStore):
    digest = secrets.token_bytes(HASH_BYTES)
    assert left(store, digest) == GONE
    with pytest.raises(StoreError, match=r"not in the store any more.* Submit it again"):
        store.functions.get(digest)


def test_what_created_a_detached_actor_goes_with_it(store: ObjectStore):
    client, actor, actors = a_client(store), new_actor_id(b"jjjj"), ActorRecords(store)
    creation = TaskIds(new_detached_id(), b"jjjj").next()
    objects = [creation + FIRST_INDEX, creation + INDEX_ARGUMENTS]
    fields = {"owner": client, "detached": b"1", "creation": creation}
    actors.create(actor, name=b"", fields=fields)
    store.put_records([(each, records.NONE) for each in objects])
    leave(store, client)
    actors.end(actor, final=True, cause=b"", epoch=None, keeper=b"")
    assert store.fetch(objects) == [records.NONE] * 2
    actors.buried([actor])
    assert store.fetch(objects) == [None] * 2


def test_nothing_but_functions_stands_where_functions_do(store: ObjectStore):
    # So that who looks at `f:*` from outside, as for how much room they take, sees values of one type.
    digest = exported(store, a_client(store), detached=True)
    assert store.call(b"KEYS", store.keys.prefix + b"f:*") == [store.keys.function(digest)]
