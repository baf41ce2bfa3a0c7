"""Random programs on each engine, and all that ever failed.

What `make test` runs is kept short, since continuous integration has 40 minutes for everything: `PROGRAMS` of always
the same seeds, several at a time in one session, about half a minute on each engine. `make fuzz` runs new ones for as
long as it is given.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.fuzz.engines import Engine
from tests.fuzz.generate import generate
from tests.fuzz.model import expect, judge
from tests.fuzz.programs import Program, without
from tests.fuzz.run import Failure, run_programs
from tests.fuzz.script import render

FAILED = sorted(Path(__file__).with_name("failed").glob("*.json"))
PROGRAMS = 90
AT_ONCE = 6
"""Programs at a time; what they leave behind is looked for when all of them have ended."""
REPEATS = 2
"""Runs of each program that failed once; most need luck to fail."""

SECONDS = 400  # for the programs of an engine, if some of them hang


def show(failures: list[Failure]) -> str:
    """Return what is to be said of failures: what was wrong, and a script to run for the first."""
    first = render(failures[0].program)
    return "\n\n".join([*map(str, failures), "The script of the first one, to be run alone:", first])


@pytest.mark.timeout(SECONDS)
def test_random_programs_do_what_they_may(fuzz_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUZZ_AT_ONCE", str(AT_ONCE))
    with fuzz_engine as engine:
        failures = run_programs(engine, [generate(seed) for seed in range(PROGRAMS)])
    assert not failures, show(failures)


@pytest.mark.timeout(SECONDS)
def test_programs_that_failed_once(fuzz_engine: Engine) -> None:
    programs = [Program.from_json(path.read_text()) for path in FAILED]
    with fuzz_engine as engine:
        failures = run_programs(engine, programs * REPEATS)
    assert not failures, show(failures)


def test_a_seed_always_makes_the_same_program() -> None:
    assert [generate(seed).to_json() for seed in range(20)] == [generate(seed).to_json() for seed in range(20)]


def test_every_program_is_a_script_and_has_a_model() -> None:
    for seed in range(300):
        program = generate(seed)
        assert Program.from_json(program.to_json()) == program
        ast.parse(render(program))
        expect(program)


def test_what_needs_a_step_that_is_left_out_is_left_out_too() -> None:
    for seed in range(100):
        program = generate(seed)
        for at in range(len(program.steps)):
            expect(without(program, {at}))


def report(runs: dict[str, int] | None = None, **values: object) -> dict[str, object]:
    """Return a report in which these refs have these values, or errors if they are texts."""
    seen = [{"label": name, "error" if isinstance(value, str) else "value": value} for name, value in values.items()]
    return {"seen": seen, "runs": runs or {}}


TASK = {"op": "task", "out": "r", "body": {"plus": 1}, "args": [2], "options": {"max_retries": 0}}
FAILS = {**TASK, "body": {"plus": 1, "error": "KeyError", "times": 99}}


@pytest.mark.parametrize(
    ("steps", "seen", "right"),
    [
        ([TASK], report({"r": 1}, r=3), True),
        ([TASK], report({"r": 1}, r=4), False),
        ([TASK], report({"r": 2}, r=3), False),
        ([TASK], report({}, r=3), False),
        ([TASK], report({"r": 1}, r="timeout"), False),
        ([FAILS], report({"r": 1}, r="KeyError"), True),
        ([FAILS], report({"r": 1}, r="ValueError"), False),
        ([FAILS], report({"r": 1}, r=3), False),
        ([FAILS, {**TASK, "out": "q", "args": [{"ref": "r"}]}], report({"r": 1}, r="KeyError", q="KeyError"), True),
        ([FAILS, {**TASK, "out": "q", "args": [{"ref": "r"}]}], report({"r": 1, "q": 1}, q="KeyError"), False),
        ([FAILS, {**TASK, "out": "q", "args": [[{"ref": "r"}]]}], report({"r": 1, "q": 1}, q="KeyError"), True),
    ],
)
def test_the_model_tells_right_from_wrong(steps: list[dict[str, object]], seen: dict[str, object], right: bool) -> None:
    assert (not judge(Program("", steps), seen)) == right
