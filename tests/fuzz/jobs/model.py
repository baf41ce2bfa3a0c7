"""What may become of a program's jobs: each answer is judged in its order, then how everything ended.

A job is what `broker/rabbitry_broker/submissions.py` draws: PENDING, RUNNING, and one of three ends, of which
STOPPED needs somebody who stopped it, and the others are its driver's own. A process that was killed meanwhile
(`struck`) may have cost any job its driver or its supervisor; then it has failed, but it has ended, and everything else
holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.fuzz.jobs.entrypoint import lines_of
from tests.fuzz.jobs.programs import COMMANDS, UNTIL_STOPPED, Job, Program

SUCCEEDED, FAILED, STOPPED = "SUCCEEDED", "FAILED", "STOPPED"
ORDER = {"PENDING": 0, "RUNNING": 1, SUCCEEDED: 2, FAILED: 2, STOPPED: 2}
GONE = "404"
TAKEN = "already exists"
NOT_ENDED = "non-terminal state"
KILLED = (-9, 128 + 9)
CODES = {"ok": (0,), "raise": (1,), "kill": KILLED, "missing": (127,)}
LOST = frozenset(("worker", "template", "agent"))
"""What is struck that may cost a job its end."""


def own_end(job: Job) -> tuple[str, tuple[int, ...]] | None:
    """Return how a job ends if nobody stops it, and its exit codes; None if it does not."""
    if job["end"] in UNTIL_STOPPED:
        return None
    return SUCCEEDED if job["end"] == "ok" else FAILED, CODES.get(job["end"], (job["code"],))


@dataclass
class _Known:
    """What is known of a job while answers are gone through."""

    job: Job
    exists: bool = False
    stopped: bool = False
    status: str = "PENDING"
    wrong: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return ORDER[self.status] == 2

    @property
    def may_have_ended(self) -> bool:
        return self.ended or self.stopped or own_end(self.job) is not None

    def begin(self) -> None:
        self.exists, self.stopped, self.status = True, False, "PENDING"


def judge(program: Program, report: dict[str, Any]) -> list[str]:
    """Return what is wrong with a report, a line each."""
    wrong = [f"the program broke: {report['broken']}"] if "broken" in report else []
    harmed = bool(LOST.intersection(report.get("struck", ())))
    known = {name: _Known(job) for name, job in program.jobs.items()}
    for at, entry in enumerate(report["seen"]):
        try:
            _entry(known, entry, harmed)
        except AssertionError as error:
            wrong.append(f"answer {at}, {_short(entry)}: {error}")
    if "broken" not in report:
        wrong += [
            f"{name} has not ended: {each.status}" for name, each in known.items() if each.exists and not each.ended
        ]
        wrong += _ran(program, known, report, harmed)
    if report.get("children"):
        wrong.append(f"what a stopped job has started runs still: {report['children']}")
    if report.get("left"):
        wrong.append(f"left behind: {report['left']}")
    if wrong and report.get("struck"):
        wrong.append(f"meanwhile these were struck: {report['struck']}")
    return wrong


def _short(entry: dict[str, Any]) -> str:
    text = str(entry)
    return text if len(text) < 700 else f"{text[:400]} ... {text[-300:]}"


def _entry(known: dict[str, _Known], entry: dict[str, Any], harmed: bool) -> None:
    operation, error = entry["op"], entry.get("error", "")
    if operation == "list":
        assert not error, "the list cannot be had"
        assert entry["result"] == sorted(name for name, each in known.items() if each.exists), "another list is right"
        return
    one = known[entry["job"]]
    if operation == "hangs":
        raise AssertionError(f"it never was {entry['result']}")
    if operation in ("submit", "again"):
        _submitted(one, [entry])
    elif operation == "race":
        _submitted(one, entry["answers"])
    elif not one.exists:
        assert GONE in error, "there is no such job"
    elif operation == "stop":
        assert not error, "a job can be stopped, or has ended"
        assert entry["result"] is True or one.may_have_ended, "it runs"
        assert not (entry["result"] and one.ended), "it had ended"
        one.stopped = one.stopped or entry["result"]
    elif operation == "delete":
        _deleted(one, entry)
    elif operation == "info":
        _looked(one, entry, harmed)
    else:
        assert operation == "logs"
        _read(one, entry, harmed)


def _submitted(one: _Known, answers: list[dict[str, Any]]) -> None:
    accepted = [each for each in answers if "result" in each]
    refused = [each for each in answers if "result" not in each]
    assert all(TAKEN in each["error"] for each in refused), "that is no reason to refuse a job"
    assert len(accepted) == int(not one.exists), "an id is good for one job"
    if accepted:
        one.begin()


def _deleted(one: _Known, entry: dict[str, Any]) -> None:
    if "error" in entry:
        assert NOT_ENDED in entry["error"], "that is no reason not to delete a job"
        assert not one.ended, "it has ended"
    else:
        assert entry["result"] is True
        assert one.may_have_ended, "it runs"
        one.exists = False


def _looked(one: _Known, entry: dict[str, Any], harmed: bool) -> None:
    assert "error" not in entry, "a job is on record"
    info = entry["result"]
    status, code = info["status"], info["code"]
    assert info["id"], "that is another job"
    assert one.job["metadata"].items() <= info["metadata"].items(), "its metadata got lost"
    assert ORDER[status] >= ORDER[one.status], f"it was {one.status}"
    assert not one.ended or status == one.status, f"it was {one.status}, and that was its end"
    one.status = status
    if status == STOPPED:
        assert one.stopped, "nobody stopped it"
    elif one.ended and not (harmed and status == FAILED):
        end = own_end(one.job)
        assert end is not None, "it cannot end by itself"
        assert status == end[0], f"it ends as {end[0]}"
        assert code in end[1], f"it ends with {end[1]}"
        assert status == SUCCEEDED or f"exit code {code}" in info["message"], "its message does not say how it ended"
        if status == FAILED:
            assert info["error"] == "JOB_ENTRYPOINT_COMMAND_ERROR"


def _read(one: _Known, entry: dict[str, Any], harmed: bool) -> None:
    if harmed and "error" in entry:
        return  # it went with its node
    assert "error" not in entry, "its log cannot be had"
    said, expected = entry["result"], lines_of(one.job)
    whole = said[:-1] if said and not one.ended else said
    assert whole == expected[: len(whole)], "that is not what it says"
    if len(whole) < len(said):  # of the last line maybe a part only
        assert len(said) <= len(expected), "it says no more"
        assert expected[len(said) - 1].startswith(said[-1]), "that is not what it says"
    if one.status in (SUCCEEDED, FAILED) and not harmed:
        assert said == expected, f"of {len(expected)} lines {len(said)} are there"


def _ran(program: Program, known: dict[str, _Known], report: dict[str, Any], harmed: bool) -> list[str]:
    """Return what is wrong with what has begun, and with detached actors."""
    wrong = []
    last: dict[str, list[str]] = {}
    for name, lines in report["runs"].items():
        mark = name.partition("-")[2]
        job = mark[len(program.name) + 1 :].partition("-")[0]
        kinds = [line.split()[0] for line in lines]
        last[job] = kinds
        most_once = {kind for kind in kinds if kind == "driver" or kind.startswith("once-")}
        wrong += [f"{kind} of {job} ran {kinds.count(kind)} times" for kind in most_once if kinds.count(kind) > 1]
        if "begun" in kinds and "detached" in program.jobs[job]["work"] and not harmed:
            wrong += [
                f"the detached actor {actor} does not work any more"
                for actor in report["actors"]
                if actor.endswith(mark) and not report["worked"].get(actor)
            ]
    for job, kinds in last.items():
        end = program.jobs[job]["end"]
        by_itself = known[job].exists and known[job].status in (SUCCEEDED, FAILED) and not harmed
        if by_itself and end not in COMMANDS and "driver" not in kinds:
            wrong.append(f"{job} is {known[job].status}, and its driver has never run")
    return wrong
