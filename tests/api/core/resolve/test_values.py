"""What becomes of results that come: see `rabbitry.core.resolve.values` and `streams`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import pytest

from rabbitry.core.resolve import values as module
from rabbitry.core.resolve.streams import Stream, Streams, stream_pin
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import object_id
from rabbitry_broker.messages import Completion
from tests.api.core.fakes import THEIRS, Surroundings, result_id, task_id


def completion(*numbers: int, record: bytes = b"N", ended: list[bytes] | None = None) -> Completion:
    items = [each for number in numbers for each in (result_id(number), record)]
    return Completion(b"", len(numbers), 0.0, items, ended or [])


@pytest.fixture
def around() -> Surroundings:
    around = Surroundings()
    for number in range(1, 5):
        around.references.new(result_id(number))
    around.flight.count = 4
    return around


def test_results_with_handles_are_kept_and_counted(around: Surroundings) -> None:
    around.flight.returns[task_id(1)] = 2
    around.flight.calls[task_id(2)] = around.plans().end(b"actor", None)  # type: ignore[arg-type]
    around.references.pin(task_id(1), (b"pinned",))
    known = around.known()
    before = known.generation
    known.accept(completion(1, 2))
    assert around.values == {result_id(1): b"N", result_id(2): b"N"}
    assert around.flight.count == 2 and not around.flight.returns and not around.flight.calls
    assert list(around.references.dropped) == [b"pinned"]
    assert known.generation is not before, "a leader that is about to block must look again"


def test_the_first_result_stands(around: Surroundings) -> None:
    known = around.known()
    known.accept(completion(1))
    known.accept(completion(1, record=b"Eother"))
    assert around.values[result_id(1)] == b"N"


def test_results_without_handles_are_let_go_of(around: Surroundings) -> None:
    around.known().accept(completion(9))
    assert around.unheld == [result_id(9)] and around.kicks == 1
    assert ("came unheld", result_id(9)) in around.unhandled.heard


def test_failures_are_told_to_those_who_wait_for_many(around: Surroundings) -> None:
    known = around.known()
    errors: list[bytes] = []
    known.error_listeners.append(errors)
    known.accept(completion(1, record=b"E..."))
    assert errors == [result_id(1)]
    assert around.unhandled.heard == [("came", result_id(1))]


def test_callbacks_are_due_once(around: Surroundings) -> None:
    known = around.known()
    known.callbacks[result_id(1)] = [lambda: None]
    known.accept(completion(1))
    known.accept(completion(1))
    assert len(known.due) == 1 and not known.callbacks


def test_a_failure_that_a_callback_waited_for_is_read(around: Surroundings) -> None:
    """Whoever waited may have been cancelled: nobody will ask for the value."""
    known = around.known()
    known.callbacks[result_id(1)] = [lambda: None]
    known.accept(completion(1, record=b"E..."))
    assert around.unhandled.heard == [("came", result_id(1)), ("read", result_id(1))]


def test_a_callback_is_awaited_or_due_at_any_time(around: Surroundings) -> None:
    """The thread that runs them rests when it finds neither."""
    known = around.known()
    known.callbacks[result_id(1)] = [lambda: None]
    seen: list[bool] = []

    class Due(deque[Callable[[], None]]):
        def extend(self, callbacks: Iterable[Callable[[], None]]) -> None:
            seen.append(bool(known.callbacks))
            super().extend(callbacks)

    known.due = Due()
    known.accept(completion(1))
    assert seen == [True] and len(known.due) == 1 and not known.callbacks


def test_what_a_poll_found_is_not_counted_again_when_its_completion_comes(around: Surroundings) -> None:
    known = around.known()
    known.accept_early([result_id(1), b"N"])
    assert around.flight.count == 3
    known.accept(completion(1))
    assert around.flight.count == 3
    known.accept(completion(2))
    assert around.flight.count == 2


def test_a_poll_of_others_objects_or_returned_ones_ends_no_task(around: Surroundings) -> None:
    known = around.known(returned={result_id(1)})
    known.count_early([result_id(1), result_id(1, THEIRS)])
    assert around.flight.count == 4


def test_what_is_remembered_of_polls_is_limited(around: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COUNTED_KEPT", 2)
    known = around.known()
    for number in range(10):
        known.count_early([result_id(number)])
    assert len(known._counted) <= 4


def test_what_was_subscribed_is_not_asked_for_again_until_it_came(around: Surroundings) -> None:
    known = around.known()
    known.subscribed.update((result_id(1), result_id(2)))
    known.accept(completion(1))
    assert known.subscribed == {result_id(2)}


def test_items_of_streams_are_kept_for_their_generator(around: Surroundings) -> None:
    stream = around.streams[task_id(7)] = Stream()
    around.references.pin(stream_pin(task_id(7)), (b"pinned",))
    known = around.known()
    first, second = object_id(task_id(7), 1), object_id(task_id(7), 2)
    known.accept(Completion(b"", 0, 0.0, [second, b"N", first, b"N"]))
    assert set(around.values) == {first, second} and stream.highest == 2
    stream.next = 2
    known.accept(Completion(b"", 1, 0.0, [first, b"N"], [task_id(7)]))
    assert around.unheld == [first], "a retried producer sent it again"
    assert stream.ended and list(around.references.dropped) == [b"pinned"]


class CaseOfStreams:
    """Streams of which one is open."""

    def __init__(self, *, counted: bool = False) -> None:
        self.around = Surroundings()
        around = self.around
        self.callbacks: dict[bytes, list[Callable[[], None]]] = {}
        self.streams = Streams(
            around.references, around.values, around.streams, store=around.store, keys=around.identity.keys,
            callbacks=self.callbacks, unheld=lambda key, record: around.unheld.append(key),
            cancel=around.store.cancel,
        )  # fmt: skip
        self.stream = self.streams.open(task_id(1), counted=counted)
        for number in (1, 2):
            self.stream.take(object_id(task_id(1), number), b"N", around.values)

    def end(self) -> None:
        self.streams.abandon(task_id(1))
        self.streams.end_abandoned()


def test_callbacks_on_the_next_item_go_with_the_generator() -> None:
    case = CaseOfStreams()
    case.stream.next = 3
    held, awaited = object_id(task_id(2), 1), object_id(task_id(1), 3)
    case.callbacks.update({held: [lambda: None], awaited: [lambda: None]})
    case.end()
    assert list(case.callbacks) == [held]


@pytest.mark.parametrize("ended", [True, False])
def test_a_dropped_generator_stops_its_producer_and_lets_go_of_what_was_not_read(ended: bool) -> None:
    case = CaseOfStreams()
    case.around.references.new(object_id(task_id(1), 1))
    case.stream.ended = ended
    case.end()
    case.end()
    assert case.around.unheld == [object_id(task_id(1), 2)]
    assert len(case.around.store.named("cancel")) == (0 if ended else 1)
    assert not case.streams.is_open(task_id(1))


@pytest.mark.parametrize("ended", [True, False])
def test_a_counted_producer_that_pauses_finds_a_mark(ended: bool) -> None:
    case = CaseOfStreams(counted=True)
    case.streams.count_read(task_id(1))
    case.stream.ended = ended
    case.end()
    assert [call[0] for call in case.around.store.named("call")] == [b"INCR", b"DEL" if ended else b"SET"]


def test_a_producer_that_could_not_be_stopped_is_stopped_later() -> None:
    case = CaseOfStreams()
    case.around.store.fails["cancel"] = RabbitryBrokerError("away")
    case.around.store.__dict__["cancel"] = lambda *_, **__: case.around.store._note("cancel")
    case.streams._cancel = case.around.store.cancel
    with pytest.raises(RabbitryBrokerError):
        case.end()
    case.around.store.fails.clear()
    case.streams.end_abandoned()
    assert case.around.store.named("cancel") and not case.streams.abandoned


def test_generators_that_go_after_the_end_are_nobody_s_business() -> None:
    case = CaseOfStreams()
    case.streams.closed = True
    case.end()
    assert case.streams.is_open(task_id(1))
    case.streams.withdraw(task_id(1))
    assert case.stream.ended
