"""Submitting, stopping, reading and deleting jobs: what the HTTP service does for its clients.

It holds nothing of a job: every question is answered from the store and from the node where the job ran, so that any
number of services may run, and any of them may end.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import secrets
import string
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import rabbitry
from rabbitry.actor_handle import handle_from_facts
from rabbitry.client import Client
from rabbitry.core.failures import killed_cause
from rabbitry.exceptions import RabbitryError
from rabbitry.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.store.actors import ActorRecords
from rabbitry_broker.store.submissions import Submissions
from rabbitry_broker.submissions import PENDING, STOPPED, SUPERVISOR_ERROR, Status, Submission
from rabbitry_workers.jobs.ends import report_ends
from rabbitry_workers.jobs.log_files import READ_AT_ONCE, Part, read_log
from rabbitry_workers.jobs.supervisor import JobSupervisor

ID_PREFIX: Final = "raysubmit_"
ID_CHARACTERS: Final = "".join(each for each in string.ascii_letters + string.digits if each not in "IloO0")
ID_LENGTH: Final = 16
READ_SECONDS: Final = 30.0
FOLLOW_SECONDS: Final = 2.0  # that a supervisor waits for output before it answers
PENDING_SECONDS: Final = 0.5


class NoSuchJob(RabbitryBrokerError, LookupError):
    """No job has that id, or no submitted one."""


class JobNotEnded(RabbitryBrokerError, RuntimeError):
    """Only what has ended can be deleted."""


class LogsLost(RabbitryBrokerError, RuntimeError):
    """The node that has the log does not answer, or is gone."""


@dataclass(frozen=True)
class Request:
    """What is to be run, checked.

    Attributes:
        entrypoint: a shell command.
        submission_id: its name; "" for a random one.
        runtime_env: of the entrypoint and its driver.
        metadata: text to text.
        resources: arguments of the supervisor's options: num_cpus, num_gpus, memory, resources.
        label_selector: where it may run.
        max_retries: how often it may start again after its node was lost; -1 for always.
    """

    entrypoint: str
    submission_id: str = ""
    runtime_env: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    label_selector: dict[str, str] = field(default_factory=dict)
    max_retries: int = 0


def new_submission_id() -> str:
    """Return a random id of Ray's form."""
    return ID_PREFIX + "".join(secrets.choice(ID_CHARACTERS) for _ in range(ID_LENGTH))


