"""Every exception that rabbitry raises, under rabbitry's names and under Ray's.

Ray's names are aliases of the very same classes, so `except rabbitry.exceptions.RayTaskError` and `except TaskError`
are one clause. How the failure of a task travels is in `rabbitry.task_error`.
"""

from __future__ import annotations

import enum
import traceback
from dataclasses import dataclass
from typing import Final

from rabbitry import program
from rabbitry.task_error import (
    RAYS_MODULE,
    RabbitryError,
    TaskError,
    UnserializableException,
    UserCodeException,
    capture_task_error,
    forget_names,
    load_task_error,
    store_error,
    store_input_failure,
)

# -- tasks -----------------------------------------------------------------------------------------------------------


class TaskCancelledError(RabbitryError):
    """The task was cancelled before it finished.

    Attributes:
        task_id: the cancelled task, a TaskID or its hex form; None if not known.
        error_message: why, if anything is known.
    """

    def __init__(self, task_id: object = None, error_message: str | None = None) -> None:
        super().__init__(task_id, error_message)
        self.task_id = task_id
        self.error_message = error_message

    def __str__(self) -> str:
        which = f"Task: {self.task_id} was cancelled." if self.task_id else "The task was cancelled."
        return f"{which} {self.error_message}" if self.error_message else which


class _DescribedError(RabbitryError):
    """An error with a headline, if it has one, then `args`, if any, and a standing explanation."""

    _HEADLINE = ""
    _EXPLANATION = ""

    def __str__(self) -> str:
        return "\n".join(filter(None, (self._HEADLINE, super().__str__(), self._EXPLANATION)))


class WorkerCrashedError(_DescribedError):
    """The process that ran the task died, and no retry was left."""

    _HEADLINE = "The worker died unexpectedly while executing this task."
    _EXPLANATION = (
        "It was killed, had no memory left, crashed in native code, or the task called os._exit or sys.exit; "
        "no retry is left. `max_retries` sets how often such a task is run again."
    )


class LocalNodeDiedError(_DescribedError):
    """The agent of this process's node died (Ray's name: `LocalRayletDiedError`)."""

    _EXPLANATION = "The agent of this node died; its log, or `rabbitry status`, says why."


class _MessageError(RabbitryError):
    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class NodeDiedError(_MessageError):
    """The node that ran the task died or cannot be reached, and no retry was left."""


class OutOfMemoryError(_MessageError):
    """The task's process was ended because it took more memory than it may."""


class RuntimeEnvSetupError(RabbitryError):
    """The runtime environment of a task or actor could not be set up."""

    def __init__(self, error_message: str | None = None) -> None:
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self) -> str:
        head = "Failed to set up runtime environment."
        return f"{head}\n{self.error_message}" if self.error_message else head


class _ReasonError(RabbitryError):
    def __init__(self, error_message: str = "") -> None:
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self) -> str:
        return self.error_message


class TaskUnschedulableError(_ReasonError):
    """No node can ever take the task, e.g. the one it is bound to is gone."""

    def __str__(self) -> str:
        return f"The task is not schedulable: {self.error_message}"


class TaskPlacementGroupRemoved(_DescribedError):
    """The placement group that the task was to run in was removed."""

    _EXPLANATION = "The placement group corresponding to this task has been removed."


# -- actors ----------------------------------------------------------------------------------------------------------


class ActorError(RabbitryError):
    """A call on an actor could not be served (Ray's name: `RayActorError`).

    Attributes:
        actor_id: hex id of the actor, None if not known.
        error_msg: the whole text.
        actor_init_failed: True if its constructor raised.
        preempted: True if its node was taken away.
    """

    BASE_ERROR_MSG = "The actor experienced an error before finishing this task."

    def __init__(
        self,
        actor_id: str | None = None,
        error_msg: str = BASE_ERROR_MSG,
        actor_init_failed: bool = False,
        preempted: bool = False,
    ) -> None:
        super().__init__(actor_id, error_msg, actor_init_failed, preempted)
        self.actor_id = actor_id
        self.error_msg = error_msg
        self._actor_init_failed = actor_init_failed
        self._preempted = preempted

    def __str__(self) -> str:
        return self.error_msg

    @property
    def actor_init_failed(self) -> bool:
        """True if the actor's constructor raised."""
        return self._actor_init_failed

    @property
    def preempted(self) -> bool:
        """True if the actor's node was taken away."""
        return self._preempted


