"""What is in flight: see `rabbitry.core.flight`."""

from __future__ import annotations

from rabbitry.core.flight import Flight
from tests.api.core.fakes import Surroundings, task_id


def test_what_ended_twice_is_counted_down_to_nothing_at_most() -> None:
    flight = Flight()
    flight.count = 2
    flight.ended(1)
    assert flight.count == 1
    flight.ended(5)
    assert flight.count == 0


def test_all_may_end_at_once() -> None:
    flight = Flight()
    flight.count = 7
    flight.ended(None)
    assert flight.count == 0


def test_the_children_of_a_task_are_taken_once() -> None:
    flight = Flight()
    flight.submitted_by(b"parent", b"a")
    flight.submitted_by(b"parent", b"b")
    flight.submitted_by(b"other", b"c")
    assert flight.take_children(b"parent") == [b"a", b"b"]
    assert flight.take_children(b"parent") == []
    assert flight.children == {b"other": [b"c"]}


def test_how_many_results_a_task_has_is_known_from_its_call_or_its_handles_or_guessed() -> None:
    around = Surroundings()
    flight = around.flight
    flight.returns[b"several"] = 3
    flight.calls[b"call"] = around.plans().end(b"actor", None)  # type: ignore[arg-type]
    assert flight.results_of(b"several", 1) == 3
    assert flight.results_of(b"call", 1) == 0
    assert flight.results_of(task_id(1), 2) == 2
    flight.forget(b"several")
    assert flight.results_of(b"several", 1) == 1


def test_calls_are_found_by_their_actor() -> None:
    around = Surroundings()
    flight, plans = around.flight, around.plans()
    flight.calls[b"1"] = first = plans.end(b"one", None)  # type: ignore[arg-type]
    flight.calls[b"2"] = plans.end(b"two", None)  # type: ignore[arg-type]
    assert flight.busy_actors() == {b"one", b"two"}
    assert flight.calls_to(b"one") == [(b"1", first)]
