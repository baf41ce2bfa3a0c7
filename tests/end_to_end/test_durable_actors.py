"""Durable actors with every option of their calls: what failed is tried again, what took effect did so once."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry.exceptions import TaskCancelledError

pytestmark = [pytest.mark.usefixtures("session"), pytest.mark.filterwarnings("ignore:.*dynamic.*:DeprecationWarning")]


class Log:
    """Notes what its calls do to it; the first attempt of each call fails by `how`."""

    def __init__(self) -> None:
        self.noted: list[str] = []
        self.failed = 0

    def _attempt(self, how: str, marks: Path) -> None:
        self.noted.append(how)
        if how == "raise" and not self.failed:
            self.failed += 1
            raise ValueError("the first attempt")
        if how == "crash" and not marks.exists():
            marks.touch()
            os._exit(1)

    def value(self, how: str, marks: Path) -> str:
        self._attempt(how, marks)
        return "done"

    def three(self, how: str, marks: Path) -> tuple[int, int, int]:
        self._attempt(how, marks)
        return 1, 2, 3

    def items(self, how: str, marks: Path) -> Any:
        self.noted.append("begun")
        yield 1
        self._attempt(how, marks)
        yield 2

    def nothing(self, how: str, marks: Path) -> None:
        self._attempt(how, marks)

    def all(self) -> list[str]:
        return self.noted

    def until_cancelled(self, began: Path) -> str:
        began.touch()
        while not rabbitry.get_runtime_context().is_canceled():
            time.sleep(0.01)
        return "was cancelled"


RETURNS: list[tuple[str, Any, Any]] = [
    ("value", 1, "done"),
    ("three", 3, [1, 2, 3]),
    ("items", "streaming", [1, 2]),
    ("items", "dynamic", [1, 2]),
    ("nothing", 0, None),
]
NAMES = [f"{method}-{returns}" for method, returns, _ in RETURNS]


@pytest.mark.parametrize(("method", "returns", "wanted"), RETURNS, ids=NAMES)
@pytest.mark.parametrize("how", ["raise", "crash"])
def test_a_call_that_fails_is_tried_again_and_takes_effect_once(tmp_path, how, method, returns, wanted):
    log = rabbitry.remote(Log).options(durable=True, name=f"log-{how}-{method}-{returns}").remote()
    bound = getattr(log, method).options(num_returns=returns, max_task_retries=2, retry_exceptions=True)
    ref = bound.remote(how, tmp_path / "crashed")
    if returns == "streaming":
        assert [rabbitry.get(each, timeout=30) for each in ref] == wanted
    elif returns == "dynamic":
        assert rabbitry.get(list(rabbitry.get(ref, timeout=30)), timeout=30) == wanted
    elif returns:
        assert rabbitry.get(ref, timeout=30) == wanted
    # What an attempt that raises did to the instance stays, as in Ray; one that died with its process did nothing.
    attempts = 2 if how == "raise" else 1
    deadline = time.monotonic() + 30
    while (noted := rabbitry.get(log.all.remote(), timeout=30)).count(how) < attempts:
        assert time.monotonic() < deadline, noted
    assert noted == [each for _ in range(attempts) for each in (["begun"] if method == "items" else []) + [how]]
    rabbitry.kill(log)


def test_cancelled_and_failed_calls_of_a_durable_actor(tmp_path):
    log = rabbitry.remote(Log).options(durable="explicit").remote()
    bound = log.until_cancelled.options(max_task_retries=3, retry_exceptions=[TimeoutError])
    running = bound.remote(tmp_path / "began")
    deadline = time.monotonic() + 30
    while not (tmp_path / "began").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    waiting = log.value.remote("waits", Path("unused"))
    rabbitry.cancel(waiting)  # which its process, that has it already, sees to after what runs
    rabbitry.cancel(running)
    with pytest.raises(TaskCancelledError):
        rabbitry.get(waiting, timeout=30)
    assert rabbitry.get(running, timeout=30) == "was cancelled"

    @rabbitry.remote(durable=True, max_task_retries=2)
    class Fails:
        def __init__(self) -> None:
            self.attempts = 0

        def fail(self) -> None:
            self.attempts += 1
            raise ValueError("again")

        def count(self) -> int:
            return self.attempts

    fails = Fails.remote()
    with pytest.raises(ValueError, match="again"):
        rabbitry.get(fails.fail.options(retry_exceptions=[ValueError]).remote(), timeout=30)
    assert rabbitry.get(fails.count.remote(), timeout=30) == 3