class JobManager:
    """Does what is asked for jobs. Any thread may call anything.

    Args:
        client: returns the client of this process, connected.
    """

    def __init__(self, client: Callable[[], Client]) -> None:
        self._client = client

    def _records(self) -> Submissions:
        return Submissions(self._client().store)

    def submit(self, request: Request) -> str:
        """Put a job on record and create its supervisor; return its id at once.

        Raises:
            ValueError: the id is taken, or an impossible option.
            TypeError: an option of a wrong type.
        """
        options: dict[str, Any] = {
            "num_cpus": 0,
            **request.resources,
            "lifetime": "detached",
            "max_restarts": request.max_retries,
            # What its constructor calls while it is restarted would fail otherwise.
            "max_task_retries": -1 if request.max_retries else 0,
            "runtime_env": request.runtime_env or None,
        }
        if request.label_selector:
            options["label_selector"] = request.label_selector
        supervisor = rabbitry.remote(JobSupervisor).options(**options)  # what is impossible is said here
        records = self._records()
        job = Submission(
            submission_id=request.submission_id or new_submission_id(),
            entrypoint=request.entrypoint,
            message=PENDING + _may_wait_for(request),
            submitted=time.time(),
            metadata=request.metadata,
            runtime_env=request.runtime_env,
            resources=request.resources,
            label_selector=request.label_selector,
            max_retries=request.max_retries,
        )
        if not records.add(job):
            raise ValueError(
                f"Job with submission_id {job.submission_id} already exists. Please use a different submission_id."
            )
        try:
            handle: Any = supervisor.remote(job.submission_id, job.submitted)
            actor_id = handle._actor_id.binary()
            changed = records.change(job.submission_id, lambda now: _supervised(now, job, actor_id))
            # Somebody may have been quick to stop it, and even to delete it and use its id again.
            if changed is None or changed.status.is_final or changed.submitted != job.submitted:
                self._kill(actor_id)
        except (RabbitryError, RabbitryBrokerError, ValueError, TypeError) as error:
            message = f"Failed to start supervisor actor {job.submission_id}: {error}"
            with contextlib.suppress(RabbitryBrokerError):
                records.change(job.submission_id, lambda now: _never_started(now, job, message))
        return job.submission_id

    def find(self, submission_id: str) -> Submission | None:
        """Return a job's record as it is now; None if there is none."""
        job = self._records().get(submission_id)
        if job is None:
            return None
        return report_ends(self._client().store, [job]).get(submission_id)

    def all(self) -> list[Submission]:
        """Return all submitted jobs, oldest first."""
        jobs = report_ends(self._client().store, self._records().all().values())
        return sorted(jobs.values(), key=lambda job: job.submitted)

    def drivers(self) -> list[tuple[bytes, dict[str, Any], float]]:
        """Return drivers that are there and that have left, see `Submissions.drivers`."""
        return self._records().drivers()

    def stop(self, submission_id: str) -> bool:
        """Ask for a job's end; False if it had ended.

        Raises:
            NoSuchJob: there is none.
        """
        job = self.find(submission_id)
        if job is None:
            raise _no_such(submission_id)
        if job.status.is_final:
            return False

        def ask(now: Submission) -> Submission | None:
            if now.status.is_final:
                return None
            # Nobody runs it yet, and whoever would begin finds it stopped.
            return now.moved(Status.STOPPED, STOPPED) if not now.attempt else replace(now, stopping=True)

        asked = self._records().change(submission_id, ask)
        if asked is None:
            raise _no_such(submission_id)
        if asked.actor_id and asked.status is Status.STOPPED and not asked.attempt:
            self._kill(asked.actor_id)
        elif asked.actor_id and not asked.status.is_final:
            # Only so that it hears at once: it looks at its record from time to time.
            with contextlib.suppress(RabbitryError, LookupError):
                self._supervisor(asked.actor_id).stop.remote()
        return True

    def delete(self, submission_id: str) -> None:
        """Delete a job that has ended; its node deletes the log then.

        Raises:
            NoSuchJob: there is none.
            JobNotEnded: it has not ended.
        """
        self.find(submission_id)
        job = self._records().remove(submission_id)
        if job is None:
            raise _no_such(submission_id)
        if not job.status.is_final:
            raise JobNotEnded(
                f"Attempted to delete job '{submission_id}', but it is in a non-terminal state {job.status}."
            )

    # -- logs --------------------------------------------------------------------------------------------------------

    async def logs(self, submission_id: str) -> str:
        """Return all that is kept of a job's log.

        Raises:
            NoSuchJob: there is none.
            LogsLost: its node does not answer.
        """
        job = await self._found(submission_id)
        parts: list[bytes] = []
        position = 0
        while job.directory:
            part = await self.read(job, position)
            if not part.data:
                break
            parts.append(_missing(position, part) + part.data)
            position = part.end
        return b"".join(parts).decode("utf-8", "replace")

    async def follow(self, submission_id: str) -> AsyncIterator[str]:
        """Yield a job's log, what is there first and then as it grows, until the job has ended.

        Args:
            submission_id: of the job.

        Yields:
            Pieces of the log.

        Raises:
            NoSuchJob: there is none (any more).
            LogsLost: its node does not answer.
        """
        position, attempt = 0, 0
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            job = await self._found(submission_id)
            if attempt and job.attempt != attempt and job.attempt:
                position = 0  # it has started again, on another node maybe
            attempt = job.attempt
            if not job.directory:
                if job.status.is_final:
                    return
                await asyncio.sleep(PENDING_SECONDS)
                continue
            part = await self.read(job, position, FOLLOW_SECONDS)
            if part.data:
                piece = decoder.decode(_missing(position, part) + part.data)
                if piece:
                    yield piece
            elif job.status.is_final:  # and was before the log was read
                rest = decoder.decode(b"", final=True)
                if rest:
                    yield rest
                return
            position = part.end

    async def read(self, job: Submission, position: int, wait: float = 0.0) -> Part:
        """Return what a job's log holds from a position on; asks the supervisor, or the node if that has ended.

        Args:
            job: its record, with a directory.
            position: of the first byte.
            wait: seconds to wait for output if there is none and the job runs.

        Raises:
            LogsLost: the node does not answer.
        """
        if not job.status.is_final:
            try:
                supervisor = await asyncio.to_thread(self._supervisor, job.actor_id)
                ref = supervisor.read.remote(position, wait)
                return Part(*await asyncio.wait_for(ref, READ_SECONDS + wait))
            except (RabbitryError, LookupError, asyncio.TimeoutError):
                # It has ended just now, or is between two attempts; the log is there all the same, if its node is.
                await asyncio.sleep(PENDING_SECONDS)
        here = NodeAffinitySchedulingStrategy(job.node_id, soft=False)
        try:
            ref = _read_here.options(scheduling_strategy=here).remote(job.directory, position)
            return Part(*await asyncio.wait_for(ref, READ_SECONDS))
        except asyncio.TimeoutError:
            text = f"node {job.node_id[:8]}, which has the log, did not answer in {READ_SECONDS:g} s"
            raise LogsLost(text) from None
        except RabbitryError as error:
            if not job.status.is_final:
                return Part(b"", position, position)  # it starts again elsewhere, or is about to be reported
            raise LogsLost(f"the log went with node {job.node_id[:8]}, where the job ran: {error}") from None

    async def _found(self, submission_id: str) -> Submission:
        job = await asyncio.to_thread(self.find, submission_id)
        if job is None:
            raise _no_such(submission_id)
        return job

    def _supervisor(self, actor_id: bytes) -> Any:
        client = self._client()
        (facts,) = ActorRecords(client.store).fields(actor_id, "facts")
        if facts is None:
            raise LookupError(f"no actor {actor_id.hex()}")
        return handle_from_facts(actor_id, client.signer.open(b"facts" + actor_id, facts), None)

    def _kill(self, actor_id: bytes) -> None:
        ActorRecords(self._client().store).kill(actor_id, no_restart=True, cause=killed_cause(actor_id))


@rabbitry.remote(num_cpus=0, max_retries=0)
def _read_here(directory: str, position: int) -> Part:
    return read_log(directory, position, READ_AT_ONCE)


def _supervised(now: Submission, job: Submission, actor_id: bytes) -> Submission | None:
    if now.actor_id or now.status.is_final or now.submitted != job.submitted:
        return None
    return replace(now, actor_id=actor_id)


def _never_started(now: Submission, job: Submission, message: str) -> Submission | None:
    if now.status.is_final or now.attempt or now.submitted != job.submitted:
        return None
    return now.moved(Status.FAILED, message, error_type=SUPERVISOR_ERROR)


def _may_wait_for(request: Request) -> str:
    text = ""
    if any(request.resources.values()):
        text += " It may be waiting for resources (CPUs, GPUs, memory, custom resources) to become available."
    if request.runtime_env:
        text += " It may be waiting for the runtime environment to be set up."
    return text


def _missing(position: int, part: Part) -> bytes:
    """Return a line that says what is not there any more before a part."""
    return b"" if part.start <= position else b"[... %d bytes that are not kept ...]\n" % (part.start - position)


def _no_such(submission_id: str) -> NoSuchJob:
    return NoSuchJob(f"Job {submission_id} does not exist")
