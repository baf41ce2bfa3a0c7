"""Failures that nobody reads are told, once; see `rabbitry.core.unhandled`."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

import rabbitry
from rabbitry import current
from rabbitry.core.unhandled import UnhandledErrors
from tests.end_to_end.waiting import wait_until


@rabbitry.remote(max_retries=0)
def fail(text: str) -> Any:
    if text == "late":
        time.sleep(1)
    if text == "dies":
        os._exit(1)
    raise ValueError(text)


@rabbitry.remote
def same(x: Any) -> Any:
    return x


@rabbitry.remote
class Actor:
    def __init__(self, text: str = "") -> None:
        if text:
            raise ValueError(text)

    def fail(self, text: str) -> None:
        raise ValueError(text)


@rabbitry.remote(resources={"nowhere": 1})
def never() -> None:
    return None


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is told of, as the last lines of the errors."""
    told: list[str] = []
    monkeypatch.setattr(
        logging.getLogger("rabbitry"), "error", lambda text, *rest, **_: told.append((text % rest).splitlines()[-1])
    )
    return told


def test_failures_that_nobody_reads_are_told_once(session: str, told: list[str]) -> None:
    client = current.client()
    fail.remote("dropped")
    refs = [fail.remote("dropped later")]
    wait_until(lambda: refs[0]._id in client.inbox.values)
    refs.clear()
    same.remote(fail.remote("of an argument"))
    actor = Actor.remote()
    actor.fail.remote("of a call")
    bad = Actor.remote("of a constructor")
    bad.fail.remote("never run")
    Actor.remote("of a constructor whose actor nobody holds")
    expected = [
        "ValueError: dropped",
        "ValueError: dropped later",
        "ValueError: of a call",
        "ValueError: of a constructor",
        "ValueError: of a constructor whose actor nobody holds",
        "ValueError: of an argument",
    ]
    wait_until(lambda: sorted(told) == expected)
    fail.remote("dies")
    wait_until(lambda: len(told) == len(expected) + 1)

    # What is not told: what was read, waited for or passed on, and what the user did himself.
    read, waited, passed, cancelled = fail.remote("read"), fail.remote("waited"), fail.remote("passed"), never.remote()
    with pytest.raises(ValueError, match="read"):
        rabbitry.get(read)
    rabbitry.wait([waited])
    with pytest.raises(ValueError, match="passed"):
        rabbitry.get(same.remote(passed))
    rabbitry.cancel(cancelled)
    rabbitry.wait([cancelled])
    rabbitry.kill(actor)
    actor.fail.remote("of a killed actor")
    del read, waited, passed, cancelled
    fail.remote("the last one")
    wait_until(lambda: told[-1] == "ValueError: the last one")
    assert len(told) == len(expected) + 2, told
    assert not client.unhandled.unread


def test_a_failure_that_a_cancelled_coroutine_waited_for_is_not_told(session: str, told: list[str]) -> None:
    async def give_up(ref: Any) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ref, 0.2)

    client = current.client()
    asyncio.run(give_up(fail.remote("late")))
    wait_until(lambda: not client.in_flight)
    fail.remote("the last one")
    wait_until(lambda: bool(told))
    assert told == ["ValueError: the last one"]


@pytest.mark.parametrize("variable", ["RABBITRY_IGNORE_UNHANDLED_ERRORS", "RAY_IGNORE_UNHANDLED_ERRORS"])
def test_a_variable_silences_it(session: str, told: list[str], monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    client = current.client()
    monkeypatch.setattr(client.unhandled, "_ignored", UnhandledErrors(client.references, client.actors.owned)._ignored)
    Actor.remote("unheard")
    fail.remote("unheard")
    refs = [fail.remote("unheard too")]
    wait_until(lambda: refs[0]._id in client.inbox.values)
    refs.clear()
    wait_until(lambda: not client.in_flight and not client.references.dropped)
    client.collect()
    assert not told
