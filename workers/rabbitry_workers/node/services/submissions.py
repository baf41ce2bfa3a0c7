"""What a node does for submitted jobs: reports those whose supervisors are gone, forgets old ones, clears its logs.

| what | who | how often |
|---|---|---|
| jobs whose supervisor is dead, or never started, are reported | one node for all | 3 s |
| jobs that ended, and drivers that left, are forgotten after `RABBITRY_JOB_TTL` | the same | the same |
| logs of jobs that are not on record go | every node, its own | 10 s |
"""

from __future__ import annotations

import contextlib
import logging
import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Final

from rabbitry_broker.environment import number
from rabbitry_broker.run_directory import RunDirectory, RunDirectoryError, sweep
from rabbitry_broker.store.submissions import Submissions
from rabbitry_workers.jobs.ends import report_ends
from rabbitry_workers.jobs.log_files import log_directory, logs_kept
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.services.turns import submissions_turn, takes_turn

INTERVAL_SECONDS: Final = 3.0
FILES_SECONDS: Final = 10.0
READ_AT_ONCE: Final = 500
TTL: Final = "RABBITRY_JOB_TTL"
TTL_SECONDS: Final = 7 * 86400.0

log = logging.getLogger("rabbitry.node")


def job_ttl() -> float:
    """Return for how long jobs that have ended are kept, in seconds.

    Raises:
        ValueError: the variable holds no such number.
    """
    return number(TTL, float, TTL_SECONDS, unit="seconds", least=1)


class SubmittedJobs:
    """Service on the agent's loop: `start`, `run_once`, `clear_files`, `close`.

    Args:
        node: which does it.
        ttl: seconds that a job which has ended is kept.
    """

    def __init__(self, node: Node, ttl: float) -> None:
        self._node = node
        self._ttl = ttl
        self._records = Submissions(node.store)
        self._files = Path(node.config.files)
        self._held: RunDirectory | None = None
        self._ended: dict[str, float] = {}  # jobs on record that have ended, and when

    def start(self) -> None:
        """Look after them from now on."""
        self._node.periodic.every(INTERVAL_SECONDS, self.run_once)
        self._node.periodic.every(FILES_SECONDS, self.clear_files)

    def run_once(self) -> None:
        """Report and forget, if it is this node's turn."""
        store, keys = self._node.store, self._node.keys
        if not takes_turn(store, submissions_turn(keys), self._node.id, INTERVAL_SECONDS, self._node.turns):
            return
        names = self._records.names()
        # What has ended changes no more, but that somebody deletes it: only the others are read again.
        self._ended = {name: ended for name in names if (ended := self._ended.get(name)) is not None}
        left = [name for name in names if name not in self._ended]
        if len(left) > READ_AT_ONCE:
            left = random.sample(left, READ_AT_ONCE)  # of more, each has its turn sooner or later
        if left:
            jobs = report_ends(store, self._records.some(left))
            self._ended |= {name: job.ended for name, job in jobs.items() if job.status.is_final}
        too_old = time.time() - self._ttl
        for name in [name for name, ended in self._ended.items() if ended < too_old]:
            self._records.remove(name)
        self._records.forget_drivers(store.time() - self._ttl)

    def clear_files(self) -> None:
        """Delete logs on this node of jobs that are not on record any more."""
        if self._held is None:
            if not self._files.is_dir():
                return
            with contextlib.suppress(RunDirectoryError):
                # From now on the node's own lock says that the directory is in use; others' may go.
                self._held = RunDirectory.join(self._files)
                sweep(self._files.parent)
        kept = logs_kept(self._files)
        known = self._records.known([name for name in kept.values() if name])
        # Of several jobs of one name, the last is on record.
        doubled = [name for name, count in Counter(kept.values()).items() if count > 1 and name in known]
        last = {
            job.submission_id: log_directory(self._files, job.submission_id, job.submitted)
            for job in self._records.some(doubled)
        }
        for directory, name in kept.items():
            if name and (name not in known or last.get(name, directory) != directory):
                shutil.rmtree(directory, ignore_errors=True)

    def close(self) -> None:
        """The node leaves: what is on its disk is nobody's any more."""
        if self._held is None and self._files.is_dir():
            with contextlib.suppress(RunDirectoryError):
                self._held = RunDirectory.join(self._files)
        if self._held is not None:
            self._held.remove()
            self._held = None