@dataclass(frozen=True)
class ActorDeath:
    """What is known of an actor that died, for `ActorDiedError`.

    Attributes:
        class_name: the actor's class.
        actor_id: hex id.
        reason: what happened, a sentence.
        pid: its process, 0 if it had none.
        name: its name, "" if it has none.
        namespace: the namespace of its name.
        ip: address of its host, "" if not known.
        node_id: hex id of its node, "" if not known.
        never_started: True if it ended before its constructor ran.
        preempted: True if its node was taken away.
    """

    class_name: str
    actor_id: str
    reason: str = ""
    pid: int = 0
    name: str = ""
    namespace: str = ""
    ip: str = ""
    node_id: str = ""
    never_started: bool = False
    preempted: bool = False


class ActorDiedError(ActorError):
    """The actor is dead for good: its process died with no restart left, it was killed, or its constructor raised.

    Args:
        cause: the constructor's failure, or what is known of the death; None if nothing is.
    """

    BASE_ERROR_MSG = "The actor died unexpectedly before finishing this task."

    def __init__(self, cause: TaskError | ActorDeath | None = None) -> None:
        if isinstance(cause, TaskError):
            text = f"The actor died because of an error raised in its creation task, {cause}"
            super().__init__(cause.actor_id, text, actor_init_failed=True)
        elif cause is None:
            super().__init__(None, self.BASE_ERROR_MSG)
        else:
            super().__init__(cause.actor_id, _describe_death(cause), preempted=cause.preempted)

    @staticmethod
    def from_task_error(task_error: TaskError) -> ActorDiedError:
        """Return the error of an actor whose constructor raised `task_error`."""
        return ActorDiedError(task_error)


def _describe_death(death: ActorDeath) -> str:
    facts = {
        "class_name": death.class_name,
        "actor_id": death.actor_id,
        "pid": death.pid,
        "name": death.name,
        "namespace": death.namespace,
        "ip": death.ip,
        "node": death.node_id,
    }
    lines = [ActorDiedError.BASE_ERROR_MSG, *(f"\t{name}: {value}" for name, value in facts.items() if value)]
    if death.reason:
        lines.append(death.reason)
    if death.never_started:
        lines.append("It ended before it started to run.")
    return "\n".join(lines)


class ActorUnavailableError(ActorError):
    """The actor cannot be reached now and may come back; the call may or may not have run.

    Args:
        error_message: what happened.
        actor_id: bytes of its id, None if not known.
    """

    def __init__(self, error_message: str, actor_id: bytes | None = None) -> None:
        hex_id = None if actor_id is None else actor_id.hex()
        which = f"The actor {hex_id}" if hex_id else "The actor"
        text = f"{which} is unavailable: {error_message}. The task may or may not have been executed on the actor."
        super().__init__(hex_id, text)


class ActorUnschedulableError(_ReasonError):
    """No node can ever take the actor, e.g. the one it is bound to is gone."""

    def __str__(self) -> str:
        return f"The actor is not schedulable: {self.error_message}"


class ActorPlacementGroupRemoved(_DescribedError):
    """The placement group that the actor lived in was removed."""

    _EXPLANATION = "The placement group corresponding to this Actor has been removed."


class ActorAlreadyExistsError(_ReasonError, ValueError):
    """A live actor has this name already: choose another, or use `get_actor` or `get_if_exists=True`."""


class ActorHandleNotFoundError(_ReasonError, ValueError):
    """The handle is of an actor that this session does not know, e.g. from before a `shutdown`."""


class AsyncioActorExit(RabbitryError):
    """Raised inside an asyncio actor by `exit_actor()`, to leave the running call."""


class PendingCallsLimitExceeded(RabbitryError):
    """The handle has `max_pending_calls` calls waiting already: wait for results before calling again."""


# -- objects ---------------------------------------------------------------------------------------------------------


class GetTimeoutError(RabbitryError, TimeoutError):
    """The objects were not ready within the timeout."""


class PlasmaObjectNotAvailable(RabbitryError):
    """The object was not at hand within the time allowed."""


