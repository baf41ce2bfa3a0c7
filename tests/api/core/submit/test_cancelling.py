"""Cancelling: see `rabbitry.core.submit.cancelling`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from rabbitry.core.submit import cancelling as module
from rabbitry.core.submit.cancelling import Cancelling
from rabbitry.exceptions import TaskCancelledError, load_task_error
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import CLIENT_BYTES, object_id
from rabbitry_broker.messages import decode_completion
from tests.api.core.fakes import OURS, SIGNER, THEIRS, Surroundings, result_id, task_id


@dataclass
class Case:
    """Cancelling over fakes."""

    around: Surroundings = field(default_factory=Surroundings)
    waiting: set[bytes] = field(default_factory=set)
    committed: list[bytes] = field(default_factory=list)
    ended: list[tuple[bytes, bool]] = field(default_factory=list)
    fails: Exception | None = None

    def __post_init__(self) -> None:
        around = self.around
        self.cancelling = Cancelling(
            around.identity, around.flight, streams=around.streams, values=around.values, store=around.store,
            withdraw=lambda task: task in self.waiting, owns=around.references.owns, commit=self.commit,
            ended_here=lambda tasks, items, untold: self.ended.extend((each, untold) for each in tasks),
            kick=around.kick,
        )  # fmt: skip

    def commit(self, items: list[bytes]) -> None:
        if self.fails is not None:
            raise self.fails
        self.committed += items

    def cancel(self, number: int, results: int = 1) -> None:
        self.cancelling.cancel(task_id(number), force=False, recursive=True, results=results)


@pytest.fixture
def case() -> Case:
    return Case()


def test_a_task_that_was_not_sent_ends_here_with_all_its_results(case: Case) -> None:
    case.waiting.add(task_id(1))
    case.around.flight.returns[task_id(1)] = 2
    case.cancel(1)
    assert case.committed[::2] == [object_id(task_id(1), 1), object_id(task_id(1), 2)]
    assert isinstance(load_task_error(case.committed[1][1:]), TaskCancelledError)
    assert case.ended == [(task_id(1), True)]
    assert not case.around.store.named("announce_cancel")


def test_a_task_without_results_ends_without_a_commit(case: Case) -> None:
    case.waiting.add(task_id(1))
    case.cancel(1, results=0)
    assert (case.committed, case.ended) == ([], [(task_id(1), True)])


def test_a_task_that_was_sent_is_left_to_the_node_that_claims_it(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CANCEL_GRACE_SECONDS", 0.0)
    case.cancel(1)
    assert case.around.store.named("announce_cancel") and case.around.kicks
    assert case.cancelling.waiting and case.cancelling.expects_late
    case.cancelling.claimed(task_id(1))
    case.cancelling.end_due()
    assert case.ended == [] and not case.cancelling.waiting


def test_what_nobody_claims_in_time_ends_here(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.cancel(1)
    case.cancelling.end_due()
    assert case.ended == [], "there is time left"
    case.cancelling.claimed(task_id(1))
    monkeypatch.setattr(module, "CANCEL_GRACE_SECONDS", 0.0)
    case.cancel(1)
    case.cancelling.announce()
    case.fails = RabbitryBrokerError("away")
    with pytest.raises(RabbitryBrokerError):
        case.cancelling.end_due()
    case.fails = None
    case.cancelling.end_due()
    assert case.ended == [(task_id(1), False)]


def test_what_no_node_has_ends_here_at_once(case: Case) -> None:
    case.around.store.nodes = 2
    case.cancel(1)
    case.cancelling.announce()
    case.cancel(2)
    case.cancelling.announce()
    case.around.kicks = 0
    case.cancelling.passed(b"one", [task_id(1), task_id(2), task_id(3)])
    case.cancelling.passed(b"one", [task_id(1)])  # it was asked twice
    case.cancelling.end_due()
    assert case.ended == [] and not case.around.kicks, "the other node may have them"
    case.cancelling.passed(b"other", [task_id(1)])
    assert case.around.kicks
    case.cancelling.claimed(task_id(2))
    case.cancelling.passed(b"other", [task_id(2)])
    case.cancelling.end_due()
    assert case.ended == [(task_id(1), False)] and not case.cancelling.waiting


def test_nodes_may_answer_before_the_announcement_has_returned(case: Case) -> None:
    announce = case.around.store.announce_cancel

    def answered(*arguments: Any, **options: Any) -> int:
        nodes = announce(*arguments, **options)
        case.cancelling.passed(b"node", [task_id(1)])
        return nodes

    case.around.store.announce_cancel = answered
    case.cancel(1)
    case.cancelling.end_due()
    assert case.ended == [(task_id(1), False)]


def test_without_nodes_a_task_is_in_its_queue(case: Case) -> None:
    case.around.store.nodes = 0
    case.cancel(1)
    case.cancelling.end_due()
    assert case.ended == [(task_id(1), False)]


def test_the_owner_of_another_s_task_is_asked(case: Case) -> None:
    case.cancelling.cancel(task_id(1, THEIRS), force=True, recursive=False)
    ((client, entry),) = case.around.store.named("tell")
    note = decode_completion(SIGNER, THEIRS, entry)
    assert (client, note.note, note.items, note.ended) == (THEIRS, "cancel", [b"force"], [task_id(1, THEIRS)])


def test_children_that_have_ended_are_left_alone(case: Case) -> None:
    for number in (1, 2):
        case.around.flight.submitted_by(b"parent", task_id(number))
    case.around.values[result_id(1)] = b"N"
    case.cancelling.cancel_children(b"parent", force=False)
    assert [call[1] for call in case.around.store.named("announce_cancel")] == [[task_id(2)]]
    assert case.around.flight.children == {}


def test_many_cancellations_are_announced_together(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ALONE_SECONDS", 1000.0)
    for number in range(5):
        case.cancel(number)
    case.cancelling.cancel(task_id(5), force=True, recursive=True)
    assert [call[1] for call in case.around.store.named("announce_cancel")] == [[task_id(0)]], "a lone one goes at once"
    assert case.cancelling.unannounced and case.around.kicks
    case.cancelling.announce()
    assert [call[1] for call in case.around.store.named("announce_cancel")][1:] == [
        [task_id(number) for number in (1, 2, 3, 4)],
        [task_id(5)],  # by force
    ]
    assert not case.cancelling.unannounced


def test_whoever_cancels_very_many_announces_them(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ALONE_SECONDS", 1000.0)
    for number in range(module.ANNOUNCED_AT + 1):
        case.cancel(number)
    assert [len(call[1]) for call in case.around.store.named("announce_cancel")] == [1, module.ANNOUNCED_AT]


def test_what_could_not_be_announced_is_announced_later(case: Case) -> None:
    case.around.store.fails["announce_cancel"] = RabbitryBrokerError("away")
    with pytest.raises(RabbitryBrokerError):
        case.cancel(1)
    case.around.store.fails.clear()
    case.cancelling.announce()
    assert [call[1] for call in case.around.store.named("announce_cancel")][-1] == [task_id(1)]


def test_a_claim_may_come_before_the_announcement_has_returned(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CANCEL_GRACE_SECONDS", 0.0)
    announce = case.around.store.announce_cancel

    def claimed(*arguments: Any, **options: Any) -> int:
        nodes = announce(*arguments, **options)
        case.cancelling.claimed(task_id(1))
        return nodes

    case.around.store.announce_cancel = claimed
    case.cancel(1)
    case.cancelling.end_due()
    assert case.ended == [] and not case.cancelling.waiting


def test_ends_are_committed_together_but_each_owner_s_alone(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CANCEL_GRACE_SECONDS", 0.0)
    commits: list[list[bytes]] = []
    case.cancelling._commit = lambda items: commits.append(list(items[::2]))
    for number, owner in enumerate((OURS, OURS, THEIRS, THEIRS, OURS, OURS)):
        case.cancelling.cancel(task_id(number, owner), force=False, recursive=True)
    case.cancelling.announce()
    case.cancelling.end_due()
    assert sorted(map(len, commits)) == [2, 4]
    assert all(len({key[:CLIENT_BYTES] for key in commit}) == 1 for commit in commits)
    assert len(case.ended) == 6
