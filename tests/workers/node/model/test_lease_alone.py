"""A store that renews the lease of the node whose loop is late, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from rabbitry_broker.store.server import Server
from rabbitry_workers.node.model import lease
from rabbitry_workers.node.model.lease import LeasedServer
from tests.workers.node.fakes import World


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    made: Any = LeasedServer.__new__(LeasedServer)
    made.endpoint = World().node.endpoint
    monkeypatch.setattr(Server, "call", lambda self, *args: "alone")
    monkeypatch.setattr(Server, "script", lambda self, name, *args: "alone")
    monkeypatch.setattr(Server, "pipeline", lambda self, commands: [each[0] for each in commands])
    monkeypatch.setattr(
        Server,
        "pipeline_of_scripts",
        lambda self, calls, before=(): [*[each[0] for each in calls], *[each[0] for each in before]],
    )
    return made


def send(store: Any) -> list[Any]:
    return [
        store.call(b"A"),
        store.pipeline([(b"A",), (b"B",)]),
        store.script("name"),
        store.pipeline_of_scripts([("name", ())]),
    ]


IN_TIME = ["alone", [b"A", b"B"], "alone", ["name"]]


def test_commands_in_time_are_sent_as_they_are(store: Any):
    assert send(store) == IN_TIME
    store.sign_of_life(b"n", 30.0)
    assert send(store) == IN_TIME


def test_late_ones_take_a_renewal_along(store: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lease, "LATE", 0.0)
    store.sign_of_life(b"n", 30.0)
    assert send(store) == [b"A", [b"A", b"B"], "name", ["name", b"PEXPIRE"]]
