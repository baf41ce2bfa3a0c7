"""`get`, `wait`, `put`, `cancel`, `free`: the calls on refs, with Ray's checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warren import current
from warren.generators import ObjectRefGenerator
from warren.object_ref import ObjectRef
from warren_broker.ids import TASK_BYTES


def get(refs: Any, *, timeout: float | None = None, progress: bool = False) -> Any:
    """Return the value of a ref, or the values of a list of refs in the same order; blocks until they are there.

    Args:
        refs: an ObjectRef or a list of them.
        timeout: seconds to wait at most; None for ever, 0 to look only.
        progress: show a progress bar meanwhile.

    Raises:
        GetTimeoutError: not all ready within `timeout`.
        ValueError: `refs` is neither a ref nor a list, or `timeout` is negative.
        TypeError: an element of the list is not a ref.
        Exception: what the task raised (an instance of TaskError too).
    """
    client = current._client
    if client is None:
        client = current.client()
    if type(refs) is ObjectRef:
        if progress:
            _show(refs)
        if timeout is not None:
            _check_timeout(timeout)
        return client.get_one(refs, timeout)
    if isinstance(refs, ObjectRefGenerator):
        return refs
    if isinstance(refs, ObjectRef):
        return client.get_one(refs, timeout)
    if not isinstance(refs, list):
        raise ValueError(
            f"Invalid type of object refs, {type(refs)}, is given. 'refs' must be an ObjectRef or a list of ObjectRefs."
        )
    for ref in refs:
        if not isinstance(ref, ObjectRef):
            raise TypeError(
                f"get() takes a list of ObjectRefs, but an element is {ref!r} of type {type(ref).__name__}."
            )
    if timeout is not None:
        _check_timeout(timeout)
    if progress:
        _show(refs)
    return client.get_many(refs, timeout)


def _check_timeout(timeout: float) -> None:
    if timeout < 0 and timeout != -1:
        raise ValueError(f"timeout must not be negative, got {timeout}; None waits for ever")


def _show(refs: Any) -> None:
    from warren.util.progress_bar import progress

    for _ in progress(refs if isinstance(refs, list) else [refs]):
        pass


def wait(
    refs: Sequence[Any], *, num_returns: int = 1, timeout: float | None = None, fetch_local: bool = True
) -> tuple[list[Any], list[Any]]:
    """Wait until `num_returns` of the refs are ready; return (ready, not ready), both in the order given.

    Args:
        refs: a list of different ObjectRefs or ObjectRefGenerators (ready when the next item is).
        num_returns: how many to wait for; at most so many are returned as ready.
        timeout: seconds to wait at most; None for ever, 0 to look only.
        fetch_local: large values that another host made are brought to this one before they are returned as ready
            (not with a timeout of 0); small values always are here when they are ready.

    Raises:
        TypeError: not a list of refs.
        ValueError: duplicates, or `num_returns` or `timeout` out of range.
    """
    client = current.client()
    if isinstance(refs, (ObjectRef, ObjectRefGenerator)):
        raise TypeError("wait() expected a list of ObjectRefs or ObjectRefGenerators, got a single one")
    if not isinstance(refs, list):
        raise TypeError(f"wait() expected a list of ObjectRefs or ObjectRefGenerators, got {type(refs)}")
    if timeout is not None and timeout < 0:
        raise ValueError(f"The 'timeout' argument must be nonnegative. Received {timeout}")
    ids = set()
    for ref in refs:
        if type(ref) is ObjectRef:
            ids.add(ref._id)
        elif isinstance(ref, ObjectRefGenerator):
            ids.add(ref._task_id)
        else:
            raise TypeError(f"wait() expected a list of ObjectRefs or ObjectRefGenerators, an element is {type(ref)}")
    if not refs:
        return [], []
    if len(ids) != len(refs):
        raise ValueError("Wait requires a list of unique object refs.")
    if num_returns <= 0:
        raise ValueError(f"Invalid number of objects to return {num_returns}: it must be at least 1.")
    if num_returns > len(refs):
        raise ValueError(f"num_returns is {num_returns}, but only {len(refs)} refs were given.")
    ready, rest = client.wait(refs, num_returns, timeout)
    if fetch_local and timeout != 0:
        client.bring_here(ready)
    return ready, rest


def put(value: Any) -> ObjectRef[Any]:
    """Store a value and return its ref.

    Raises:
        TypeError: `value` is an ObjectRef, or cannot be pickled (the message names the path to the culprit).
        ObjectStoreFullError: there is no room for it.
    """
    return current.client().put(value)


def cancel(ref: Any, *, force: bool = False, recursive: bool = True) -> None:
    """Cancel a task: one that waits is dropped, one that runs gets a KeyboardInterrupt, one that ended is left alone.

    `get` on its ref raises TaskCancelledError (with `force`, WorkerCrashedError). A cancelled task is not retried.

    Args:
        ref: the ref (or generator) that `remote()` returned.
        force: kill the process that runs it.
        recursive: cancel also what it submitted.

    Raises:
        TypeError: `ref` is no ref.
    """
    client = current.client()
    if isinstance(ref, ObjectRefGenerator):
        client.cancel(ref._task_id, force=force, recursive=recursive, results=-1)
        return
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"cancel() takes an ObjectRef or an ObjectRefGenerator, got {type(ref)}")
    if ref._id in client.inbox.values:
        return
    client.cancel(ref._id[:TASK_BYTES], force=force, recursive=recursive)


def free(refs: Any) -> None:
    """Delete objects from the store at once, whoever still holds a ref.

    Args:
        refs: an ObjectRef or a list of them.
    """
    client = current.client()
    client.free([refs] if isinstance(refs, ObjectRef) else list(refs))
