"""The supervisor of a job: a detached actor on the node where the entrypoint runs, as long as it runs.

Its constructor takes over the job in the record, with a number for this attempt; the actor calls itself to run the
entrypoint, so that it depends on nobody else, and a restarted one (`max_retries` of the job) begins anew. It ends
itself when the entrypoint has ended. What the record says counts: one that finds the job ended, stopped, or with a
later attempt than its own, ends the entrypoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import rabbitry
from rabbitry import current, submitted_job
from rabbitry.client import Client
from rabbitry.environment import ADDRESS, JOB_CONFIG, text
from rabbitry_broker import cluster_file
from rabbitry_broker.environment import number
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.run_directory import RunDirectory
from rabbitry_broker.store.submissions import Submissions
from rabbitry_broker.submissions import (
    COMMAND_ERROR,
    COMMAND_FAILED,
    DIED_ERROR,
    PENDING,
    RUNNING,
    START_ERROR,
    STOPPED,
    SUCCEEDED,
    Status,
    Submission,
)
from rabbitry_workers.executor import place
from rabbitry_workers.jobs.entrypoint import STOP_SECONDS, Entrypoint
from rabbitry_workers.jobs.log_files import (
    DEFAULT_LIMIT,
    LogWriter,
    Part,
    log_directory,
    make_log_directory,
    read_log,
    read_tail,
)

LOG_BYTES: Final = "RABBITRY_JOB_LOG_BYTES"
LEAST_LOG_BYTES: Final = 64 << 10
STOP_SIGNAL: Final = ("RABBITRY_JOB_STOP_SIGNAL", "RAY_JOB_STOP_SIGNAL")
STOP_WAIT: Final = ("RABBITRY_JOB_STOP_WAIT_TIME_S", "RAY_JOB_STOP_WAIT_TIME_S")
LOOK_SECONDS: Final = 5.0  # between two looks at the record
TAIL_LINES: Final = 10
TAIL_CHARACTERS: Final = 20_000
LONGEST_WAIT: Final = 30.0

log = logging.getLogger("rabbitry.jobs")


class JobSupervisor:
    """Runs one attempt of a job. An asyncio actor: its methods run beside each other.

    Args:
        submission_id: of the job.
        submitted: when it was: what is on record by that id may be a later job, if this one was deleted.
    """

    def __init__(self, submission_id: str, submitted: float) -> None:
        self._id = submission_id
        self._submitted = submitted
        self._client = current.client()
        self._records = Submissions(self._client.store)
        self._entrypoint: Entrypoint | None = None
        self._ended = threading.Event()
        self._grown: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        context = rabbitry.get_runtime_context()
        # Locked as long as the job runs, so that nobody takes the node's directory for a dead one's.
        self._node_files = RunDirectory.join(place.directory())
        self._job: Submission | None = None
        actor, node = bytes.fromhex(context.get_actor_id() or ""), context.get_node_id()
        directory = str(log_directory(self._node_files.path, submission_id, submitted))

        def take_over(job: Submission) -> Submission | None:
            if job.status.is_final or job.submitted != submitted:
                return None
            if job.stopping:
                return job.moved(Status.STOPPED, STOPPED)
            if job.attempt > job.max_retries >= 0:
                # Nodes may move an actor, or create it twice when one of them was thought to be dead.
                why = "Job supervisor actor died: its node left or was lost, and the job has no retries (left)."
                return job.moved(Status.FAILED, why, error_type=DIED_ERROR)
            message = PENDING if not job.attempt else f"{PENDING} Attempt {job.attempt + 1}: its node was lost."
            facts = {"attempt": job.attempt + 1, "actor_id": actor, "node_id": node, "directory": directory}
            return job.moved(Status.PENDING, message, pid=0, **facts)

        job = self._records.change(submission_id, take_over)
        if job is not None and not job.status.is_final and job.submitted == submitted:
            self._job = job
        context.current_actor.run.remote()

    # -- called by the manager ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run the entrypoint to its end, and end this actor. Called by itself, or by its former process."""
        if self._loop is not None:
            return
        self._loop, self._grown = asyncio.get_running_loop(), asyncio.Event()
        try:
            if self._job is not None:
                await asyncio.to_thread(self._run, self._job)
        except Exception:
            log.exception("the supervisor of job %s failed", self._id)
        finally:
            self._ended.set()
            self._node_files.leave()
        rabbitry.actor.exit_actor()

    async def stop(self) -> None:
        """The record says that the job is to stop: look at it now."""
        await asyncio.to_thread(self._look)

    async def read(self, position: int, wait: float) -> Part:
        """Return what the log holds from a position on, see `read_log`.

        Args:
            position: of the first byte.
            wait: seconds to wait for something, if there is nothing yet.
        """
        if self._job is None:
            return Part(b"", position, position)
        grown = self._grown
        part = await asyncio.to_thread(read_log, self._job.directory, position)
        if part.data or grown is None or wait <= 0:
            return part
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(grown.wait(), min(wait, LONGEST_WAIT))
        return await asyncio.to_thread(read_log, self._job.directory, position)

    # -- running -----------------------------------------------------------------------------------------------------

    def _run(self, job: Submission) -> None:
        directory = Path(job.directory)
        make_log_directory(directory, self._id)
        writer = LogWriter(directory, number(LOG_BYTES, int, DEFAULT_LIMIT, unit="bytes", least=LEAST_LOG_BYTES))
        try:
            if job.attempt > 1:
                writer.write(f"--- attempt {job.attempt} ---\n".encode())
            begun = self._change(lambda now: now.moved(Status.RUNNING, RUNNING))
            if begun is None:
                return
            try:
                entrypoint = Entrypoint(job.entrypoint, self._variables(job, directory), writer)
            except (OSError, ValueError) as error:
                message = f"The entrypoint could not be started: {error}"
                writer.write(f"{message}\n".encode("utf-8", "backslashreplace"))
                self._change(lambda now: now.moved(Status.FAILED, message, error_type=START_ERROR))
                return
            self._entrypoint = entrypoint
            with contextlib.suppress(RabbitryBrokerError):
                self._change(lambda now: replace(now, pid=entrypoint.pid))
            watch = threading.Thread(target=self._watch, name="rabbitry-job-watch", daemon=True)
            watch.start()
            self._look()  # it may have been asked to stop in between
            code = entrypoint.run(self._on_output)
            self._ended.set()
            watch.join()
            tail = read_tail(directory, TAIL_LINES, TAIL_CHARACTERS) if code else ""
            self._change(lambda now: _at_end(now, code, tail, asked_to_stop=entrypoint.asked_to_stop))
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            self._change(lambda now: now.moved(Status.FAILED, text, error_type=START_ERROR))
            raise
        finally:
            writer.close()

    def _change(self, change: Callable[[Submission], Submission]) -> Submission | None:
        """Change the record if the job is still this attempt's; None if it is not."""
        ours: list[bool] = []

        def if_ours(now: Submission) -> Submission | None:
            ours[:] = [self._is_ours(now)]
            return change(now) if ours[0] else None

        changed = self._records.change(self._id, if_ours)
        return changed if changed is not None and ours[0] else None

    def _is_ours(self, now: Submission) -> bool:
        """True if that is the record of this attempt, and it goes on."""
        job = self._job
        assert job is not None
        return now.submitted == job.submitted and now.attempt == job.attempt and not now.status.is_final

    def _on_output(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake_readers)

    def _wake_readers(self) -> None:
        # Those who wait have the old event; who comes later waits for the next.
        if self._grown is not None:
            self._grown.set()
            self._grown = asyncio.Event()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            with contextlib.suppress(RabbitryBrokerError):  # the store is away: the job runs on
                self._look()

    def _look(self) -> None:
        """See what the record says of this attempt."""
        entrypoint = self._entrypoint
        if entrypoint is None or self._job is None:
            return
        now = self._records.get(self._id)
        if now is None or not self._is_ours(now):
            log.warning("job %s is not this supervisor's any more: its entrypoint ends", self._id)
            entrypoint.stop(signal.SIGKILL, 0.0)
        elif now.stopping:
            entrypoint.stop(_stop_signal(), _stop_seconds())

    def _variables(self, job: Submission, directory: Path) -> dict[str, str]:
        variables = dict(os.environ)
        address = _address_for_children(self._client, directory)
        names = {submitted_job.SUBMISSION_KEY: job.submission_id, submitted_job.NAME_KEY: job.submission_id}
        variables |= {
            ADDRESS: address,
            "RAY_ADDRESS": address,
            JOB_CONFIG: submitted_job.describe({**names, **job.metadata}, job.runtime_env),
            "PYTHONUNBUFFERED": "1",  # so that the log can be followed
        }
        modules = [*place.modules(), *filter(None, [variables.get("PYTHONPATH")])]
        if modules:
            variables["PYTHONPATH"] = os.pathsep.join(modules)
        # `python` is the node's own (or its environment's), whether that was activated or not.
        path = variables.get("PATH", os.defpath).split(os.pathsep)
        ours = os.path.dirname(sys.executable)
        variables["PATH"] = os.pathsep.join([ours, *[each for each in path if each != ours]])
        return variables


