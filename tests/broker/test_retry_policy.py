"""Retries: who is run again, with how many attempts counted, and when."""

from __future__ import annotations

import pickle

import pytest

from rabbitry_broker.retry_policy import (
    ANY_EXCEPTION,
    DURABLE_ATTEMPTS,
    after_crash,
    after_exception,
    after_lost_node,
    delay,
    of_actor_call,
    of_durable_call,
)

UNLIMITED = -1
LOOKUP = pickle.dumps((LookupError,))


class Caused(Exception):
    """An error of a task that was an argument, as callers see it."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__()
        self.cause = cause


@pytest.mark.parametrize(
    ("max_retries", "wanted", "attempts", "error", "expected"),
    [
        (3, b"", 0, KeyError(), None),
        (3, ANY_EXCEPTION, 0, KeyError(), 1),
        (3, ANY_EXCEPTION, 2, KeyError(), 3),
        (3, ANY_EXCEPTION, 3, KeyError(), None),
        (0, ANY_EXCEPTION, 0, KeyError(), None),
        (UNLIMITED, ANY_EXCEPTION, 10**9, KeyError(), 10**9 + 1),
        (3, ANY_EXCEPTION, 0, KeyboardInterrupt(), None),
        (3, ANY_EXCEPTION, 0, SystemExit(), None),
        (3, LOOKUP, 0, KeyError(), 1),
        (3, LOOKUP, 0, ValueError(), None),
        (3, LOOKUP, 0, Caused(IndexError()), 1),
        (3, LOOKUP, 0, Caused(ValueError()), None),
        (3, b"no pickle", 0, KeyError(), None),
        (3, b"cno_such_module\nX\n.", 0, KeyError(), None),
        (3, pickle.dumps(5), 0, KeyError(), None),
    ],
)
def test_exceptions(max_retries: int, wanted: bytes, attempts: int, error: BaseException, expected: int | None):
    assert after_exception(max_retries, wanted, attempts, error) == expected


@pytest.mark.parametrize(
    ("max_retries", "attempts", "running", "expected"),
    [
        (0, 0, False, None),
        (0, 0, True, None),
        (1, 0, True, 1),
        (1, 1, True, None),
        (1, 1, False, 1),
        (UNLIMITED, 7, True, 8),
    ],
)
def test_crashes(max_retries: int, attempts: int, running: bool, expected: int | None):
    assert after_crash(max_retries, attempts, running=running) == expected


def test_lost_nodes():
    assert [after_lost_node(2, attempts) for attempts in (1, 2, 3)] == [1, 2, None]
    assert after_lost_node(UNLIMITED, 99) == 99


@pytest.mark.parametrize(
    ("max_retries", "attempts", "sent", "begun", "expected"),
    [
        (0, 0, False, False, 0),
        (0, 0, True, False, None),
        (0, 0, True, True, None),
        (1, 0, True, True, 1),
        (1, 0, True, False, 0),
        (1, 1, True, True, None),
        (1, 1, True, False, None),
        (1, 1, False, False, 1),
        (UNLIMITED, 4, True, True, 5),
    ],
)
def test_calls_of_actors(max_retries: int, attempts: int, sent: bool, begun: bool, expected: int | None):
    assert of_actor_call(max_retries, attempts, sent=sent, begun=begun) == expected


@pytest.mark.parametrize(
    ("attempts", "running", "expected"),
    [
        (0, False, 0),
        (0, True, 1),
        (DURABLE_ATTEMPTS - 2, True, DURABLE_ATTEMPTS - 1),
        (DURABLE_ATTEMPTS - 1, True, None),
        (DURABLE_ATTEMPTS - 1, False, DURABLE_ATTEMPTS - 1),
    ],
)
def test_calls_of_durable_actors(attempts: int, running: bool, expected: int | None):
    assert of_durable_call(attempts, running=running) == expected


def test_delays_double_up_to_a_minute():
    assert [delay(0.5, retry) for retry in (-1, 0, 1, 2, 3, 8, 10**9)] == [0.5, 0.5, 0.5, 1.0, 2.0, 60.0, 60.0]
    assert delay(0, 5) == delay(-1.0, 5) == delay(float("nan"), 1) == 0
    assert [delay(90, retry) for retry in (1, 2, 10**9)] == [90, 90, 90]
    assert delay(5e-324, 1) < 1e-300
    assert delay(5e-324, 2**63) == 60
    assert delay(1e308, 2**63) == 1e308
