"""Every public call with odd values: a clear error or the right result, and the node works on.

On the embedded engine, for the sake of time: `python -m tests.fuzz.inputs auto` tries all of it on a cluster.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.inputs import BoomError, complaint

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 240  # all of it; half a minute on a machine that has nothing else to do


@pytest.mark.timeout(SECONDS + 20)
def test_odd_values_give_clear_errors_and_the_node_works_on() -> None:
    roots = os.pathsep.join(str(ROOT / each) for each in ("", "broker", "api", "workers"))
    session = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.inputs", "embedded"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": roots},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS,
        check=False,
    )
    told = [json.loads(line) for line in session.stdout.splitlines() if line.startswith("{")]
    wrong = [f"{each['what']}: {each['why']} ({each['trace']})" for each in told if "what" in each]
    assert not wrong, "\n".join(wrong[:30])
    assert session.returncode == 0, session.stderr[-5000:]
    assert told[-1]["tried"] > 5000


def error_of(action: object) -> BaseException:
    try:
        action()  # type: ignore[operator]
    except BaseException as error:
        return error
    raise AssertionError("it did not fail")


def test_errors_that_tell_of_our_code_are_told_from_clear_ones() -> None:
    clear = [ValueError("num_cpus must not be negative, got -1"), BoomError("boom")]
    unclear = [
        error_of(lambda: "" < 1),  # type: ignore[operator]
        error_of(lambda: int(math.nan)),
        error_of(lambda: "\ud800".encode()),
        error_of(lambda: {}["a"]),
        ValueError(""),
        ValueError("x" * 100_000),
    ]
    assert [complaint(error) for error in clear] == ["", ""]
    assert all(complaint(error) for error in unclear)
