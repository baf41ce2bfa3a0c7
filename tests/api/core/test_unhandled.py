"""Failures that nobody reads: see `rabbitry.core.unhandled`."""

from __future__ import annotations

import logging

import pytest

from rabbitry.core.failures import killed_cause
from rabbitry.core.unhandled import UnhandledErrors
from rabbitry.exceptions import ActorDiedError, TaskCancelledError, TaskError, store_error
from rabbitry_broker.records import ERROR
from tests.api.core.fakes import THEIRS, Surroundings, result_id

INIT_FAILED = ERROR + store_error(ActorDiedError(TaskError("Actor.__init__()", "a traceback", ValueError("no"))))
KILLED = ERROR + killed_cause(b"a" * 16)
CANCELLED = ERROR + store_error(TaskCancelledError("ab"))


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("rabbitry"), "propagate", True)
    caplog.set_level(logging.ERROR, "rabbitry")
    return caplog


def test_a_failure_that_is_dropped_unread_is_due() -> None:
    unhandled = UnhandledErrors(Surroundings().references, ())
    unhandled.came(result_id(1), CANCELLED)
    unhandled.dropped(result_id(1), CANCELLED)
    assert list(unhandled.due) == [(result_id(1), CANCELLED)]
    assert not unhandled.unread


def test_a_failure_that_was_read_or_passed_on_or_is_another_s_is_not_due() -> None:
    references = Surroundings().references
    unhandled = UnhandledErrors(references, ())
    references.passed.add(result_id(2))
    for key in (result_id(1), result_id(2), result_id(3, THEIRS)):
        unhandled.came(key, CANCELLED)
    unhandled.read([result_id(1)])
    for key in (result_id(1), result_id(2), result_id(3, THEIRS)):
        unhandled.dropped(key, CANCELLED)
    assert not unhandled.due


def test_a_result_that_was_dropped_before_it_came_is_told_of_if_it_failed() -> None:
    unhandled = UnhandledErrors(Surroundings().references, ())
    for number, record in ((1, CANCELLED), (2, b"N")):
        unhandled.dropped_early(result_id(number))
        unhandled.came_unheld(result_id(number), record)
    unhandled.came_unheld(result_id(3), CANCELLED)  # an item of a stream
    assert list(unhandled.due) == [(result_id(1), CANCELLED)]


def test_a_failed_constructor_is_told_of_once(told: pytest.LogCaptureFixture) -> None:
    unhandled = UnhandledErrors(Surroundings().references, {result_id(1): b"actor"})
    unhandled.came(result_id(1), INIT_FAILED)
    unhandled.came(result_id(1), INIT_FAILED)
    unhandled.run_once()
    assert len(told.records) == 1


def test_what_the_user_did_himself_is_not_told(told: pytest.LogCaptureFixture) -> None:
    unhandled = UnhandledErrors(Surroundings().references, ())
    unhandled.due.extend([(result_id(1), CANCELLED), (result_id(2), KILLED)])
    unhandled.run_once()
    assert not told.records and not unhandled.due


def test_a_variable_silences_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    unhandled = UnhandledErrors(Surroundings().references, (result_id(1),))
    unhandled.came(result_id(1), INIT_FAILED)
    unhandled.came(result_id(2), CANCELLED)
    unhandled.dropped_early(result_id(3))
    unhandled.came_unheld(result_id(3), CANCELLED)
    assert not unhandled.due and not unhandled.unread