def _at_end(now: Submission, code: int, tail: str, *, asked_to_stop: bool) -> Submission:
    """Return the record of a job whose entrypoint has ended."""
    if now.stopping and asked_to_stop:
        return now.moved(Status.STOPPED, STOPPED, exit_code=code)
    if code == 0:
        return now.moved(Status.SUCCEEDED, SUCCEEDED, exit_code=0)
    message = COMMAND_FAILED.format(code)
    message += f"; the end of its log:\n{tail}" if tail else "; it printed nothing."
    return now.moved(Status.FAILED, message, exit_code=code, error_type=COMMAND_ERROR)


def _address_for_children(client: Client, directory: Path) -> str:
    """Return the address by which processes on this host join the cluster; no secret is in it."""
    endpoint = client.endpoint
    if endpoint.embedded:
        return cluster_file.address_of(os.path.dirname(endpoint.store_url.partition("://")[2].partition("?")[0]))
    cluster = cluster_file.ClusterFile(endpoint, client.session, client_lease=client.identity.lease)
    return cluster_file.write(directory, cluster)


def _stop_signal() -> signal.Signals:
    return signal.SIGINT if text(*STOP_SIGNAL) == "SIGINT" else signal.SIGTERM


def _stop_seconds() -> float:
    given = text(*STOP_WAIT)
    with contextlib.suppress(ValueError):
        return max(0.0, float(given or STOP_SECONDS))
    log.warning("%s=%r is no number of seconds", STOP_WAIT[0], given)
    return STOP_SECONDS