class ObjectStoreFullError(_DescribedError):
    """A value could not be stored: the store is at its limit and all it holds is still referred to."""

    _EXPLANATION = (
        "The object store is full of objects that are still in scope. Drop refs that are not needed any more, "
        "return smaller values, or raise the store's limit."
    )


class OutOfDiskError(_DescribedError):
    """A value could not be stored: neither memory nor disk has room."""

    _EXPLANATION = "The object store is full and so is the disk that it spills to. `df` shows which disk that is."


class ObjectLostError(RabbitryError):
    """The object is gone though a reference to it is left.

    Attributes:
        object_ref_hex: hex id of the object.
        owner_address: where its owner was, None if not known.
        call_site: where the ref was made, "" if not recorded.
    """

    _EXPLANATION = "All copies of it have been lost, with the store or the nodes that held them."

    def __init__(self, object_ref_hex: str, owner_address: object = None, call_site: str = "") -> None:
        super().__init__(object_ref_hex, owner_address, call_site)
        self.object_ref_hex = object_ref_hex
        self.owner_address = owner_address
        self.call_site = call_site

    def __str__(self) -> str:
        made = f" The ObjectRef was created at: {self.call_site}" if self.call_site else ""
        return f"Failed to retrieve object {self.object_ref_hex}.{made}\n\n{self._explanation()}"

    def _explanation(self) -> str:
        return self._EXPLANATION


class ObjectFetchTimedOutError(ObjectLostError):
    """The object exists, but nobody delivered it in time."""

    _EXPLANATION = "No place that holds it answered in time. If the servers are up, this is an error in rabbitry."


class ObjectFreedError(ObjectLostError):
    """The object was freed by `free` while a reference to it was left."""

    _EXPLANATION = "The object was manually freed; call `free` only for objects that nobody will read again."


class OwnerDiedError(ObjectLostError):
    """The process that made the object ended before the object was in the store."""

    _EXPLANATION = (
        "The object's owner has exited: the process that called `.remote()` or `put()`. Use lifetime='detached' "
        "for work that must outlive its driver."
    )


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """The object was deleted while a reference to it was left: an error in rabbitry."""

    _EXPLANATION = "It was deleted while it was still referred to. This is an error in rabbitry; please report it."


class ReconstructionFailure(enum.IntEnum):
    """Why a lost object cannot be made again; names and values as in Ray's `ErrorType`."""

    OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED = 12
    OBJECT_UNRECONSTRUCTABLE_LINEAGE_EVICTED = 13
    OBJECT_UNRECONSTRUCTABLE_PUT = 27
    OBJECT_UNRECONSTRUCTABLE_RETRIES_DISABLED = 28
    OBJECT_UNRECONSTRUCTABLE_BORROWED = 29
    OBJECT_UNRECONSTRUCTABLE_REF_NOT_FOUND = 30
    OBJECT_UNRECONSTRUCTABLE_TASK_CANCELLED = 31
    OBJECT_UNRECONSTRUCTABLE_LINEAGE_DISABLED = 32


class ObjectReconstructionFailedError(ObjectLostError):
    """The object was lost and running its task again is not possible.

    Attributes:
        reason: a ReconstructionFailure, None if not known.
        reason_message: the same in words.
    """

    REASON_MESSAGES: Final = {
        ReconstructionFailure.OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED: (
            "Its task has used up its retries. Raise `max_retries` (-1 for no limit)."
        ),
        ReconstructionFailure.OBJECT_UNRECONSTRUCTABLE_LINEAGE_EVICTED: (
            "The record of how it was made is not kept any more."
        ),
        ReconstructionFailure.OBJECT_UNRECONSTRUCTABLE_PUT: (
            "It was made by `put()`, so no task can make it again. Return the value from a task instead."
        ),
        ReconstructionFailure.OBJECT_UNRECONSTRUCTABLE_RETRIES_DISABLED: (
            "Its task has max_retries=0, so it is not run again."
        ),
        ReconstructionFailure.OBJECT_UNRECONSTRUCTABLE_BORROWED: (
            "It belongs to another process, and only that one can have it made again."
        ),
        ReconstructionFailure.OBJECT_UNRECONSTRUCTABLE_REF_NOT_FOUND: (
            "Its owner does not know it. This is an error in rabbitry; please report it."
        ),
        ReconstructionFailure.OBJECT_UNRECONSTRUCTABLE_TASK_CANCELLED: "Its task was cancelled.",
        ReconstructionFailure.OBJECT_UNRECONSTRUCTABLE_LINEAGE_DISABLED: (
            "Making lost objects again is switched off in this cluster."
        ),
    }

    def __init__(
        self,
        object_ref_hex: str,
        reason: int | None = None,
        reason_message: str | None = None,
        owner_address: object = None,
        call_site: str = "",
    ) -> None:
        super().__init__(object_ref_hex, owner_address, call_site)
        self.reason = None if reason is None else ReconstructionFailure(reason)
        known = "" if self.reason is None else self.REASON_MESSAGES[self.reason]
        self.reason_message = reason_message or known or "The reason is not known."

    def _explanation(self) -> str:
        name = "UNKNOWN" if self.reason is None else self.reason.name
        return f"It cannot be made again: [{name}] {self.reason_message}"


