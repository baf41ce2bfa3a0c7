"""Jobs that were submitted: what their records say, and how they go on.

    PENDING --the entrypoint starts--> RUNNING --it ends--> SUCCEEDED | FAILED
       ^  |                             |  |  '--somebody stops it--> STOPPED
       |  '--stopped, or cannot start---|--+--> STOPPED | FAILED
       '-------its node was lost, and it may be tried again

A record is authoritative (`store/submissions.py`). Each start of the entrypoint is an attempt with a number of its own:
a supervisor that finds another number in the record than its own is one too many, and ends what it runs. An id may be
used again when a job is deleted: when it was submitted tells two of them apart.
"""

from __future__ import annotations

import enum
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from rabbitry_broker.errors import RabbitryBrokerError

PENDING: Final = "Job has not started yet."
RUNNING: Final = "Job is currently running."
STOPPED: Final = "Job was intentionally stopped."
SUCCEEDED: Final = "Job finished successfully."
COMMAND_FAILED: Final = "Job entrypoint command failed with exit code {}"

# Ray's names of what goes wrong.
ENVIRONMENT_ERROR: Final = "RUNTIME_ENV_SETUP_FAILURE"
TIMEOUT_ERROR: Final = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"
SUPERVISOR_ERROR: Final = "JOB_SUPERVISOR_ACTOR_START_FAILURE"
UNSCHEDULABLE_ERROR: Final = "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE"
DIED_ERROR: Final = "JOB_SUPERVISOR_ACTOR_DIED"
START_ERROR: Final = "JOB_ENTRYPOINT_COMMAND_START_ERROR"
COMMAND_ERROR: Final = "JOB_ENTRYPOINT_COMMAND_ERROR"


class Status(str, enum.Enum):
    """Where a submitted job is."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    def __str__(self) -> str:
        return self.value

    @property
    def is_final(self) -> bool:
        """True if it stays so."""
        return not _MOVES[self]


_ENDS: Final = frozenset((Status.STOPPED, Status.SUCCEEDED, Status.FAILED))
_MOVES: Final = {
    Status.PENDING: frozenset((Status.PENDING, Status.RUNNING, Status.STOPPED, Status.FAILED)),
    Status.RUNNING: frozenset((Status.PENDING, *_ENDS)),
    Status.STOPPED: frozenset[Status](),
    Status.SUCCEEDED: frozenset[Status](),
    Status.FAILED: frozenset[Status](),
}


class ImpossibleMove(RabbitryBrokerError):
    """A job cannot go from the state that it is in to that state."""


@dataclass(frozen=True)
class Submission:
    """The record of a submitted job.

    Attributes:
        submission_id: its name.
        entrypoint: the shell command.
        status: where it is.
        message: the same in words.
        error_type: Ray's name of what went wrong; "" for nothing.
        submitted: when, in seconds since 1970; Ray calls that its start.
        ended: when it came to its end; 0.0 before.
        metadata: of whoever submitted it.
        runtime_env: its environment, as it was submitted.
        resources: what the entrypoint holds, by Ray's names of the arguments.
        label_selector: where it may run.
        max_retries: how often it may start again after its node was lost; -1 for always.
        attempt: counts its starts.
        actor_id: of its supervisor.
        node_id: where it runs or ran, hexadecimal; "" before its first start.
        directory: of its log there.
        pid: of the entrypoint's shell.
        exit_code: of the entrypoint; None while there is none.
        stopping: somebody asked for its end.
    """

    submission_id: str
    entrypoint: str
    status: Status = Status.PENDING
    message: str = ""
    error_type: str = ""
    submitted: float = 0.0
    ended: float = 0.0
    metadata: dict[str, str] = field(default_factory=dict)
    runtime_env: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    label_selector: dict[str, str] = field(default_factory=dict)
    max_retries: int = 0
    attempt: int = 0
    actor_id: bytes = b""
    node_id: str = ""
    directory: str = ""
    pid: int = 0
    exit_code: int | None = None
    stopping: bool = False

    def moved(self, status: Status, message: str, **changes: Any) -> Submission:
        """Return the record in another state.

        Args:
            status: the state.
            message: the same in words.
            changes: other fields.

        Raises:
            ImpossibleMove: there is no way from the present state.
        """
        if status not in _MOVES[self.status]:
            raise ImpossibleMove(f"job {self.submission_id} is {self.status}, and cannot become {status}")
        if status.is_final:
            changes.setdefault("ended", time.time())
        return replace(self, status=status, message=message, **changes)

    def pack(self) -> dict[str, Any]:
        """Return the record as plain values."""
        return {**asdict(self), "status": self.status.value}

    @classmethod
    def unpack(cls, fields: dict[str, Any]) -> Submission:
        """Return the record of `pack`; fields of later versions are left out.

        Raises:
            TypeError: a field is missing.
            ValueError: there is no such state.
        """
        known = {name: value for name, value in fields.items() if name in cls.__dataclass_fields__}
        return cls(**{**known, "status": Status(known.get("status", "PENDING"))})
