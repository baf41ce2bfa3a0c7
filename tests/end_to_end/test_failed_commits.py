"""Results that a process could not commit: it ends, and their callers are told or they are run again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry.exceptions import ActorError
from rabbitry_broker.errors import StoreError
from rabbitry_workers.executor.commit import Committer

pytestmark = [pytest.mark.usefixtures("session"), pytest.mark.timeout(60)]
TIMEOUT = 20


def lose_next_commit() -> None:
    """Have the next commit of this process fail, as if Redis had stayed away for too long."""
    send, replies = Committer._send, Committer._replies

    def drop(self: Committer, commands: Any) -> None:
        Committer._send = send  # type: ignore[method-assign]

    def fail(self: Committer, sent: Any) -> Any:
        Committer._replies = replies  # type: ignore[method-assign]
        raise StoreError("results could not be committed")

    Committer._send, Committer._replies = drop, fail  # type: ignore[method-assign]


@rabbitry.remote(num_cpus=0)
class Serial:
    def value(self) -> str:
        return "value"

    def lose(self) -> None:
        lose_next_commit()

    def stream(self) -> Iterator[int]:
        yield from range(3)


@rabbitry.remote(num_cpus=0)
class Asynchronous:
    async def lose(self) -> None:
        lose_next_commit()


@rabbitry.remote(num_cpus=0, max_concurrency=2)
class Threaded:
    def lose(self) -> None:
        lose_next_commit()

    def break_off(self) -> None:
        from rabbitry_workers.actors.host import ActorHost

        def fail(*_: Any) -> None:
            raise StoreError("no results")

        ActorHost.finished = fail  # type: ignore[method-assign, assignment]


def assert_told(ref: Any) -> None:
    with pytest.raises(ActorError):
        rabbitry.get(ref, timeout=TIMEOUT)


@pytest.mark.parametrize("kind", [Serial, Threaded, Asynchronous], ids=["serial", "threaded", "asynchronous"])
def test_a_call_whose_result_cannot_be_committed_fails(kind: Any):
    actor = kind.remote()  # kept: its end would be told too
    assert_told(actor.lose.remote())


def test_a_call_that_a_thread_cannot_finish_fails():
    actor = Threaded.remote()
    assert_told(actor.break_off.remote())


def test_a_result_that_a_stream_behind_it_lost_is_not_waited_for_in_vain():
    actor = Serial.remote()
    rabbitry.get(actor.value.remote(), timeout=TIMEOUT)
    lost = actor.lose.remote()
    stream = actor.stream.options(num_returns="streaming").remote()
    assert_told(lost)
    del stream


@rabbitry.remote(max_retries=3)
def swallow(path: str) -> str:
    """Wait for another task; the first time, what was to be committed before that is lost, and nobody hears of it."""
    if not os.path.exists(path):
        Path(path).touch()
        lose_next_commit()
    with contextlib.suppress(StoreError):
        rabbitry.wait([value.remote("other")], timeout=TIMEOUT)
    return "swallowed"


@rabbitry.remote(max_retries=3)
def value(each: str) -> str:
    return each


def test_a_task_is_run_again_whose_result_was_lost_behind_another_tasks_back(tmp_path: Path):
    # Enough for some of them to be in one chunk with, and before, the one that loses what they returned.
    rabbitry.get([value.remote(str(at)) for at in range(200)], timeout=TIMEOUT)
    refs = [value.remote(str(at)) for at in range(200)]
    last = swallow.remote(str(tmp_path / "lost"))
    assert rabbitry.get([*refs, last], timeout=TIMEOUT) == [*map(str, range(200)), "swallowed"]
