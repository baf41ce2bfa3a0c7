"""Lines that several processes print alike are shown once, with their number."""

from __future__ import annotations

import re

import pytest

from rabbitry import log_dedup
from rabbitry.log_dedup import Deduplicator, Source


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dedup(clock: Clock) -> Deduplicator:
    return Deduplicator(5.0, clock=clock)


def source(pid: int, is_error: bool = False) -> Source:
    return Source(f"(f pid={pid}) ", (b"host", pid), is_error)


def told(dedup: Deduplicator) -> list[str]:
    return [f"{who.prefix}{line.decode()}" for who, line in dedup.due()]


def test_the_first_is_shown_and_others_are_counted(dedup: Deduplicator, clock: Clock) -> None:
    assert dedup.take(source(1), [b"step 1 done"]) == [b"step 1 done"]
    for pid in (2, 3, 4):
        assert dedup.take(source(pid), [b"step %d done" % pid]) == []
    assert told(dedup) == []
    clock.now = 5.0
    (line,) = told(dedup)
    assert line.startswith("(f pid=4) step 4 done [repeated 3x across cluster] (lines that several")
    # It is counted on, and the hint comes once.
    assert dedup.take(source(5), [b"step 5 done", b"step 6 done"]) == []
    clock.now = 10.0
    assert told(dedup) == ["(f pid=5) step 6 done [repeated 2x across cluster]"]
    clock.now = 15.0
    assert told(dedup) == []
    assert dedup.take(source(1), [b"step 9 done"]) == [b"step 9 done"]


def test_one_process_may_repeat_itself(dedup: Deduplicator, clock: Clock) -> None:
    for _ in range(3):
        assert dedup.take(source(1), [b"again"]) == [b"again"]
    assert dedup.take(source(1, is_error=True), [b"again"]) == [b"again"]


def test_a_single_one_is_shown_as_it_is(dedup: Deduplicator, clock: Clock) -> None:
    dedup.take(source(1), [b"hello"])
    dedup.take(source(2), [b"hello"])
    clock.now = 6.0
    assert told(dedup) == ["(f pid=2) hello"]
    assert dedup.take(source(2), [b"hello"]) == [b"hello"]


def test_lines_of_numbers_alone_say_something_each(dedup: Deduplicator) -> None:
    for pid in (1, 2):
        assert dedup.take(source(pid), [b"17", b"", b"0x3f 2"]) == [b"17", b"", b"0x3f 2"]


def test_what_was_kept_back_comes_at_the_end(dedup: Deduplicator) -> None:
    for pid in (1, 2, 3):
        dedup.take(source(pid), [b"bye"])
    ((who, line),) = dedup.rest()
    assert (who.process[1], line[:30]) == (3, b"bye [repeated 2x across cluste")
    assert list(dedup.rest()) == []


def test_some_lines_are_always_shown_and_some_never(clock: Clock) -> None:
    dedup = Deduplicator(5.0, re.compile(b"important"), re.compile(b"noise"), clock)
    for pid in (1, 2):
        assert dedup.take(source(pid), [b"important noise", b"noise"]) == [b"important noise"]


def test_patterns_do_not_grow_for_ever(dedup: Deduplicator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_dedup, "PATTERNS_MAX", 10)
    for at in range(100):
        dedup.take(source(1), [b"x" * (at + 1)])
        dedup.take(source(2), [b"x" * (at + 1)])
        list(dedup.due())
    assert len(dedup._patterns) <= 10


def test_the_environment_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Deduplicator.from_environment() is not None
    monkeypatch.setenv("RAY_DEDUP_LOGS_SKIP_REGEX", "no.se")
    made = Deduplicator.from_environment()
    assert made is not None
    assert made.take(source(1), [b"noise", b"text"]) == [b"text"]
    monkeypatch.setenv("RABBITRY_DEDUP_LOGS_ALLOW_REGEX", "(")
    with pytest.raises(ValueError, match=r"RABBITRY_DEDUP_LOGS_ALLOW_REGEX.*no regular expression"):
        Deduplicator.from_environment()
    monkeypatch.setenv("RABBITRY_DEDUP_LOGS_AGG_WINDOW_S", "soon")
    with pytest.raises(ValueError, match="RABBITRY_DEDUP_LOGS_AGG_WINDOW_S='soon'"):
        Deduplicator.from_environment()
    monkeypatch.setenv("RAY_DEDUP_LOGS", "0")
    assert Deduplicator.from_environment() is None
