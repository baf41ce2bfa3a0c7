"""One node of several does what is done for all; nobody else can keep all of them from it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from rabbitry_broker.ids import NODE_BYTES
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.store import ObjectStore
from rabbitry_workers.node.model.turns import Turns
from rabbitry_workers.node.services.turns import takes_turn
from tests.conftest import Engine
from tests.servers import wait_until

FIRST, SECOND = secrets.token_bytes(NODE_BYTES), secrets.token_bytes(NODE_BYTES)


@pytest.fixture
def store(engine: Engine) -> Iterator[ObjectStore]:
    store = ObjectStore(engine.endpoint, Signer(engine.secrets))
    yield store
    store.close()


def test_one_of_two_nodes_takes_a_turn_and_then_any_of_them(store: ObjectStore):
    key = store.keys.janitor
    assert takes_turn(store, key, FIRST, 60.0)
    assert not takes_turn(store, key, SECOND, 60.0)
    assert not takes_turn(store, key, FIRST, 60.0)
    store.call(b"PEXPIRE", key, 1)
    wait_until(lambda: takes_turn(store, key, SECOND, 60.0), "the turn is over")


def test_who_was_told_that_a_turn_is_somebodys_does_not_ask_before_its_end(store: ObjectStore):
    key, now = store.keys.janitor, [0.0]
    known = Turns(lambda: now[0])
    assert not known.is_taken(key, 54_000)
    known.told(key, -2)
    assert takes_turn(store, key, FIRST, 60.0, known)
    store.call(b"DEL", key)
    assert not takes_turn(store, key, FIRST, 60.0, known), "it would have to ask to find that out"
    now[0] += 54.1
    assert takes_turn(store, key, FIRST, 60.0, known)


@pytest.mark.parametrize("left", [-1, 54_001])
def test_a_key_that_would_not_end_is_asked_for(store: ObjectStore, left: int):
    known = Turns(lambda: 0.0)
    known.told(store.keys.janitor, left)
    store.call(b"SET", store.keys.janitor, b"nonsense")
    assert not takes_turn(store, store.keys.janitor, FIRST, 60.0, known)
    assert takes_turn(store, store.keys.janitor, FIRST, 60.0, known)


@pytest.mark.parametrize("command", [(b"SET", b"nobody"), (b"RPUSH", b"x"), (b"SET", b"x", b"EX", b"9999999")])
def test_a_key_that_would_not_end_goes(store: ObjectStore, command: tuple[bytes, ...]):
    key = store.keys.janitor
    name, *rest = command
    store.call(name, key, *rest)
    assert not takes_turn(store, key, FIRST, 60.0)
    assert takes_turn(store, key, FIRST, 60.0)
