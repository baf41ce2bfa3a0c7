"""Putting values: see `rabbitry.core.lives.puts`; and liveness: see `rabbitry.core.lives.liveness`."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from rabbitry.core.lives import puts as module
from rabbitry.core.lives.liveness import Liveness
from rabbitry.core.lives.puts import Puts
from rabbitry.exceptions import ObjectStoreFullError
from rabbitry.object_ref import ObjectRef, made_here
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.records import COPY_ASKED
from tests.api.core.fakes import OURS, Surroundings, full, result_id


@dataclass
class Case:
    """Puts over fakes."""

    around: Surroundings = field(default_factory=Surroundings)
    collected: int = 0

    def __post_init__(self) -> None:
        around = self.around
        self.lock = threading.RLock()
        self.puts = Puts(
            around.ids, around.store, around.references, values=around.values, unsent=around.unsent, lock=self.lock,
            hold=around.store.hold, require_room=around.store.require, register=around.register,
            collect=self.collect, kick=around.kick, interrupts=around.store.within(None), copy=COPY_ASKED,
        )  # fmt: skip

    def collect(self) -> None:
        self.collected += 1


@pytest.fixture
def case() -> Case:
    return Case()


def test_small_values_are_kept_back_and_sent_together(case: Case) -> None:
    refs = [case.puts.put(number) for number in range(3)]
    assert case.around.kicks == 1 and not case.around.registered
    case.puts.flush()
    case.puts.flush()
    assert list(case.around.store.records) == [ref._id for ref in refs]
    assert len(case.around.store.named("put_records")) == 1 and not case.around.unsent
    assert case.around.registered, "what a dead owner stores is cleared away"


@pytest.mark.parametrize("limit", ["UNSENT_PUTS", "UNSENT_BYTES"])
def test_who_puts_many_sends_them(case: Case, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, limit, 2)
    for number in range(2):
        case.puts.put(number)
    assert not case.around.unsent


def test_a_large_value_is_stored_at_once(case: Case) -> None:
    ref = case.puts.put(b"x" * 1_000_000)
    assert case.around.store.named("put_packed") == [(ref._id,)]
    assert case.collected == 1, "what was dropped may be the memory to use"
    assert case.around.values[ref._id].startswith(b"L")


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_value_with_refs_holds_what_it_refers_to(case: Case, size: int) -> None:
    inner = case.puts.put(1)
    outer = case.puts.put([inner, b"x" * size])
    assert inner._id in case.around.store.records, "it was sent before the ref to it left"
    assert case.around.store.named("hold") == [(b"o" + outer._id, (inner._id,))]


def test_refs_are_no_values(case: Case) -> None:
    class OfTheUser(ObjectRef[Any]):
        pass

    for ref in (made_here(result_id(1), case.around.references), OfTheUser(result_id(1))):
        with pytest.raises(TypeError, match="ObjectRef is not allowed"):
            case.puts.put(ref)


@pytest.mark.parametrize(
    ("failing", "value"),
    [("require", 1), ("put_packed", b"x" * 1_000_000), ("put_records", "refs"), ("put_records", "many")],
)
def test_a_full_store_is_told_to_who_puts(
    case: Case, failing: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.around.store.fails[failing] = full()
    if value == "refs":
        value = [made_here(result_id(1), case.around.references)]
    elif value == "many":
        monkeypatch.setattr(module, "UNSENT_PUTS", 1)
    with pytest.raises(ObjectStoreFullError):
        case.puts.put(value)


def test_values_that_were_not_sent_are_kept(case: Case) -> None:
    ref = case.puts.put(1)
    case.around.store.fails["put_records"] = full()
    with pytest.raises(ObjectStoreFullError):
        case.puts.send((ref._id,))
    assert ref._id in case.around.unsent
    case.puts.send((b"another",))


def test_a_ref_that_leaves_can_be_found_and_one_that_nobody_watches_is_held(case: Case) -> None:
    ref = case.puts.put(1)
    case.puts.sent_out()
    assert ref._id in case.around.store.records
    for _ in range(2):
        case.puts.keep_for_ever(ref._id)
    assert case.around.references.counts[ref._id] == 2


def test_a_thread_with_a_deadline_does_not_wait_for_one_that_waits_for_the_server(case: Case) -> None:
    case.puts.put(1)
    case.around.store.seconds_left = lambda: 0.001
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with case.lock:
            taken.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(20)
    case.puts.flush()
    done.set()
    thread.join(20)
    assert case.around.unsent


# -- liveness --------------------------------------------------------------------------------------------------------


@dataclass
class CaseOfLiveness:
    """A driver's record."""

    around: Surroundings = field(default_factory=Surroundings)
    started: int = 0

    def __post_init__(self) -> None:
        self.liveness = Liveness(self.around.identity, self.around.store, start_service=self.start)

    def start(self) -> None:
        self.started += 1


def test_a_driver_is_on_record_before_anything_depends_on_it() -> None:
    case = CaseOfLiveness()
    assert not case.liveness.is_due
    for _ in range(2):
        case.liveness.register()
    assert case.around.store.named("register_client") == [(OURS, 30.0, False)] and case.started == 1
    assert not case.liveness.is_due, "it has just given a sign of life"
    case.liveness._renew_at = 0.0
    assert case.liveness.is_due
    case.liveness.renew()
    assert not case.liveness.is_due and not case.liveness.counted_dead


def test_a_registration_that_failed_is_tried_again() -> None:
    case = CaseOfLiveness()
    case.around.store.fails["register_client"] = RabbitryBrokerError("away")
    with pytest.raises(RabbitryBrokerError):
        case.liveness.register()
    assert not case.liveness.registered


def test_others_are_kept_on_record_by_their_agent() -> None:
    case = CaseOfLiveness(Surroundings())
    case.liveness._identity = replace(case.around.identity, driver=False)
    case.liveness.register()
    assert case.liveness.registered and not case.around.store.calls and not case.liveness.is_due


def test_who_was_taken_for_dead_clears_up_and_restores_until_it_succeeds() -> None:
    case = CaseOfLiveness()
    heard: list[str] = []

    def restore() -> None:
        heard.append("restore")
        if len(heard) == 2:
            raise RabbitryBrokerError("away")

    case.liveness.on_died.append(lambda: heard.append("died"))
    case.liveness.restores.append(restore)
    case.liveness.register()
    case.around.store.alive = False
    with pytest.raises(RabbitryBrokerError):
        case.liveness.renew()
    assert case.liveness.counted_dead
    case.around.store.alive = True
    case.liveness.renew()
    case.liveness.renew()
    assert heard == ["died", "restore", "restore"]


def test_who_leaves_renews_nothing() -> None:
    case = CaseOfLiveness()
    case.liveness.register()
    case.liveness._renew_at = 0.0
    case.liveness.leaving = True
    assert not case.liveness.is_due
