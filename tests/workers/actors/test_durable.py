"""Which calls a durable actor's state contains: of callers that come and go."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from rabbitry_broker.ids import new_actor_id, new_client_id
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.store import ObjectStore
from rabbitry_workers.actors import durable
from rabbitry_workers.actors.durable import DurableState
from tests.conftest import Engine


@pytest.fixture
def store(engine: Engine) -> Iterator[ObjectStore]:
    opened = ObjectStore(engine.endpoint, Signer(engine.secrets))
    yield opened
    opened.close()


def test_callers_that_are_gone_for_long_are_forgotten(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "CALLERS_KEPT", 10)
    clock = [0.0]
    monkeypatch.setattr(durable.time, "monotonic", lambda: clock[0])
    client = SimpleNamespace(store=store, keys=store.keys, signer=store.signer)
    header = SimpleNamespace(actor=new_actor_id(b"jjjj"))
    state = DurableState(SimpleNamespace(client=client, header=header, spec=SimpleNamespace(durable="always")))  # type: ignore[arg-type]
    living, gone = new_client_id(), new_client_id()
    store.register_client(living, 60.0)
    state.applied(living, 1)
    state.applied(gone, 1)
    for _ in range(12):  # of which none lives either; the first look finds that out
        state.applied(new_client_id(), 1)
    assert state.is_applied(gone, 1)
    clock[0] = durable.GONE_SECONDS + 1
    for _ in range(3):
        state.applied(new_client_id(), 1)
    assert state.is_applied(living, 1)
    assert not state.is_applied(gone, 1)
