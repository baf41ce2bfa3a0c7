"""`get`, `wait`, `put`, `cancel`, `free`: the calls on refs, with Ray's checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

from rabbitry import current, program
from rabbitry.arguments import flag, seconds, shown, whole, wrong_type
from rabbitry.client import Client
from rabbitry.exceptions import GetTimeoutError
from rabbitry.generators import ObjectRefGenerator
from rabbitry.hidden_frames import of_errors_of_tasks
from rabbitry.object_ref import Handles, ObjectRef
from rabbitry.option_checks import ONE_SIDED, tensor_transport
from rabbitry.outages import raise_public, with_public_errors
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import TASK_BYTES
from rabbitry_broker.messages import STREAMING

T = TypeVar("T")
W = TypeVar("W", bound=ObjectRef[Any] | ObjectRefGenerator[Any])

__tracebackhide__ = of_errors_of_tasks


@overload
def get(
    object_refs: ObjectRef[T], *, timeout: float | None = None, progress: bool = False, _use_object_store: bool = False
) -> T: ...
@overload
def get(
    object_refs: list[ObjectRef[T]],
    *,
    timeout: float | None = None,
    progress: bool = False,
    _use_object_store: bool = False,
) -> list[T]: ...
@overload
def get(
    object_refs: list[Any], *, timeout: float | None = None, progress: bool = False, _use_object_store: bool = False
) -> list[Any]: ...
@overload
def get(
    object_refs: ObjectRefGenerator[T],
    *,
    timeout: float | None = None,
    progress: bool = False,
    _use_object_store: bool = False,
) -> ObjectRefGenerator[T]: ...
def get(
    object_refs: Any, *, timeout: float | None = None, progress: bool = False, _use_object_store: bool = False
) -> Any:
    """Return the value of a ref, or the values of a list of refs in the same order; blocks until they are there.

    Args:
        object_refs: an ObjectRef or a list of them.
        timeout: seconds to wait at most; None for ever, 0 to look only.
        progress: show a progress bar meanwhile.
        _use_object_store: as in Ray, of results with a `tensor_transport`; here all come from there.

    Raises:
        GetTimeoutError: not all ready within `timeout`.
        ValueError: `refs` is neither a ref nor a list, a ref is of an earlier session, or `timeout` is negative or NaN.
        RabbitrySystemError: the session was shut down meanwhile, or a server stays away.
        TypeError: an element of the list is not a ref, or `timeout` is no number.
        Exception: what the task raised (an instance of TaskError too).
    """
    refs = object_refs
    client = current._client
    if client is None:
        client = current.client()
    if type(refs) is ObjectRef:
        if timeout is not None:
            timeout = _get_timeout(timeout)
        if progress:
            _show(refs)
        try:
            return client.get_one(refs, timeout)
        except GetTimeoutError as error:
            _explain(client, error, [refs], timeout)
            raise
        except RabbitryBrokerError as error:
            raise_public(error)
    if isinstance(refs, ObjectRefGenerator):
        return refs
    if isinstance(refs, ObjectRef):  # a subclass of the user's
        return with_public_errors(client.get_one)(refs, _get_timeout(timeout))
    if (compiled := _of_compiled_graphs(refs, timeout)) is not None:
        return compiled[0]
    if not isinstance(refs, list):
        raise ValueError(
            f"Invalid type of object refs, {type(refs)}, is given. 'object_refs' must either be an ObjectRef "
            "or a list of ObjectRefs." + _instead(refs)
        )
    for ref in refs:
        if not isinstance(ref, ObjectRef):
            raise TypeError(
                f"Attempting to call `get` on the value {shown(ref)}, which is not an {program.name()}.ObjectRef."
                + _instead(ref)
            )
    if timeout is not None:
        timeout = _get_timeout(timeout)
    if progress:
        _show(refs)
    try:
        return client.get_many(refs, timeout)
    except GetTimeoutError as error:
        _explain(client, error, refs, timeout)
        raise
    except RabbitryBrokerError as error:
        raise_public(error)


def _of_compiled_graphs(refs: Any, timeout: float | None) -> tuple[Any] | None:
    """Return, in a tuple, what a compiled graph's ref or list of refs came to; None if `refs` is neither.

    Raises:
        ValueError: the list holds others as well.
    """
    first = refs[0] if isinstance(refs, list) and refs else refs
    if type(first).__name__ != "CompiledDAGRef":  # most have no compiled graphs, and need not import them
        return None
    from rabbitry.experimental.compiled_dag_ref import CompiledDAGRef

    if isinstance(refs, CompiledDAGRef):
        return (refs.get(timeout),)
    if not isinstance(refs, list):
        return None
    if not all(isinstance(ref, CompiledDAGRef) for ref in refs):
        raise ValueError(
            "Invalid type of object refs. A list with a CompiledDAGRef has to be of CompiledDAGRefs alone: "
            "get the others by a call of their own."
        )
    return ([ref.get(timeout) for ref in refs],)


def _explain(client: Client, error: GetTimeoutError, refs: list[ObjectRef[Any]], timeout: float | None) -> None:
    """Add to the error what the refs wait for."""
    from rabbitry import timeouts

    missing = [ref._id for ref in refs if not client.is_resolved(ref)]
    ours = type(error) is GetTimeoutError  # a task may have raised one: that is a TaskError too
    if ours and timeout is not None and timeout >= timeouts.LEAST_SECONDS and missing:
        error.args = (f"{error}{timeouts.reasons(client, missing)}", *error.args[1:])


def _instead(value: Any) -> str:
    """Return what to do with something that is no ref, "" if there is nothing to say."""
    kind = type(value).__name__
    if isinstance(value, tuple):
        return " Make it a list."
    if isinstance(value, list):
        return " Refs in a list of lists are to be put into one list."
    if isinstance(value, (set, frozenset, dict, Iterator)):
        return " Make a list of the refs first."
    if kind in ("RemoteFunction", "ActorMethod", "RemoteCall"):
        return " It was not called: `.remote(...)` returns a ref."
    if kind == "ActorHandle":
        return " A handle has no value: `handle.method.remote(...)` returns a ref."
    return ""


def _get_timeout(timeout: Any) -> float | None:
    # -1 is for ever, as in Ray.
    return None if timeout == -1 and isinstance(timeout, (int, float)) else seconds("timeout", timeout)


def _show(refs: Any) -> None:
    from rabbitry.util.progress_bar import progress

    for _ in progress(refs if isinstance(refs, list) else [refs]):
        pass


@with_public_errors
def wait(
    ray_waitables: list[W], *, num_returns: int = 1, timeout: float | None = None, fetch_local: bool = True
) -> tuple[list[W], list[W]]:
    """Wait until `num_returns` of the refs are ready; return (ready, not ready), both in the order given.

    Args:
        ray_waitables: a list of different ObjectRefs or ObjectRefGenerators (ready when the next item is).
        num_returns: how many to wait for; at most so many are returned as ready.
        timeout: seconds to wait at most; None for ever, 0 to look only.
        fetch_local: large values that another host made are brought to this one before they are returned as ready
            (not with a timeout of 0); small values always are here when they are ready.

    Raises:
        TypeError: not a list of refs, or `num_returns` or `timeout` is no number.
        ValueError: duplicates, a ref of an earlier session, or `num_returns` or `timeout` out of range.
        RabbitrySystemError: the session was shut down meanwhile, or a server stays away.
    """
    refs: Any = ray_waitables
    client = current.client()
    if isinstance(refs, (ObjectRef, ObjectRefGenerator)):
        raise TypeError(f"{_wait_expects()}, got a single one: {shown(refs)}")
    if not isinstance(refs, list):
        raise TypeError(f"{_wait_expects()}, got {type(refs)}")
    timeout = seconds("timeout", timeout)
    if not client.remainder.knows(refs):
        _check_waitables(refs, client.references)
    if not refs:
        return [], []
    num_returns = whole("num_returns", num_returns, least=1, expected="an int of 1 or more")
    if num_returns > len(refs):
        raise ValueError(
            f"num_returns cannot be greater than the number of refs, but is {num_returns} for {len(refs)} refs."
        )
    ready, rest = client.wait(refs, num_returns, timeout)
    if flag("fetch_local", fetch_local) and timeout != 0:
        client.bring_here(ready)
    return ready, rest


def _wait_expects() -> str:
    ray = program.name()
    return f"wait() expected a list of {ray}.ObjectRef or {ray}.ObjectRefGenerator"


def _check_waitables(refs: list[Any], references: Handles) -> None:
    """Check the list that `wait` was given.

    Raises:
        TypeError: an element is no ref.
        ValueError: one is of an earlier session, or is there twice.
    """
    ids = set()
    for ref in refs:
        if type(ref) is ObjectRef:
            ids.add(ref._id)
            if ref._references is not references and ref._references is not None:
                raise ValueError(ref._unknown_here())
        elif isinstance(ref, ObjectRefGenerator):
            ids.add(ref._task_id)
        else:
            raise TypeError(f"{_wait_expects()}, got list containing {type(ref)}")
    if len(ids) != len(refs):
        raise ValueError("Wait requires a list of unique object refs.")


@with_public_errors
def put(value: T, *, _owner: Any = None, _tensor_transport: str | None = None) -> ObjectRef[T]:
    """Store a value and return its ref.

    Raises:
        ValueError: `_owner`, which is gone from Ray, or a `_tensor_transport` that is none, or not for `put`.
        TypeError: `value` is an ObjectRef, or cannot be pickled (the message names the path to the culprit).
        ObjectStoreFullError: there is no room for it.
    """
    if _owner is not None:
        raise ValueError("put() takes the value alone: _owner is gone from Ray.")
    transport = tensor_transport("_tensor_transport", _tensor_transport)
    if transport is not None and transport not in ONE_SIDED:
        raise ValueError(
            f"put() is not for the tensor transport {transport}, where sender and receiver take part: return the "
            f"value from a method with @method(tensor_transport={transport.lower()!r}), or leave it out."
        )
    return current.client().put(value)


@with_public_errors
def cancel(
    ray_waitable: ObjectRef[Any] | ObjectRefGenerator[Any], *, force: bool = False, recursive: bool = True
) -> None:
    """Cancel a task: one that waits is dropped, one that runs gets a KeyboardInterrupt, one that ended is left alone.

    `get` on its ref raises TaskCancelledError (with `force`, WorkerCrashedError). A cancelled task is not retried.
    Of an actor's calls, one that waits is dropped, the coroutine of an asyncio actor is cancelled, and other methods
    find `get_runtime_context().is_canceled()` true.

    Args:
        ray_waitable: the ref (or generator) that `remote()` returned.
        force: kill the process that runs it.
        recursive: cancel also what it submitted.

    Raises:
        TypeError: `ref` is no ref, or one of an earlier session (as in Ray).
        ValueError: `force`, for a call of an actor: its process is not that call's alone.
    """
    ref: Any = ray_waitable
    client = current.client()
    force, recursive = flag("force", force), flag("recursive", recursive)
    if isinstance(ref, ObjectRefGenerator):
        _refuse_force(client, ref._task_id, force)
        client.cancel(ref._task_id, force=force, recursive=recursive, results=STREAMING)
        return
    if not isinstance(ref, ObjectRef):
        raise TypeError(
            f"{program.name()}.cancel() only supported for object refs (kill() ends actors), got {type(ref)}"
        )
    if ref._id in client.inbox.values:
        return
    if ref._references is not client.references and ref._references is not None:
        raise TypeError(ref._unknown_here())
    _refuse_force(client, ref._id[:TASK_BYTES], force)
    number = int.from_bytes(ref._id[TASK_BYTES:], "little")
    # The owner knows how many results there are; a borrower knows of this one.
    client.cancel(ref._id[:TASK_BYTES], force=force, recursive=recursive, results=number or STREAMING)


def _refuse_force(client: Client, task_id: bytes, force: bool) -> None:
    if force and task_id in client.actors.tracked:
        raise ValueError(
            "force=True is not supported for actor tasks: the process holds the actor. Use cancel() without it to "
            "cancel the call, or kill() to end the actor."
        )


@with_public_errors
def free(refs: ObjectRef[Any] | Sequence[ObjectRef[Any]]) -> None:
    """Delete objects from the store at once, whoever still holds a ref.

    Args:
        refs: an ObjectRef or a list of them.

    Raises:
        TypeError: it is neither.
    """
    client = current.client()
    if isinstance(refs, ObjectRef):
        refs = [refs]
    elif not isinstance(refs, (list, tuple)) or not all(isinstance(ref, ObjectRef) for ref in refs):
        raise wrong_type("refs", refs, "an ObjectRef or a list of ObjectRefs")
    client.free(refs)
