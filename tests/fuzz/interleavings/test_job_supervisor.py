"""Supervisors of jobs in thousands of orders: entrypoints end or are stopped while records change under them.

Beside the threads of a supervisor somebody stops the job, a node takes its process for dead, somebody deletes it when
it has ended and uses its id again at once. Each submission has one end, its own; nobody moves another's; nothing runs
on in the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_broker.submissions import STOPPED, Status, Submission
from rabbitry_workers.jobs import supervisor as module
from rabbitry_workers.jobs.supervisor import LOOK_SECONDS, JobSupervisor
from tests.fuzz.interleavings.orders import named, orders
from tests.fuzz.interleavings.scheduler import Scheduler

ORDERS = 300
NAME = "job"
CODES = {1.0: 0, 2.0: 7}
"""Exit codes of the entrypoints of the first submission, and of the second."""


class Records:
    """One record, which is replaced only if it is as it was read."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.now: Submission | None = None
        self.moves: list[tuple[float, Status, str]] = []

    def get(self, name: str) -> Submission | None:
        """As in `Submissions`."""
        self._scheduler.switch()
        found = self.now
        self._scheduler.switch()
        return found

    def change(self, name: str, change: Callable[[Submission], Submission | None]) -> Submission | None:
        """As in `Submissions`."""
        while True:
            job = self.get(name)
            if job is None:
                return None
            changed = change(job)
            self._scheduler.switch()
            if changed is None:
                return job
            if self.now is job:
                self.now = changed
                self.moves.append((changed.submitted, changed.status, changed.message))
                return changed


class Entry:
    """An entrypoint: it ends by itself after a while, or when it is stopped."""

    pid = 1

    def __init__(self, story: Story, command: str) -> None:
        self.story = story
        self.submitted = float(command)
        self.asked_to_stop = self.was_stopped = self.over = False
        self.lasts = story.chance.choice([0.0, 1.0, 8.0, 1000.0])
        story.entries.append(self)

    def stop(self, number: Any, seconds: float) -> None:
        """As in `Entrypoint`."""
        self.asked_to_stop = True
        self.story.scheduler.switch()

    def run(self, on_output: Callable[[], None]) -> int:
        """As in `Entrypoint`."""
        self.story.scheduler.block(lambda: self.asked_to_stop, self.lasts)
        self.over = True
        self.was_stopped = self.asked_to_stop
        return -15 if self.was_stopped else CODES[self.submitted]


