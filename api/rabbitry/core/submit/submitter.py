"""`f.remote()`: from a plan and arguments to handles, and to the outbox. HOT PATH (`async_*`, `sync`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rabbitry.core.failures import store_full
from rabbitry.core.flight import Flight
from rabbitry.core.lives.references import DELETE_AT, References
from rabbitry.core.resolve.streams import Stream, Streams, stream_pin
from rabbitry.core.submit.arguments import NO_RECORDS, Arguments
from rabbitry.core.submit.outbox import Outbox
from rabbitry.core.submit.plan import Plan
from rabbitry.object_ref import made_here
from rabbitry_broker.ids import FIRST_INDEX, TaskIds, object_id
from rabbitry_broker.messages import DYNAMIC, STREAMING
from rabbitry_broker.shared_memory import ObjectStoreFull


class Submitter:
    """Submits tasks for one client, and undoes what it did if one is not accepted. Any thread may use it.

    Args:
        ids: of tasks.
        detached_ids: of tasks that outlive the client.
        flight: knows what was submitted.
        references: counts handles.
        arguments: packs them.
        outbox: sends tasks.
        streams: those of streaming tasks.
        generator: makes what a streaming task returns: (task id, stream).
        collect: lets go of what was dropped.
        current_task: returns the task that runs on this executor's main thread; None in drivers.
    """

    def __init__(
        self,
        ids: TaskIds,
        detached_ids: TaskIds,
        flight: Flight,
        references: References,
        *,
        arguments: Arguments,
        outbox: Outbox,
        streams: Streams,
        generator: Callable[[bytes, Stream], Any],
        collect: Callable[[], None],
        current_task: Callable[[], bytes | None] | None = None,
    ) -> None:
        self._next_id = ids.next
        self._next_detached_id = detached_ids.next
        self._flight = flight
        self._references = references
        self._pack = arguments.pack
        self._add = outbox.add
        self._add_call = outbox.add_call
        self._add_parked = outbox.add_parked
        self._streams = streams
        self._generator = generator
        self._collect = collect
        self._current_task = current_task

    def submit(self, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any], task_id: bytes | None = None) -> Any:
        """Send one task of `plan`; return what `f.remote()` returns. HOT PATH.

        Raises:
            TypeError: an argument cannot be pickled; the message names the path to it.
            ObjectStoreFullError: no room for the arguments.
        """
        header = plan.header
        if task_id is None:
            task_id = self._next_detached_id() if header.lifetime else self._next_id()
        if args or kwargs:
            pin_as = task_id if header.num_returns != STREAMING else stream_pin(task_id)
            payload, dependencies, inline = self._pack(task_id, args, kwargs, pin_as=pin_as)
        else:
            payload, dependencies, inline = b"", [], NO_RECORDS
        references = self._references
        if header.num_returns == 1:
            result: Any = made_here(task_id + FIRST_INDEX, references)
        else:
            result = self.handles(plan, task_id)
        task = (task_id, payload, 0, dependencies, inline, 0)
        try:
            if plan.line is not None:
                self._add_call(plan, task)
            elif dependencies and len(inline) < len(dependencies):
                self._add_parked(plan, task)
            else:
                self._add(plan, task)
        except Exception as error:
            self._undo(task_id)
            if isinstance(error, ObjectStoreFull):
                raise store_full(error) from error
            raise
        if self._current_task is not None:
            parent = self._current_task()
            if parent is not None:
                self._flight.submitted_by(parent, task_id)
        if len(references.dropped) > DELETE_AT:
            self._collect()
        return result

    def _undo(self, task_id: bytes) -> None:
        """A task was not accepted after all: nothing of it is kept."""
        self._references.unpin(task_id)
        self._references.unpin(stream_pin(task_id))
        self._flight.forget(task_id)
        self._streams.withdraw(task_id)

    def handles(self, plan: Plan, task_id: bytes) -> Any:
        """Return what `remote()` returns for a task, which the caller sends or fails."""
        references = self._references
        count = plan.header.num_returns
        if count in (1, DYNAMIC):
            return made_here(task_id + FIRST_INDEX, references)
        if count == STREAMING:
            stream = self._streams.open(task_id, counted=plan.header.backpressure > 0)
            return self._generator(task_id, stream)
        if count == 0:
            return None
        self._flight.returns[task_id] = count
        return [made_here(object_id(task_id, at + 1), references) for at in range(count)]
