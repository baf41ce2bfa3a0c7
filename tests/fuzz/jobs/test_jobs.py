"""Random programs that submit jobs, on each engine; and the model that judges them.

Always the same few in `make test`, all of an engine in one session; `make fuzz` runs new ones.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fuzz.engines import Engine
from tests.fuzz.jobs.entrypoint import lines_of
from tests.fuzz.jobs.model import judge
from tests.fuzz.jobs.programs import Program, generate
from tests.fuzz.jobs.run import run_programs

PROGRAMS = 4
SECONDS = 400  # half a minute on a machine that has nothing else to do


@pytest.mark.timeout(SECONDS)
def test_jobs_end_as_they_may_and_leave_nothing(fuzz_engine: Engine) -> None:
    with fuzz_engine as engine:
        wrong = run_programs(engine, [generate(seed) for seed in range(PROGRAMS)], at_once=PROGRAMS)
    assert not wrong, "\n".join(wrong)


def test_a_seed_always_makes_the_same_program() -> None:
    for seed in range(50):
        program = generate(seed)
        assert program == generate(seed) == Program.from_json(program.to_json())


def test_programs_have_jobs_of_every_kind() -> None:
    jobs = [job for seed in range(100) for job in generate(seed).jobs.values()]
    steps = [step["op"] for seed in range(100) for step in generate(seed).steps]
    assert {job["by"] for job in jobs} == {"thread", "process"}
    assert {job["end"] for job in jobs} == {
        "ok", "exit", "raise", "os_exit", "kill", "waits", "stubborn", "shell", "missing",
    }  # fmt: skip
    assert {each for job in jobs for each in job["work"]} == {
        "tasks", "once", "actor", "detached", "unfinished", "output", "child",
    }  # fmt: skip
    assert set(steps) == {"submit", "again", "race", "await", "stop", "delete", "look", "sleep"}


JOB: dict[str, Any] = {"work": [], "end": "ok", "code": 7, "dir": False, "metadata": {"a": "b"}, "by": "thread"}
WAITS = {**JOB, "end": "waits"}
FAILS = {**JOB, "end": "exit"}
SUBMIT = {"op": "submit", "job": "j", "result": "id"}
TAKEN = "RuntimeError: j already exists"
GONE = "RuntimeError: 404 j does not exist"
ALL_SAID = {"op": "logs", "job": "j", "result": lines_of(JOB)}


def info(status: str, code: int | None = None, **fields: Any) -> dict[str, Any]:
    """Return what is told of a job."""
    error = "JOB_ENTRYPOINT_COMMAND_ERROR" if status == "FAILED" else None
    told = {"status": status, "code": code, "error": error, "message": f"exit code {code}", "metadata": {"a": "b"}}
    return {"op": "info", "job": "j", "result": {**told, "id": True, **fields}}


ENDED = info("SUCCEEDED", 0)
STOP = {"op": "stop", "job": "j", "result": True}
DELETE = {"op": "delete", "job": "j", "result": True}


@pytest.mark.parametrize(
    ("job", "seen", "right"),
    [
        (JOB, [SUBMIT, info("PENDING"), info("RUNNING"), ENDED, ALL_SAID], True),
        (JOB, [SUBMIT, info("RUNNING"), info("PENDING"), ENDED], False),
        (JOB, [SUBMIT, ENDED, info("RUNNING")], False),
        (JOB, [SUBMIT, ENDED, info("FAILED", 1)], False),
        (JOB, [SUBMIT, info("RUNNING")], False),
        (JOB, [SUBMIT, info("FAILED", 1)], False),
        (JOB, [SUBMIT, info("SUCCEEDED", 0, metadata={})], False),
        (JOB, [SUBMIT, ENDED, {**ALL_SAID, "result": []}], False),
        (JOB, [SUBMIT, {**ALL_SAID, "result": [*lines_of(JOB), "fuzz: more"]}, ENDED], False),
        (JOB, [SUBMIT, {"op": "hangs", "job": "j", "result": "ended"}, ENDED], False),
        (JOB, [SUBMIT, info("STOPPED")], False),
        (JOB, [SUBMIT, STOP, info("STOPPED")], True),
        (JOB, [SUBMIT, STOP, ENDED], True),
        (JOB, [SUBMIT, ENDED, STOP], False),
        (WAITS, [SUBMIT, STOP, info("STOPPED")], True),
        (WAITS, [SUBMIT, {**STOP, "result": False}, STOP, info("STOPPED")], False),
        (WAITS, [SUBMIT, STOP, ENDED], False),
        (WAITS, [SUBMIT, DELETE], False),
        (FAILS, [SUBMIT, info("FAILED", 7)], True),
        (FAILS, [SUBMIT, info("FAILED", 1)], False),
        (JOB, [SUBMIT, {**SUBMIT, "op": "again"}, ENDED], False),
        (JOB, [SUBMIT, {"op": "again", "job": "j", "error": TAKEN}, ENDED], True),
        (JOB, [{"op": "submit", "job": "j", "error": TAKEN}], False),
        (JOB, [{"op": "race", "job": "j", "answers": [SUBMIT, {"error": TAKEN}]}, ENDED], True),
        (JOB, [{"op": "race", "job": "j", "answers": [SUBMIT, SUBMIT]}, ENDED], False),
        (JOB, [SUBMIT, ENDED, DELETE, {"op": "info", "job": "j", "error": GONE}], True),
        (JOB, [SUBMIT, ENDED, DELETE, ENDED], False),
        (JOB, [SUBMIT, ENDED, DELETE, {"op": "list", "job": "", "result": ["j"]}], False),
        (JOB, [SUBMIT, ENDED, {"op": "delete", "job": "j", "error": "it is in a non-terminal state"}], False),
        (JOB, [SUBMIT, ENDED, DELETE, SUBMIT, ENDED], True),
    ],
)
def test_the_model_tells_right_from_wrong(job: dict[str, Any], seen: list[dict[str, Any]], right: bool) -> None:
    report = {"seen": seen, "runs": {"notes-p-j-1-x": ["driver 1", "begun 1"]}, "actors": [], "worked": {}}
    assert (not judge(Program("p", {"j": job}), json.loads(json.dumps(report)))) == right


@pytest.mark.parametrize(
    "fields",
    [
        {"runs": {"notes-p-j-1-x": ["driver 1", "driver 2"]}},
        {"runs": {"notes-p-j-1-x": []}},
        {"left": {"processes": ["driver 1"]}},
        {"children": ["child 1"]},
        {"broken": "KeyError"},
    ],
)
def test_what_has_run_and_what_is_left_counts(fields: dict[str, Any]) -> None:
    report = {"seen": [SUBMIT, ENDED], "runs": {"notes-p-j-1-x": ["driver 1"]}, "actors": [], "worked": {}}
    assert not judge(Program("p", {"j": JOB}), report)
    assert judge(Program("p", {"j": JOB}), {**report, **fields})


def test_a_detached_actor_outlives_its_job() -> None:
    program = Program("p", {"j": {**JOB, "work": ["detached"]}})
    report: dict[str, Any] = {"seen": [SUBMIT, ENDED], "runs": {"notes-p-j-1-x": ["driver 1", "begun 1"]}}
    report |= {"actors": ["fuzz-mark-p-j-1-x"]}
    assert not judge(program, {**report, "worked": {"fuzz-mark-p-j-1-x": True}})
    assert judge(program, {**report, "worked": {}})