class Story:
    """A job, its supervisors, and who else changes its record."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chance = random.Random(f"supervisor-{seed}")
        self.scheduler = Scheduler(seed, (module,))
        self.records = Records(self.scheduler)
        self.entries: list[Entry] = []
        self.stopped: dict[float, float] = {}
        self.lost: set[float] = set()
        self.supervisors = 0
        actor = SimpleNamespace(run=SimpleNamespace(remote=lambda: None))
        context = SimpleNamespace(current_actor=actor, get_actor_id=self._actor_id, get_node_id=lambda: "00")
        api: Any = SimpleNamespace(get_runtime_context=lambda: context)
        client = SimpleNamespace(store=None, endpoint=None)
        directory = SimpleNamespace(path=None, leave=lambda: None)
        stands: dict[str, Any] = {
            "threading": self.scheduler.threading,
            "rabbitry": api,
            "current": SimpleNamespace(client=lambda: client),
            "Submissions": lambda store: self.records,
            "RunDirectory": SimpleNamespace(join=lambda path: directory),
            "place": SimpleNamespace(directory=lambda: ""),
            "log_directory": lambda files, name, submitted: f"log-{submitted}",
            "make_log_directory": lambda directory, name: None,
            "LogWriter": lambda directory, limit: SimpleNamespace(write=lambda data: None, close=lambda: None),
            "read_tail": lambda *_: "",
            "Entrypoint": lambda command, variables, writer: Entry(self, command),
            "log": SimpleNamespace(warning=lambda *_: None, exception=lambda *_: None),
        }
        for name, stand in stands.items():
            monkeypatch.setattr(module, name, stand)
        monkeypatch.setattr(JobSupervisor, "_variables", lambda *_: {})

    def _actor_id(self) -> str:
        self.supervisors += 1
        return f"{self.supervisors:032x}"

    def run(self) -> None:
        self.submit(1.0)
        self.scheduler.spawn(self.meddle, "others")
        self.scheduler.run()

    def submit(self, when: float) -> None:
        """Put a job on record; its supervisor begins at some moment."""
        self.records.now = Submission(NAME, str(when), submitted=when)
        self.scheduler.spawn(lambda: self.supervise(when), f"supervisor {when:g}")

    def supervise(self, when: float) -> None:
        """What the process of a supervisor does; whoever stops a job tells it to look."""
        supervisor = JobSupervisor(NAME, when)
        self.scheduler.spawn(lambda: self.hear(supervisor, when), daemon=True)
        if supervisor._job is not None:
            supervisor._run(supervisor._job)

    def hear(self, supervisor: JobSupervisor, when: float) -> None:
        """A call of `stop` comes, or gets lost."""
        if self.chance.random() < 0.7:
            self.scheduler.block(lambda: when in self.stopped)
            supervisor._look()

    def meddle(self) -> None:
        """Others stop the job, take its supervisor for dead, delete it, use its id again."""
        self.scheduler.sleep(self.chance.choice([0.0, 0.5, 2.0, 9.0]))
        if self.chance.random() < 0.5:
            self.stop()
        if self.chance.random() < 0.3:
            self.records.change(NAME, self._report)
        self.scheduler.block(lambda: self.ended, 30.0)
        if not self.ended:
            self.stop()
            self.scheduler.block(lambda: self.ended)
        if self.chance.random() < 0.6:
            self.submit(2.0)
            self.scheduler.sleep(self.chance.choice([0.0, 3.0]))
            if self.chance.random() < 0.3:
                self.stop()
            self.scheduler.block(lambda: self.ended, 30.0)
            if not self.ended:
                self.stop()

    @property
    def ended(self) -> bool:
        return self.records.now is not None and self.records.now.status.is_final

    def stop(self) -> None:
        """See `JobManager.stop`."""

        def ask(now: Submission) -> Submission | None:
            if now.status.is_final:
                return None
            return now.moved(Status.STOPPED, STOPPED) if not now.attempt else replace(now, stopping=True)

        asked = self.records.change(NAME, ask)
        if asked is not None and (asked.stopping or asked.status is Status.STOPPED):
            self.stopped.setdefault(asked.submitted, self.scheduler.now)

    def _report(self, now: Submission) -> Submission | None:
        if now.status.is_final or not now.attempt:
            return None
        self.lost.add(now.submitted)
        return now.moved(Status.FAILED, "its supervisor died")

    def check(self) -> None:
        assert self.ended, "a job has not ended"
        assert all(entry.over for entry in self.entries), "an entrypoint runs on"
        for when in CODES:
            ends = [(status, message) for at, status, message in self.records.moves if at == when and status.is_final]
            begun = [entry for entry in self.entries if entry.submitted == when]
            assert len(begun) <= 1, "an entrypoint was started twice"
            if not begun:
                continue
            (entry,) = begun
            assert len({status for status, _ in ends}) == 1, f"it has ended as {ends}"
            status, _ = ends[0]
            if when in self.lost:
                assert status in (Status.FAILED, Status.STOPPED)
            elif status is Status.STOPPED:
                assert entry.asked_to_stop and when in self.stopped, "nobody has stopped it"
            else:
                assert not entry.was_stopped
                assert status is (Status.FAILED if CODES[when] else Status.SUCCEEDED)
        slowest = max([*self.stopped.values(), 0.0])
        assert self.scheduler.now <= slowest + 31.0 + 2 * LOOK_SECONDS, "a stop was not heard of"


def test_each_submission_has_one_end_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in orders(ORDERS):
        with monkeypatch.context() as patch:
            story = Story(seed, patch)
            with named(seed):
                story.run()
                story.check()