class ObjectRefStreamEndOfStreamError(RabbitryError):
    """The stream of a generator task has no further item."""


class OutOfBandObjectRefSerializationException(RabbitryError):
    """An ObjectRef was pickled outside of rabbitry's own paths, where nobody keeps its object alive."""


# -- the system ------------------------------------------------------------------------------------------------------


class RabbitrySystemError(RabbitryError):
    """Something in rabbitry itself failed, or it is used before `init()` (Ray's name: `RaySystemError`)."""

    def __init__(self, client_exc: object, traceback_str: str | None = None) -> None:
        super().__init__(client_exc, traceback_str)
        self.client_exc = client_exc
        self.traceback_str = traceback_str

    def __str__(self) -> str:
        text = f"System error: {self.client_exc}"
        return f"{text}\ntraceback: {self.traceback_str}" if self.traceback_str else text


def unreadable(error: BaseException) -> RabbitrySystemError:
    """Return the public error for a value whose pickle raised an error, the cause of `error`, when it was read."""
    cause = error.__cause__
    return RabbitrySystemError(str(error), None if cause is None else "".join(traceback.format_exception(cause)))


class AuthenticationError(_MessageError):
    """The cluster does not accept this process's secret or password."""

    def __str__(self) -> str:
        return (
            f"{self.message} Check that RABBITRY_SECRET, and the user and password in RABBITRY_BROKER_URL and "
            "RABBITRY_STORE_URL, are the same here as on the nodes."
        )


class RpcError(RabbitryError):
    """A request to another part of the cluster failed.

    Attributes:
        message: what happened.
        rpc_code: the code of the answer, None if there was none.
    """

    def __init__(self, message: str, rpc_code: int | None = None) -> None:
        super().__init__(message, rpc_code)
        self.message = message
        self.rpc_code = rpc_code

    def __str__(self) -> str:
        return self.message


class CrossLanguageError(RabbitryError):
    """An exception from a task in another language. Kept for programs that catch it; rabbitry runs Python only."""


class ChannelError(RabbitrySystemError):
    """A channel of a compiled graph failed (Ray's name: `RayChannelError`)."""


class ChannelTimeoutError(ChannelError, TimeoutError):
    """A channel of a compiled graph timed out (Ray's name: `RayChannelTimeoutError`)."""


class CompiledGraphCapacityExceeded(RabbitrySystemError):
    """A compiled graph has as many results waiting as it can hold (Ray's name: `RayCgraphCapacityExceeded`)."""


class DirectTransportError(RabbitrySystemError):
    """A direct transfer between actors failed (Ray's name: `RayDirectTransportError`)."""


class StreamingGeneratorReplayInconsistentError(RabbitrySystemError):
    """A generator task was run again and yielded another number of items than the first time."""


# -- Ray's names -----------------------------------------------------------------------------------------------------

RayError = RabbitryError
RayTaskError = TaskError
RayActorError = ActorError
RaySystemError = RabbitrySystemError
LocalRayletDiedError = LocalNodeDiedError
RayChannelError = ChannelError
RayChannelTimeoutError = ChannelTimeoutError
RayCgraphCapacityExceeded = CompiledGraphCapacityExceeded
RayDirectTransportError = DirectTransportError
# Ray spells it so.
OufOfBandObjectRefSerializationException = OutOfBandObjectRefSerializationException

