"""Errors as they are stored where results would stand, and those that a full store means to the user."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

from rabbitry import program
from rabbitry.exceptions import (
    ActorDeath,
    ActorDiedError,
    ObjectStoreFullError,
    OutOfDiskError,
    OwnerDiedError,
    RabbitryError,
    TaskCancelledError,
    store_error,
)
from rabbitry_broker import records
from rabbitry_broker.ids import object_id
from rabbitry_broker.messages import DYNAMIC, STREAMING
from rabbitry_broker.shared_memory import ObjectStoreFull
from rabbitry_broker.store.spill import OutOfDisk


def result_keys(task_id: bytes, num_returns: int) -> list[bytes]:
    """Return the ids of the objects that a task which fails must fill; `num_returns` as it stands in a header."""
    if num_returns == STREAMING:
        return [object_id(task_id, 1), object_id(task_id, 0)]
    return [object_id(task_id, at + 1) for at in range(1 if num_returns == DYNAMIC else num_returns)]


def failed_results(task_id: bytes, num_returns: int, record: bytes) -> list[bytes]:
    """Return the results (id, record, id, record, ...) of a task that failed with this record."""
    return [each for key in result_keys(task_id, num_returns) for each in (key, record)]


def orphan_record(object_id: bytes) -> bytes:
    """Return the record of a result that will never come since its owner is gone."""
    return records.ERROR + _stored(OwnerDiedError, object_id)


def cancelled_error(task_id: bytes) -> bytes:
    """Return the stored error of a task that was cancelled. There may be thousands at once."""
    return _stored(TaskCancelledError, task_id)


_LONG_ENOUGH = 16  # bytes of an id that nothing else in a stored error can be mistaken for


def _stored(kind: Callable[[str], RabbitryError], id: bytes) -> bytes:
    """Return `store_error(kind(id.hex()))`: all but the id is stored once a process, as pickling takes 50 us."""
    if len(id) < _LONG_ENOUGH:
        return store_error(kind(id.hex()))
    stored, stand_in = _stored_once(kind, len(id))
    return stored.replace(stand_in, id.hex().encode())


@functools.cache
def _stored_once(kind: Callable[[str], RabbitryError], size: int) -> tuple[bytes, bytes]:
    """Return such an error of an id of this size, and what stands for the id in it."""
    stand_in = os.urandom(size).hex()
    return store_error(kind(stand_in)), stand_in.encode()


def orphan_items(object_ids: Sequence[bytes]) -> list[bytes]:
    """Return results (id, record, id, record, ...) that say of each object that it will never come."""
    return [each for object_id in object_ids for each in (object_id, orphan_record(object_id))]


def store_full(error: ObjectStoreFull) -> RabbitryError:
    """Return the public error for a store that has no room."""
    if isinstance(error, OutOfDisk):
        return OutOfDiskError(str(error))
    return ObjectStoreFullError(str(error))


def killed_cause(actor_id: bytes, class_name: str = "") -> bytes:
    """The stored error of calls to a killed actor, and of what class it was, if that is known."""
    return death_record(class_name, actor_id, f"The actor is dead because it was killed by `{program.name()}.kill`.")


def owner_gone_cause(actor_id: bytes) -> bytes:
    """The stored error of calls to an actor whose creator is gone."""
    return death_record(
        "", actor_id, "The actor is dead because its owner has died: the driver or actor that created it."
    )


def handles_gone_cause(actor_id: bytes) -> bytes:
    """The stored error of calls to an actor that no handle is left of."""
    return death_record("", actor_id, "The actor is dead because all references to the actor were removed.")


def process_ended(detail: str, *, intended: bool) -> str:
    """Return why an actor is dead whose process ended, in the words that programs written for Ray look for.

    Args:
        detail: what is known of it, a sentence.
        intended: it ended by itself.
    """
    kind = "INTENDED_USER_EXIT" if intended else "SYSTEM_ERROR"
    died = "The actor is dead because its worker process has died."
    return f"{died} Worker exit type: {kind} Worker exit detail: {detail}"


def death_record(class_name: str, actor_id: bytes, reason: str, **facts: Any) -> bytes:
    """Return the stored ActorDiedError with these facts; see `ActorDeath`."""
    return store_error(ActorDiedError(ActorDeath(class_name, actor_id.hex(), reason, **facts)))
