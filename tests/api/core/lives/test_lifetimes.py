"""What the store is told of handles: see `rabbitry.core.lives.references`, `lifetimes` and `collecting`."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest

from rabbitry.core.lives import lifetimes as module
from rabbitry.core.lives.collecting import Collecting
from rabbitry.core.lives.lifetimes import Lifetimes
from rabbitry.exceptions import ObjectFreedError, OwnerDiedError, load_task_error
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import INDEX_ARGUMENTS
from tests.api.core.fakes import DETACHED, OURS, THEIRS, Surroundings, result_id, task_id


@dataclass
class Case:
    """Lifetimes over fakes."""

    around: Surroundings = field(default_factory=Surroundings)
    actors: dict[bytes, bytes] = field(default_factory=dict)
    forgotten: list[bytes] = field(default_factory=list)
    released: list[bytes] = field(default_factory=list)
    committed: list[bytes] = field(default_factory=list)
    held: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        around = self.around
        drop = around.store.drop
        around.store.drop = lambda ids, *, plain=False: (drop(ids, plain=plain)[0] | (self.held & {*ids}), [])
        self.lifetimes = Lifetimes(
            around.identity, around.store, around.references, values=around.values, unsent=around.unsent,
            actors=self.actors, unread=around.unhandled, register=around.register, forget=self.forgotten.extend,
            actor_released=self.released.append, commit_errors=self.committed.extend,
        )  # fmt: skip

    def drop(self, *keys: bytes, record: bytes | None = b"N") -> None:
        """The last handles on these go."""
        for key in keys:
            self.around.references.counts.setdefault(key, 1)
            if record is not None:
                self.around.values[key] = record
            self.around.references.dropped.append(key)
        self.lifetimes.collect()

    def told(self, name: str) -> list[Any]:
        return self.around.store.named(name)


@pytest.fixture
def case() -> Case:
    return Case()


def test_plain_values_of_ours_are_dropped_together(case: Case) -> None:
    case.drop(result_id(1), result_id(2))
    assert case.told("drop") == [([result_id(1), result_id(2)], True)]
    assert not case.around.values and not case.around.references.counts


def test_very_many_are_let_go_of_in_steps(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", 2)
    case.drop(*[result_id(number) for number in range(5)])
    assert case.told("drop") == [
        ([result_id(0), result_id(1)], True),
        ([result_id(2), result_id(3)], True),
        ([result_id(4)], True),
    ]
    assert not case.around.values and not case.around.references.counts and not case.lifetimes.waiting


def test_tables_of_very_many_handles_shrink_once_these_are_gone(case: Case) -> None:
    counts, values = case.around.references.counts, case.around.values
    keys = [result_id(number) for number in range(50_000)]
    case.drop(*keys)
    counts[result_id(1)] = 1
    case.lifetimes.shrink()
    assert sys.getsizeof(counts) < 10_000 and sys.getsizeof(values) < 10_000
    assert counts == {result_id(1): 1} and values == {}


@pytest.mark.parametrize("record", [b"L...", b"C..."])
def test_values_with_buffers_or_refs_take_more(case: Case, record: bytes) -> None:
    case.drop(result_id(1), record=record)
    assert case.told("drop") == [([result_id(1)], False)]


def test_what_was_never_sent_is_not_told_of(case: Case) -> None:
    case.around.unsent[result_id(1)] = b"N"
    case.drop(result_id(1))
    assert not case.told("drop") and not case.around.unsent


def test_what_is_not_here_yet_is_dropped_when_it_comes(case: Case) -> None:
    case.drop(result_id(1), record=None)
    assert not case.told("drop")
    assert ("dropped early", result_id(1)) in case.around.unhandled.heard
    case.lifetimes.unheld(result_id(1), b"N")
    case.lifetimes.unheld(result_id(2, THEIRS), b"N")
    assert case.lifetimes.waiting
    case.lifetimes.collect()
    assert case.told("drop") == [([result_id(1)], True)], "others' results are not ours to drop"


@pytest.mark.parametrize("together", [1, 10])
@pytest.mark.parametrize("first_had_a_handle", [True, False])
def test_of_a_result_that_came_twice_what_the_first_one_has_is_looked_for_while_it_stands(
    case: Case, monkeypatch: pytest.MonkeyPatch, first_had_a_handle: bool, together: int
) -> None:
    monkeypatch.setattr(module, "TOGETHER", together)
    if first_had_a_handle:
        case.around.references.counts[result_id(1)] = 1
        case.around.values[result_id(1)] = b"L..."
        case.around.references.dropped.append(result_id(1))
    else:
        case.lifetimes.unheld(result_id(1), b"L...")
    case.lifetimes.unheld(result_id(1), b"E...")
    case.lifetimes.collect()
    assert case.told("drop") == [([result_id(1)], False), ([result_id(1)], True)]
    assert not case.lifetimes.waiting


def test_a_handle_that_came_back_meanwhile_keeps_it(case: Case) -> None:
    case.lifetimes.unheld(result_id(1), b"N")
    case.around.references.new(result_id(1))
    case.lifetimes.collect()
    assert not case.told("drop") and case.lifetimes.returned == {result_id(1)}
    assert not case.lifetimes.known_here(result_id(1)), "nobody tells us of it"
    case.drop(result_id(1))
    assert case.told("drop") == [([result_id(1)], False)] and not case.lifetimes.returned


def test_foreign_objects_are_borrowed_once_and_given_back(case: Case) -> None:
    key = result_id(1, THEIRS)
    for _ in range(2):
        case.around.references.add(key)
        case.lifetimes.settle()
    assert case.told("borrow") == [(OURS, [key])] and case.around.registered == 1
    case.around.references.dropped.append(key)
    case.drop(key)
    assert case.told("give_back") == [(OURS, [key])] and case.forgotten == [key]
    assert not case.lifetimes.borrowed


def test_handles_that_went_before_they_were_registered_are_not(case: Case) -> None:
    case.around.references.add(result_id(1, THEIRS))
    case.drop(result_id(1, THEIRS), record=None)
    case.lifetimes.settle()
    assert not case.told("borrow")


def test_a_handle_on_an_object_of_ours_reclaims_it(case: Case) -> None:
    case.around.references.add(result_id(1))
    case.around.references.add(result_id(2, DETACHED))
    case.lifetimes.settle()
    assert case.told("reclaim") == [([result_id(1)],)] and case.lifetimes.returned == {result_id(1)}


def test_what_could_not_be_registered_is_registered_later(case: Case) -> None:
    case.around.store.fails["borrow"] = RabbitryBrokerError("away")
    case.around.references.add(result_id(1, THEIRS))
    with pytest.raises(RabbitryBrokerError):
        case.lifetimes.settle()
    case.around.store.fails.clear()
    case.lifetimes.settle()
    assert case.told("borrow")


def test_an_actor_without_handles_is_released_unless_others_hold_it(case: Case) -> None:
    case.actors.update({result_id(1): b"one", result_id(2): b"two"})
    case.held.add(result_id(2))
    case.drop(result_id(1), result_id(2))
    assert case.released == [b"one"] and not case.actors


def test_detached_objects_stay_but_not_their_tasks_arguments(case: Case) -> None:
    case.drop(result_id(1, DETACHED), task_id(1, DETACHED) + INDEX_ARGUMENTS)
    assert case.told("drop") == [([task_id(1, DETACHED) + INDEX_ARGUMENTS], False)]


def test_unread_failures_are_told_of(case: Case) -> None:
    case.drop(result_id(1), record=b"E...")
    assert ("dropped", result_id(1)) in case.around.unhandled.heard


@pytest.mark.parametrize("failing", ["drop", "give_back"])
def test_what_the_store_was_not_told_is_told_again(case: Case, failing: str) -> None:
    store = case.around.store
    works = store.__dict__.pop("drop")
    case.actors[result_id(2)] = b"actor"
    case.lifetimes.borrowed.add(result_id(3, THEIRS))
    store.fails[failing] = RabbitryBrokerError("away")
    with pytest.raises(RabbitryBrokerError):
        case.drop(result_id(1), result_id(2), result_id(3, THEIRS))
    store.fails.clear()
    store.drop = works
    case.lifetimes.collect()
    dropped = {key for call in case.told("drop") for key in call[0]}
    assert {result_id(1), result_id(2)} <= dropped
    assert case.told("give_back") == [(OURS, [result_id(3, THEIRS)])] and case.released == [b"actor"]


def test_who_reads_what_was_freed_is_told_so(case: Case) -> None:
    case.around.values[result_id(1)] = b"N"
    case.lifetimes.free([result_id(1), result_id(2)])
    assert isinstance(load_task_error(case.around.values[result_id(1)][1:]), ObjectFreedError)
    assert result_id(2) not in case.around.values and len(case.told("free")) == 1


def test_whoever_was_taken_for_dead_has_borrowed_nothing(case: Case) -> None:
    case.lifetimes.borrowed.add(result_id(1, THEIRS))
    for key in (result_id(1), result_id(2), result_id(3, THEIRS)):
        case.around.references.new(key)
    case.around.values[result_id(2)] = b"N"
    assert case.lifetimes.died() == [result_id(1)]
    assert not case.lifetimes.borrowed


def test_who_leaves_tells_those_who_wait(case: Case) -> None:
    case.around.references.dropped.append(result_id(5))
    case.lifetimes.goodbye()
    assert case.told("leave") == [((OURS,),)] and not case.around.references.dropped
    assert isinstance(load_task_error(case.committed[1][1:]), OwnerDiedError)
    case.lifetimes.finish()
    assert case.told("finish_graves") == [(OURS,)]


def test_pins_hold_what_they_name() -> None:
    references = Surroundings().references
    references.new(result_id(1))
    references.pin(b"holder", (result_id(1), result_id(2)))
    references.pin(b"holder", (result_id(3),))
    references.dropped.append(result_id(1))
    assert references.collect({}) == [] and references.passed == {result_id(1), result_id(2), result_id(3)}
    references.unpin(b"holder")
    references.unpin(b"holder")
    assert {key for key, _ in references.collect({result_id(2): b"N"})} == {result_id(number) for number in (1, 2, 3)}
    assert not references.passed and not references.holds(result_id(1))


class CaseOfCollecting(Case):
    """When to let go."""

    def collecting(self) -> Collecting:
        self.ending: deque[bytes] = deque()
        self.sent: list[int] = []
        unhandled: Any = self.around.unhandled
        unhandled.run_once = lambda: self.sent.append(-1)
        return Collecting(
            self.lifetimes, unhandled, ending=self.ending, send_ends=lambda: self.sent.append(len(self.ending)),
            kick=self.around.kick,
        )  # fmt: skip


def test_collecting_ends_actors_and_tells_of_failures() -> None:
    case = CaseOfCollecting()
    collecting = case.collecting()
    collecting.collect()
    assert case.sent == []
    case.ending.append(b"actor")
    case.around.unhandled.due.append((b"", b""))
    collecting.collect()
    collecting.between_tasks()
    assert case.sent == [1, -1, 1, -1]


def test_a_full_store_has_actors_ended_by_another_thread() -> None:
    case = CaseOfCollecting()
    collecting = case.collecting()
    case.ending.append(b"actor")
    collecting.make_room()
    assert case.sent == [] and case.around.kicks == 1


def test_the_end_of_a_task_waits_for_collecting_only_if_it_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    case = CaseOfCollecting()
    collecting = case.collecting()
    case.around.references.new(result_id(1))
    case.around.references.dropped.append(result_id(1))
    collecting.settle()
    assert not case.told("drop")
    monkeypatch.setattr(module, "COLLECT_AT", 0)
    collecting.settle()
    assert case.lifetimes._gone == []
