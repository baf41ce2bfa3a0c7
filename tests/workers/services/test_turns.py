"""One node of several does what is done for all; nobody else can keep all of them from it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.conftest import Engine
from tests.servers import wait_until
from warren_broker.ids import NODE_BYTES
from warren_broker.signing import Signer
from warren_broker.store.object_store import ObjectStore
from warren_workers.services.turns import takes_turn

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


@pytest.mark.parametrize("command", [(b"SET", b"nobody"), (b"RPUSH", b"x"), (b"SET", b"x", b"EX", b"9999999")])
def test_a_key_that_would_not_end_goes(store: ObjectStore, command: tuple[bytes, ...]):
    key = store.keys.janitor
    name, *rest = command
    store.call(name, key, *rest)
    assert not takes_turn(store, key, FIRST, 60.0)
    assert takes_turn(store, key, FIRST, 60.0)