RABBITRY_EXCEPTION_TYPES: Final[list[type[RabbitryError]]] = [
    RabbitryError,
    TaskError,
    TaskCancelledError,
    WorkerCrashedError,
    LocalNodeDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RuntimeEnvSetupError,
    TaskUnschedulableError,
    TaskPlacementGroupRemoved,
    UserCodeException,
    UnserializableException,
    ActorError,
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    ActorPlacementGroupRemoved,
    ActorAlreadyExistsError,
    ActorHandleNotFoundError,
    AsyncioActorExit,
    PendingCallsLimitExceeded,
    GetTimeoutError,
    PlasmaObjectNotAvailable,
    ObjectStoreFullError,
    OutOfDiskError,
    ObjectLostError,
    ObjectFetchTimedOutError,
    ObjectFreedError,
    OwnerDiedError,
    ReferenceCountingAssertionError,
    ObjectReconstructionFailedError,
    ObjectRefStreamEndOfStreamError,
    OutOfBandObjectRefSerializationException,
    RabbitrySystemError,
    AuthenticationError,
    RpcError,
    CrossLanguageError,
    ChannelError,
    ChannelTimeoutError,
    CompiledGraphCapacityExceeded,
    DirectTransportError,
    StreamingGeneratorReplayInconsistentError,
]
"""All of them, each once."""

RAY_EXCEPTION_TYPES: Final[list[type[RabbitryError]]] = RABBITRY_EXCEPTION_TYPES
"""The same list under Ray's name (Ray's own has 30 of its 42 classes)."""

_BY_RAYS_NAME: Final = {
    name: cls
    for name, cls in vars().items()
    if isinstance(cls, type) and issubclass(cls, RabbitryError) and name != cls.__name__ and name[0] != "_"
}


def use_rays_names() -> None:
    """Let errors read as Ray's do, for the rest of this process: it runs a program that says `ray`.

    Tracebacks, `type(error).__name__` and texts then have Ray's names; both names stay in this module. Errors that are
    pickled name neither, so that any process reads them.
    """
    program.say_ray()
    for cls in RABBITRY_EXCEPTION_TYPES:
        cls.__module__ = RAYS_MODULE
    for name, cls in _BY_RAYS_NAME.items():
        cls.__name__ = cls.__qualname__ = name
    forget_names()


__all__ = [
    "RABBITRY_EXCEPTION_TYPES",
    "RAY_EXCEPTION_TYPES",
    "ActorAlreadyExistsError",
    "ActorDeath",
    "ActorDiedError",
    "ActorError",
    "ActorHandleNotFoundError",
    "ActorPlacementGroupRemoved",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "AsyncioActorExit",
    "AuthenticationError",
    "ChannelError",
    "ChannelTimeoutError",
    "CompiledGraphCapacityExceeded",
    "CrossLanguageError",
    "DirectTransportError",
    "GetTimeoutError",
    "LocalNodeDiedError",
    "LocalRayletDiedError",
    "NodeDiedError",
    "ObjectFetchTimedOutError",
    "ObjectFreedError",
    "ObjectLostError",
    "ObjectReconstructionFailedError",
    "ObjectRefStreamEndOfStreamError",
    "ObjectStoreFullError",
    "OufOfBandObjectRefSerializationException",
    "OutOfBandObjectRefSerializationException",
    "OutOfDiskError",
    "OutOfMemoryError",
    "OwnerDiedError",
    "PendingCallsLimitExceeded",
    "PlasmaObjectNotAvailable",
    "RabbitryError",
    "RabbitrySystemError",
    "RayActorError",
    "RayCgraphCapacityExceeded",
    "RayChannelError",
    "RayChannelTimeoutError",
    "RayDirectTransportError",
    "RayError",
    "RaySystemError",
    "RayTaskError",
    "ReconstructionFailure",
    "ReferenceCountingAssertionError",
    "RpcError",
    "RuntimeEnvSetupError",
    "StreamingGeneratorReplayInconsistentError",
    "TaskCancelledError",
    "TaskError",
    "TaskPlacementGroupRemoved",
    "TaskUnschedulableError",
    "UnserializableException",
    "UserCodeException",
    "WorkerCrashedError",
    "capture_task_error",
    "load_task_error",
    "store_error",
    "store_input_failure",
]
