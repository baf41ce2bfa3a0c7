"""Records of actors: what a process may change that is not the actor's any more."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from rabbitry_broker import records
from rabbitry_broker.ids import CLIENT_BYTES, NODE_BYTES, OBJECT_BYTES, new_actor_id, new_client_id
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.actors import ALIVE, DEAD, RESTARTING, ActorRecords
from rabbitry_broker.store.store import ObjectStore
from tests.conftest import Engine

NODE, OTHER = secrets.token_bytes(NODE_BYTES), secrets.token_bytes(NODE_BYTES)


@pytest.fixture
def store(engine: Engine) -> Iterator[ObjectStore]:
    opened = ObjectStore(engine.endpoint, Signer(engine.secrets))
    yield opened
    opened.close()


@pytest.fixture
def actors(store: ObjectStore) -> ActorRecords:
    return ActorRecords(store)


def an_actor(actors: ActorRecords, max_restarts: int = 0) -> bytes:
    actor = new_actor_id(b"jjjj")
    fields = {"max_restarts": max_restarts, "owner": b"o" * CLIENT_BYTES, "frame": b"frame", "queue": "task.none"}
    assert actors.create(actor, name=b"", fields=fields) is None
    return actor


def commit_state(store: ObjectStore, actor: bytes, epoch: int) -> list[object]:
    owner = new_client_id()
    store.register_client(owner, 60.0)
    result = owner + secrets.token_bytes(OBJECT_BYTES - CLIENT_BYTES)
    durable = (store.keys.actor(actor), str(epoch).encode(), b"state", b"calls")
    arguments = store.commit_arguments(owner, [result, records.NONE], b"", require_owner=True, durable=durable)
    reply: list[object] = store.script("commit", *arguments)
    assert (store.fetch([result]) == [None]) == (reply == [-2])
    return reply


def test_a_dead_durable_actor_gets_no_state(store: ObjectStore, actors: ActorRecords) -> None:
    """Its process was killed, but what it had sent comes after its end was taken in."""
    actor = an_actor(actors)
    _, epoch, *_ = actors.start(actor, NODE)
    assert commit_state(store, actor, epoch) == []
    assert actors.end(actor, final=False, cause=b"killed", epoch=epoch, keeper=NODE)[0] == DEAD
    assert commit_state(store, actor, epoch) == [-2]
    assert actors.state(actor) == (None, None)


def test_a_process_that_is_not_the_actors_does_not_bring_it_to_life(actors: ActorRecords) -> None:
    actor = an_actor(actors, max_restarts=1)
    _, first, *_ = actors.start(actor, NODE)
    assert actors.end(actor, final=False, cause=b"", epoch=first, keeper=OTHER)[0] == RESTARTING
    _, second, *_ = actors.start(actor, OTHER)
    actors.alive(actor, first, 1)
    assert actors.fields(actor, "state", "pid") == [RESTARTING.encode(), None]
    actors.alive(actor, second, 2)
    assert actors.fields(actor, "state", "pid") == [ALIVE.encode(), b"2"]
    assert actors.end(actor, final=True, cause=b"", epoch=second, keeper=OTHER)[0] == DEAD
    actors.alive(actor, second, 2)
    assert actors.fields(actor, "state") == [DEAD.encode()]


def test_the_next_process_knows_if_the_last_was_lost_with_its_node(actors: ActorRecords) -> None:
    actor = an_actor(actors, max_restarts=-1)
    *_, lost = actors.start(actor, NODE)
    assert not lost
    actors.end(actor, final=False, cause=b"", epoch=1, keeper=OTHER, lost=True)
    *_, lost = actors.start(actor, OTHER)
    assert lost
    actors.end(actor, final=False, cause=b"", epoch=2, keeper=OTHER)
    *_, lost = actors.start(actor, OTHER)
    assert not lost


def test_who_has_a_name_is_found_whoever_had_it_before(actors: ActorRecords) -> None:
    def made(name: bytes) -> bytes:
        actor = new_actor_id(b"jjjj")
        fields = {"owner": b"o" * CLIENT_BYTES, "frame": b"frame", "queue": "task.none", "facts": actor}
        assert actors.create(actor, name=name, fields=fields) is None
        return actor

    first = made(b"space\0it")
    other = made(b"space\0other")
    for likely in (None, first, other):
        assert actors.holder("space", "it", "state", "facts", likely=likely) == (first, [b"PENDING", first])
    actors.kill(first, no_restart=True, cause=b"")
    for likely in (None, first):
        assert actors.holder("space", "it", "state", likely=likely) == (None, [None])
    second = made(b"space\0it")
    for likely in (first, second):
        assert actors.holder("space", "it", "facts", likely=likely) == (second, [second])
