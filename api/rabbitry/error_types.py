"""What kinds of failures there are, by the names that Ray's state API has for them."""

from __future__ import annotations

import re
from typing import Final

from rabbitry.task_error import stored_text, traceback_text

TASK_EXECUTION_EXCEPTION: Final = "TASK_EXECUTION_EXCEPTION"
WORKER_DIED: Final = "WORKER_DIED"
OWNER_DIED: Final = "OWNER_DIED"
TASK_CANCELLED: Final = "TASK_CANCELLED"

_BY_CLASS: Final = {
    "WorkerCrashedError": WORKER_DIED,
    "LocalNodeDiedError": "LOCAL_RAYLET_DIED",
    "NodeDiedError": "NODE_DIED",
    "OutOfMemoryError": "OUT_OF_MEMORY",
    "RuntimeEnvSetupError": "RUNTIME_ENV_SETUP_FAILED",
    "TaskUnschedulableError": "TASK_UNSCHEDULABLE_ERROR",
    "TaskPlacementGroupRemoved": "TASK_PLACEMENT_GROUP_REMOVED",
    "TaskCancelledError": TASK_CANCELLED,
    "ActorDiedError": "ACTOR_DIED",
    "ActorUnavailableError": "ACTOR_UNAVAILABLE",
    "ActorUnschedulableError": "ACTOR_UNSCHEDULABLE_ERROR",
    "ActorPlacementGroupRemoved": "ACTOR_PLACEMENT_GROUP_REMOVED",
    "ObjectLostError": "OBJECT_LOST",
    "ObjectFreedError": "OBJECT_FREED",
    "ObjectFetchTimedOutError": "OBJECT_FETCH_TIMED_OUT",
    "OwnerDiedError": OWNER_DIED,
    "OutOfDiskError": "OUT_OF_DISK_ERROR",
    "ObjectStoreFullError": "OUT_OF_MEMORY",
}
# A traceback's last part begins with the class and a colon, at the start of a line.
_CLASS_LINE: Final = re.compile(r"^(?:[\w.]+\.)?(\w+)(?::|$)", re.MULTILINE)


def of_stored(data: bytes) -> tuple[str, str]:
    """Return (kind, text) of a failure that the store keeps, without running any code of its classes.

    Args:
        data: a failure as the store keeps it.
    """
    raised, text = stored_text(data)
    if raised:
        found = [name for name in _CLASS_LINE.findall(text) if name == "TaskCancelledError"]
        return (TASK_CANCELLED if found else TASK_EXECUTION_EXCEPTION), text
    named = [_BY_CLASS[name] for name in _CLASS_LINE.findall(text) if name in _BY_CLASS]
    return (named[-1] if named else TASK_EXECUTION_EXCEPTION), text


def of(error: BaseException) -> tuple[str, str]:
    """Return (kind, text) of an exception. It never raises."""
    return _BY_CLASS.get(type(error).__name__, TASK_EXECUTION_EXCEPTION), traceback_text(error)
