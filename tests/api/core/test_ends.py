"""Ends that a client commits itself: see `rabbitry.core.ends`."""

from __future__ import annotations

from typing import Any

from rabbitry.core.ends import Ends
from rabbitry_broker.messages import decode_completion
from tests.api.core.fakes import OURS, SIGNER, THEIRS, FakePublisher, FakeStore, result_id


class Store(FakeStore):
    """One task waited for the result, and one other client."""

    def dependants(self, owner: bytes, left: Any) -> tuple[list[Any], list[tuple[bytes, bytes]]]:
        return [(b"spec", b"frame", "queue", 3, b"", b"")], [(THEIRS, result_id(1)[12:])]


def test_what_waited_is_published_and_who_waits_is_told() -> None:
    store, publisher = Store(), FakePublisher()
    Ends(store, publisher, SIGNER).commit([result_id(1), b"E"])
    assert store.named("commit") == [(OURS, [result_id(1), b"E"])]
    assert publisher.published == [("queue", b"frame", 3)]
    assert store.named("launched"), "it is on its queue for certain"
    ((client, entry),) = store.named("tell")
    assert client == THEIRS
    assert decode_completion(SIGNER, THEIRS, entry).items == [result_id(1), b"E"]


def test_the_spec_of_what_is_not_confirmed_stays() -> None:
    store, publisher = Store(), FakePublisher()
    publisher.flush = lambda timeout=None: False  # type: ignore[method-assign]
    Ends(store, publisher, SIGNER).commit([result_id(1), b"E"])
    assert not store.named("launched")
