"""Packages in the store: kept once, held by who uses them, and never read unless one of us stored them."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator

import pytest

from rabbitry_broker.errors import StoreError
from rabbitry_broker.ids import new_client_id
from rabbitry_broker.signing import ForgedMessage, Signer
from rabbitry_broker.store import packages
from rabbitry_broker.store.functions import Kind
from rabbitry_broker.store.packages import digest_of
from rabbitry_broker.store.store import ObjectStore
from tests.conftest import Engine

YEAR = 365 * 86400


@pytest.fixture
def store(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    monkeypatch.setattr(packages, "PIECE_BYTES", 1000)
    opened = ObjectStore(engine.endpoint, Signer(engine.secrets))
    yield opened
    opened.close()


def a_client(store: ObjectStore) -> bytes:
    client = new_client_id()
    store.register_client(client, 60.0)
    return client


def a_uri() -> str:
    return f"gcs://_ray_pkg_{secrets.token_hex(8)}.zip"


def leave(store: ObjectStore, client: bytes) -> None:
    for _ in store.lives.leave((client,), lambda object_ids: None):
        pass


def left(store: ObjectStore, digest: bytes) -> int:
    return int(store.call(b"TTL", store.keys.function(digest)))


def test_a_package_comes_back_in_pieces_and_what_is_there_is_not_sent_again(store: ObjectStore) -> None:
    content = secrets.token_bytes(2500)
    uri = a_uri()
    kept = store.packages.put(uri, io.BytesIO(content), a_client(store))
    assert len(kept) == 4
    assert b"".join(store.packages.read(uri)) == content and store.packages.size(uri) == 2500
    sealed = store.call(b"GET", store.keys.function(kept[1]))
    store.packages.put(a_uri(), io.BytesIO(content[:1000]), a_client(store))
    assert store.call(b"GET", store.keys.function(kept[1])) == sealed


def test_a_package_goes_when_the_last_job_that_uses_it_has_left(store: ObjectStore) -> None:
    first, second = a_client(store), a_client(store)
    uri = a_uri()
    kept = store.packages.put(uri, io.BytesIO(secrets.token_bytes(1500)), first)
    assert store.packages.hold(uri, second) == kept
    leave(store, first)
    assert all(left(store, each) > YEAR for each in kept)
    leave(store, second)
    assert all(0 < left(store, each) <= 900 for each in kept)
    third = a_client(store)
    assert store.packages.hold(uri, third) == kept
    assert all(left(store, each) > YEAR for each in kept), "what is held again is not about to end"
    leave(store, third)
    assert all(0 < left(store, each) <= 900 for each in kept)


def test_what_is_not_there_cannot_be_held(store: ObjectStore) -> None:
    client, uri = a_client(store), a_uri()
    assert store.packages.hold(uri, client) is None
    kept = store.packages.put(uri, io.BytesIO(b"x" * 1500), client)
    store.call(b"DEL", store.keys.function(kept[2]))
    assert store.packages.hold(uri, client) is None
    with pytest.raises(StoreError, match="piece of a package"):
        list(store.packages.read(uri))


def test_what_others_wrote_is_never_read(store: ObjectStore) -> None:
    client, uri = a_client(store), a_uri()
    kept = store.packages.put(uri, io.BytesIO(b"x" * 1500), client)
    store.functions.put(kept[1], b"another", client)  # genuine, but for another use
    with pytest.raises(ForgedMessage):
        list(store.packages.read(uri))
    store.functions.put(kept[1], b"another", client, kind=Kind.PIECE)
    with pytest.raises(StoreError, match="not what its hash says"):
        list(store.packages.read(uri))
    store.call(b"SET", store.keys.function(digest_of(uri)), b"forged")
    with pytest.raises(ForgedMessage):
        store.packages.size(uri)
