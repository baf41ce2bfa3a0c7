"""What becomes of jobs that nobody looks after any more."""

from __future__ import annotations

import time
from typing import Any

import pytest

from rabbitry.core.failures import death_record, killed_cause
from rabbitry.exceptions import ActorUnschedulableError, RuntimeEnvSetupError, store_error
from rabbitry_broker.store.actors import ALIVE, DEAD, PENDING, RESTARTING
from rabbitry_broker.submissions import ImpossibleMove, Status, Submission
from rabbitry_workers.jobs.ends import CREATE_SECONDS, reported

ACTOR = b"a" * 16


def job(**fields: Any) -> Submission:
    return Submission("x", "true", **{"submitted": time.time(), "actor_id": ACTOR, **fields})


@pytest.mark.parametrize("state", [PENDING, ALIVE, RESTARTING])
@pytest.mark.parametrize("status", [Status.PENDING, Status.RUNNING])
def test_one_whose_supervisor_lives_is_left_alone(state: str, status: Status) -> None:
    assert reported(job(status=status, attempt=1), state, b"") is None


@pytest.mark.parametrize(
    ("cause", "kind", "text"),
    [
        (death_record("JobSupervisor", ACTOR, "Its node is gone."), "JOB_SUPERVISOR_ACTOR_DIED", "node is gone"),
        (store_error(RuntimeEnvSetupError("no such package")), "RUNTIME_ENV_SETUP_FAILURE", "no such package"),
        (store_error(ActorUnschedulableError("no node")), "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE", "no node"),
        (b"", "JOB_SUPERVISOR_ACTOR_DIED", "nobody knows"),
    ],
)
def test_one_whose_supervisor_is_dead_has_failed_for_its_cause(cause: bytes, kind: str, text: str) -> None:
    ended = reported(job(status=Status.RUNNING, attempt=1), DEAD, cause)
    assert ended is not None
    assert (ended.status, ended.error_type) == (Status.FAILED, kind)
    assert text in ended.message
    assert ended.ended > 0


def test_one_that_was_asked_to_stop_is_stopped() -> None:
    ended = reported(job(status=Status.RUNNING, attempt=1, stopping=True), DEAD, killed_cause(ACTOR))
    assert ended is not None
    assert ended.status is Status.STOPPED


def test_one_that_was_never_given_a_supervisor_has_failed_after_a_while() -> None:
    assert reported(job(actor_id=b""), "", b"") is None
    ended = reported(job(actor_id=b"", submitted=time.time() - CREATE_SECONDS - 1), "", b"")
    assert ended is not None
    assert ended.error_type == "JOB_SUPERVISOR_ACTOR_START_FAILURE"


def test_one_that_does_not_start_in_time_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = job(submitted=time.time() - 100, resources={"num_cpus": 99})
    assert reported(waiting, PENDING, b"") is None
    monkeypatch.setenv("RAY_JOB_START_TIMEOUT_SECONDS", "50")
    ended = reported(waiting, PENDING, b"")
    assert ended is not None
    assert ended.error_type == "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"
    assert "99" in ended.message
    assert reported(job(submitted=time.time() - 100, attempt=1), RESTARTING, b"") is None


@pytest.mark.parametrize("end", [Status.STOPPED, Status.SUCCEEDED, Status.FAILED])
def test_an_end_is_for_good(end: Status) -> None:
    ended = job(status=Status.RUNNING).moved(end, "over")
    assert ended.status.is_final
    for status in Status:
        with pytest.raises(ImpossibleMove):
            ended.moved(status, "again")


def test_a_record_survives_packing_and_fields_of_later_versions_are_left_out() -> None:
    full = job(status=Status.RUNNING, runtime_env={"env_vars": {"A": "1"}}, exit_code=3)
    assert Submission.unpack({**full.pack(), "of_a_later_version": 1}) == full
    with pytest.raises((ValueError, TypeError)):
        Submission.unpack({"status": "LOST"})


ran: list[str] = []


class Exploding(RuntimeError):
    """Made from a pickle, it runs code."""

    def __reduce__(self) -> tuple[object, ...]:
        return ran.append, ("code",)


def test_what_a_user_raised_is_not_made_anew_on_a_node() -> None:
    ended = reported(job(status=Status.RUNNING, attempt=1), DEAD, store_error(Exploding("bang")))
    assert ended is not None
    assert ended.status is Status.FAILED
    assert "bang" in ended.message
    assert not ran
