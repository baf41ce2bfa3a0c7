"""Ends that a client commits itself: see `rabbitry.core.ends`."""

from __future__ import annotations

from typing import Any

from rabbitry.core.ends import Ends
from rabbitry_broker.messages import decode_completion
from rabbitry_broker.store.results import OWNER_GONE
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


class Left(FakeStore):
    """The owner has said goodbye."""

    def commit(self, owner: bytes, items: Any, entry: bytes, *, require_owner: bool) -> list[Any]:
        super().commit(owner, items, entry, require_owner=require_owner)
        return [OWNER_GONE] if require_owner else []

    def dependants(self, owner: bytes, left: Any) -> tuple[list[Any], list[tuple[bytes, bytes]]]:
        assert OWNER_GONE not in left, "that is no list of what is left to do"
        self._note("dependants", owner)
        return [], []


def test_nothing_is_written_for_an_owner_that_is_gone() -> None:
    """A client ends what nobody has cancelled for it 0.15 s later: by then it may have said goodbye."""
    store = Left()
    Ends(store, FakePublisher(), SIGNER).commit([result_id(1), b"E"])
    assert not store.named("dependants")


def test_what_has_no_living_owner_is_written_all_the_same() -> None:
    store, detached = Left(), bytes([0x80]) + result_id(1)[1:]
    ends = Ends(store, FakePublisher(), SIGNER)
    ends.commit([detached, b"E"])
    ends.commit_orphans([result_id(1), b"E"])
    assert len(store.named("dependants")) == 2


def test_the_spec_of_what_is_not_confirmed_stays() -> None:
    store, publisher = Store(), FakePublisher()
    publisher.flush = lambda timeout=None: False  # type: ignore[method-assign]
    Ends(store, publisher, SIGNER).commit([result_id(1), b"E"])
    assert not store.named("launched")
