"""What a node does for jobs: reports those that nobody looks after, forgets old ones, clears their logs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry.core.failures import death_record
from rabbitry_broker.ids import new_actor_id
from rabbitry_broker.messages import encode
from rabbitry_broker.run_directory import RunDirectory
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.actors import ActorRecords
from rabbitry_broker.store.store import ObjectStore
from rabbitry_broker.store.submissions import Submissions
from rabbitry_broker.submissions import Status, Submission
from rabbitry_workers.jobs.log_files import log_directory, make_log_directory
from rabbitry_workers.node.services import submissions
from rabbitry_workers.node.services.submissions import TTL, SubmittedJobs, job_ttl
from tests.conftest import Engine

NODE = b"n" * 28


@pytest.fixture
def store(engine: Engine) -> Iterator[ObjectStore]:
    opened = ObjectStore(engine.endpoint, Signer(engine.secrets))
    yield opened
    opened.close()


def service(store: ObjectStore, files: Path, ttl: float = 100.0) -> SubmittedJobs:
    config = SimpleNamespace(files=str(files))
    asks: Any = SimpleNamespace(is_taken=lambda key, longest: False, told=lambda key, left: None)
    node: Any = SimpleNamespace(id=NODE, store=store, keys=store.keys, config=config, turns=asks)
    return SubmittedJobs(node, ttl)


def its_turn(store: ObjectStore) -> None:
    store.call(b"UNLINK", store.keys.janitor + b":submissions")


def supervisor(store: ObjectStore, *, dead: bool) -> bytes:
    actors, actor = ActorRecords(store), new_actor_id(b"jjjj")
    actors.create(actor, name=b"", fields={"max_restarts": 0, "owner": b"o" * 12, "frame": b"", "queue": "task.none"})
    _, epoch, *_ = actors.start(actor, NODE)
    if dead:
        cause = death_record("JobSupervisor", actor, "Its process was killed.")
        actors.end(actor, final=False, cause=cause, epoch=epoch, keeper=NODE)
    return actor


def test_a_job_whose_supervisor_died_is_reported(store: ObjectStore, tmp_path: Path) -> None:
    jobs = Submissions(store)
    for name, dead in (("dead", True), ("alive", False)):
        actor = supervisor(store, dead=dead)
        jobs.add(Submission(name, "true", Status.RUNNING, attempt=1, actor_id=actor, submitted=time.time()))
    service(store, tmp_path).run_once()
    found = jobs.all()
    assert found["alive"].status is Status.RUNNING
    assert (found["dead"].status, found["dead"].error_type) == (Status.FAILED, "JOB_SUPERVISOR_ACTOR_DIED")
    assert "was killed" in found["dead"].message


def test_what_has_ended_is_forgotten_in_time_and_read_once(store: ObjectStore, tmp_path: Path) -> None:
    jobs = Submissions(store)
    now = time.time()
    jobs.add(Submission("old", "true", Status.SUCCEEDED, submitted=now - 500, ended=now - 200))
    jobs.add(Submission("new", "true", Status.FAILED, submitted=now - 500, ended=now))
    ours = service(store, tmp_path)
    ours.run_once()
    assert set(jobs.all()) == {"new"}
    its_turn(store)
    read: list[list[str]] = []
    ours._records.some = lambda names: read.append(names) or []  # type: ignore[method-assign,func-returns-value]
    ours.run_once()
    assert read == []


def test_one_node_looks_at_a_time(store: ObjectStore, tmp_path: Path) -> None:
    jobs = Submissions(store)
    service(store, tmp_path).run_once()
    jobs.add(Submission("old", "true", Status.SUCCEEDED, ended=1.0))
    service(store, tmp_path).run_once()
    assert set(jobs.all()) == {"old"}
    its_turn(store)
    service(store, tmp_path).run_once()
    assert jobs.all() == {}


def test_nonsense_among_the_records_ends_nothing(store: ObjectStore, tmp_path: Path) -> None:
    store.call(b"HSET", store.keys.submissions, b"\xff\xfe", b"noise", b"forged", b"noise")
    Submissions(store).add(Submission("old", "true", Status.SUCCEEDED, ended=1.0))
    service(store, tmp_path).run_once()
    assert store.call(b"HLEN", store.keys.submissions) == 0


def test_drivers_that_left_are_forgotten_in_time(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.begin_job(b"aaaa", store.signer.seal(b"jobaaaa", encode({"pid": 1})))
    store.end_job(b"aaaa")
    service(store, tmp_path).run_once()
    assert len(Submissions(store).drivers()) == 1
    its_turn(store)
    service(store, tmp_path, ttl=-1.0).run_once()
    assert Submissions(store).drivers() == []


def test_logs_of_jobs_that_are_not_on_record_go(store: ObjectStore, tmp_path: Path) -> None:
    files = tmp_path / "rabbitry-1-abc"
    ours = service(store, files)
    ours.clear_files()  # nothing is there yet
    assert not files.exists()
    supervisors = RunDirectory.join(files)
    for name in ("kept", "gone"):
        make_log_directory(log_directory(files, name, 1.5), name)
    # Of one that was deleted, before its id was used again.
    make_log_directory(log_directory(files, "kept", 0.5), "kept")
    Submissions(store).add(Submission("kept", "true", submitted=1.5))
    ours.clear_files()
    assert log_directory(files, "kept", 1.5).is_dir()
    assert not log_directory(files, "kept", 0.5).exists()
    assert not log_directory(files, "gone", 1.5).exists()
    supervisors.leave()
    ours.close()
    assert not files.exists()


def test_a_node_that_leaves_takes_what_it_never_looked_at_along(store: ObjectStore, tmp_path: Path) -> None:
    files = tmp_path / "rabbitry-1-abc"
    RunDirectory.join(files).leave()
    service(store, files).close()
    assert not files.exists()
    service(store, files).close()


@pytest.mark.parametrize("text", ["soon", "0", "-1", "inf"])
def test_an_impossible_time_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(TTL, text)
    with pytest.raises(ValueError, match=TTL):
        job_ttl()
    assert submissions.TTL_SECONDS > 0


def test_of_more_than_are_read_at_once_all_have_their_turn(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submissions, "READ_AT_ONCE", 1)
    jobs = Submissions(store)
    for number in range(3):
        actor = supervisor(store, dead=number == 2)
        jobs.add(Submission(str(number), "true", Status.RUNNING, attempt=1, actor_id=actor, submitted=time.time()))
    ours = service(store, tmp_path)
    for _ in range(200):
        its_turn(store)
        ours.run_once()
        if jobs.all()["2"].status is Status.FAILED:
            break
    assert {name: job.status for name, job in jobs.all().items()} == {
        "0": Status.RUNNING,
        "1": Status.RUNNING,
        "2": Status.FAILED,
    }
