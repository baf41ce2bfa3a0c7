"""Running one task or call: its arguments, its results, its errors. No loop, no sockets of its own.

HOT PATH. Everything here may be called by several threads at once (threaded actors); what it makes goes into the
`Results` that the caller passes.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from rabbitry import environment, error_types
from rabbitry.client import Client
from rabbitry.core.failures import death_record, process_ended, store_full
from rabbitry.core.submit.arguments import UNCOUNTED_BYTES
from rabbitry.exceptions import (
    ObjectLostError,
    TaskCancelledError,
    WorkerCrashedError,
    capture_task_error,
    store_error,
    store_input_failure,
    unreadable,
)
from rabbitry.exit import ActorExit
from rabbitry.generators import DynamicObjectRefGenerator, StreamingGeneratorStats
from rabbitry.object_ref import ObjectRef, made_here
from rabbitry.util.node_address import get_node_ip_address
from rabbitry_broker import records, retry_policy
from rabbitry_broker.ids import FIRST_INDEX, object_id
from rabbitry_broker.messages import DYNAMIC, KIND_ACTOR_CALL, KIND_TASK, STREAMING, Task, TaskHeader
from rabbitry_broker.serialization import UnpickleError, pack, unpack
from rabbitry_broker.shared_memory import ObjectStoreFull
from rabbitry_workers.executor.commit import Committer, Results
from rabbitry_workers.executor.interrupts import Interrupts

BACKPRESSURE_POLL_SECONDS = 0.005


class DependencyFailed(Exception):
    """Internal: an argument's task failed; its record becomes the result."""

    def __init__(self, record: bytes) -> None:
        super().__init__()
        self.record = record


class Retry(Exception):
    """Internal: the call's error is to be retried with this task."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task


def result_ids(task_id: bytes, num_returns: int) -> list[bytes]:
    """Return the ids of the objects that a failed task must fill."""
    if num_returns > 0:
        return [object_id(task_id, at + 1) for at in range(num_returns)]
    if num_returns == DYNAMIC:
        return [task_id + FIRST_INDEX]
    if num_returns == STREAMING:
        return [task_id + FIRST_INDEX, object_id(task_id, 0)]
    return []


class ProcessFails(BaseException):
    """Internal: a call of an actor has left by `sys.exit` with an exit code: its process ends as by a crash."""


class ProcessCountsAsDead(Exception):
    """A task misses what its own process had submitted or stored: it has not failed, its process has."""


class TaskExited(ProcessCountsAsDead):
    """A task asked its process to end (`sys.exit`): an end like that of a crash, once what is finished is committed."""

    def __init__(self, code: object) -> None:
        super().__init__(code)
        self.code = code if isinstance(code, int) else int(code is not None)


class CallRunner:
    """Runs calls in the name of one client. Any thread may use it."""

    def __init__(
        self, client: Client, committer: Committer, node_id: bytes, interrupts: Interrupts, *, as_ray: bool
    ) -> None:
        self.client = client
        self.store = client.store
        self.committer = committer
        self.node_id = node_id
        self.interrupts = interrupts
        self.is_cancelled: Callable[[bytes], bool] = lambda task_id: False  # tasks are interrupted; actors set it
        self.on_exit: Callable[[SystemExit], None] = lambda error: None  # a call has left by that; actors set it
        self.spares_children_of: Callable[[bytes], bool] = lambda task_id: False  # executors of tasks set it
        self.actor_repr: Callable[[], str | None] = lambda: None  # what errors show of the actor; actors set it
        self.as_ray = as_ray
        self._forked = False

    def begin(self) -> None:
        """This is the process whose calls it runs."""
        os.register_at_fork(after_in_child=self._on_fork)

    def _on_fork(self) -> None:
        self._forked = True

    def end_child(self, error: BaseException | None = None) -> None:
        """A child that a call has forked ends where it would return from the call: only the parent answers."""
        code = 0
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        elif error is not None:
            traceback.print_exception(type(error), error, error.__traceback__)
            code = 1
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)

    def run(self, header: TaskHeader, function: Callable[..., Any], task: Task, out: Results) -> None:
        """Run one call; its results, or its error, are in `out` afterwards.

        Raises:
            Retry: it failed with an exception that is to be retried.
        """
        try:
            if task[1]:
                args, kwargs = self.arguments(task)
                value = function(*args, **kwargs)
                args = kwargs = None  # type: ignore[assignment]  # handles in them must be gone before the end counts
            else:
                value = function()
            self.store_value(header, task, value, out)
            value = None
        except BaseException as error:
            args = kwargs = None  # type: ignore[assignment]
            self.fail(header, task, error, out)

    def store_value(self, header: TaskHeader, task: Task, value: Any, out: Results) -> None:
        """Store what a call returned."""
        if self._forked:
            self.end_child()
        if header.num_returns == 1:
            if value is None:
                out.items += (task[0] + FIRST_INDEX, b"N")
            elif type(value) is GeneratorType or type(value) is AsyncGeneratorType:
                self._store_several(header, task, value, out)
            else:
                self.store_result(task[0] + FIRST_INDEX, value, out)
        else:
            self.store_results(header, task, value, out)

    def fail(self, header: TaskHeader, task: Task, error: BaseException, out: Results) -> None:
        """Store a call's failure.

        Raises:
            Retry: it is to be retried instead.
            ProcessFails: it was an actor's, and left by `sys.exit` with an exit code.
            ProcessCountsAsDead: this process is to end, as by a crash.
        """
        if self._forked:
            self.end_child(error)
        self.discard(out)
        if isinstance(error, SystemExit) and header.kind == KIND_TASK:
            raise TaskExited(error.code) from error
        if isinstance(error, SystemExit) and header.kind == KIND_ACTOR_CALL:
            self.on_exit(error)
        if self.client.counted_dead and header.kind == KIND_TASK and self._misses_own_object(error):
            raise ProcessCountsAsDead(header.name) from error
        if isinstance(error, DependencyFailed):
            told = store_input_failure(error.record[1:], header.name)
            record = records.ERROR + told
            self.note_failure(header, task, told)
        else:
            if isinstance(error, Exception) and environment.is_on(*environment.POST_MORTEM):
                from rabbitry import debugging

                debugging.post_mortem(error)
            attempts = self.attempts_after(header, task, error)
            if attempts is not None:
                if header.events and self.client.events.on:
                    self.committer.times.failed(task[0], task[2], *error_types.of(error))
                raise Retry((task[0], task[1], attempts, task[3], task[4], task[5])) from None
            if isinstance(error, KeyboardInterrupt) and not self.spares_children_of(task[0]):
                self.client.cancel_children(task[0], force=False)
            record = records.ERROR + self.error_of(header, task, error)
        self.client.failed()
        fill(header, task, record, out)

    def _misses_own_object(self, error: BaseException | None) -> bool:
        """True if the error, or one that it comes from, says that an object of this client is lost."""
        own, seen = self.client.id.hex(), set()
        while error is not None and id(error) not in seen:
            if isinstance(error, ObjectLostError) and error.object_ref_hex.startswith(own):
                return True
            seen.add(id(error))
            error = error.__cause__ or error.__context__
        return False

    def discard(self, out: Results) -> None:
        """Forget results of a call, half done."""
        with self.interrupts:
            del out.items[:]
            if out.prepared:
                prepared, out.prepared = out.prepared, []
                self.store.lives.settle(self.client.id, prepared, lost=[key for key, _ in prepared])

    # -- arguments ---------------------------------------------------------------------------------------------------

    def unpack_arguments(self, task: Task) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return (args, kwargs) with refs still in their places."""
        payload = task[1]
        if not payload:
            return (), {}
        if payload[:1] == b"P":
            try:
                args, kwargs = unpack(payload[1:])
            except UnpickleError as error:
                raise unreadable(error) from error
        else:
            (record,) = self.store.fetch([payload[1:]])
            if record is None:
                raise ObjectLostError(payload[1:].hex())
            args, kwargs = self.client.load(payload[1:], record, settle=False)
        return args, kwargs

    def arguments(self, task: Task) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return (args, kwargs) with the values of top-level refs."""
        args, kwargs = self.unpack_arguments(task)
        return self.resolve(task, args, kwargs) if task[3] else (args, kwargs)

    def resolve(
        self, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Put values in the places of top-level refs, all of which are ready.

        Raises:
            DependencyFailed: one of them is an error.
            ObjectLostError: one of them is gone.
        """
        inline, client = task[4], self.client
        missing = [key for key in task[3] if key not in inline]
        found = dict(zip(missing, self.store.fetch(missing), strict=True)) if missing else {}
        values: dict[bytes, bytes] = {}
        for key in task[3]:
            record = inline.get(key) or found.get(key)
            if record is None:
                raise ObjectLostError(key.hex())
            if record[0] == records.ERROR_TAG:
                raise DependencyFailed(record)
            values[key] = record

        def load(key: bytes) -> Any:
            # Until the task ends its submitter holds them, and with them what they refer to.
            return client.load(key, values[key], settle=False)

        args = tuple([load(value._id) if type(value) is ObjectRef else value for value in args])
        if kwargs:
            kwargs = {name: load(value._id) if type(value) is ObjectRef else value for name, value in kwargs.items()}
        return args, kwargs

    # -- results -----------------------------------------------------------------------------------------------------

    def store_result(self, key: bytes, value: Any, out: Results) -> None:
        """Store one value as the object `key`."""
        if self._forked:
            self.end_child()  # inside of a generator
        packed = pack(value)
        if not packed.buffers and not packed.refs and len(packed.data) <= records.INLINE_LIMIT_BYTES:
            record = b"P" + packed.data
            if len(record) > UNCOUNTED_BYTES:
                self.store.room.require(len(record))
        else:
            with self.interrupts:
                if packed.refs:
                    self.client.outbox.flush()
                    self.client.flush_puts()
                self.client.register()  # whoever finds us dead undoes what we prepared and did not commit
                record = self.store.lives.prepare(self.client.id, key, packed)
                out.prepared.append((key, record))
        out.items += (key, record)
        out.bytes += len(record)

    def store_results(self, header: TaskHeader, task: Task, value: Any, out: Results) -> None:
        """Store the results of a call that has none, several, or a stream of them."""
        count = header.num_returns
        if count == 0:
            out.ended.append(task[0])
            if value is not None:
                print(f"{header.name} has num_returns=0 but returned a value; it is dropped", file=sys.stderr)
        elif count > 1:
            self._store_several(header, task, value, out)
        elif count == DYNAMIC:
            self._store_dynamic(header, task, value, out)
        else:
            stream = Stream(self, header, task, out)
            try:
                for _ in stored(iterate(value), stream.put):
                    stream.wait_for_reader(time.sleep)
            except BaseException as error:
                stream.fail(error)
            stream.end()

    def _store_several(self, header: TaskHeader, task: Task, value: Any, out: Results) -> None:
        """Store one result for each item. What was stored before an item failed stands, as in Ray.

        A generator may be asked for one result, too: that is its first item.

        Raises:
            TypeError: not a collection.
            ValueError: a wrong number of items (of a generator: too few, what it yields beyond is not asked for).
        """
        count = header.num_returns
        if isinstance(value, GeneratorType):
            value = islice(value, count)
        elif isinstance(value, AsyncGeneratorType):
            raise TypeError(
                f"{header.name} has num_returns={count} but is an asynchronous generator, whose items can only be "
                "streamed: leave num_returns out."
            )
        else:
            try:
                length = len(value)
            except TypeError:
                raise TypeError(
                    f"{header.name} has num_returns={count}, so it must return {count} values; "
                    f"it returned one object of type {type(value).__name__}"
                ) from None
            if length != count:
                raise ValueError(f"Task returned {length} objects, but num_returns={count} for {header.name}.")
        made = 0
        try:
            for each in value:
                self.store_result(object_id(task[0], made + 1), each, out)
                made += 1
            if made < count:
                raise ValueError(f"Task returned {made} objects, but num_returns={count} for {header.name}.")
        except Exception as error:
            record = self._item_failed(header, task, error, out)
            for at in range(made, count):
                out.items += (object_id(task[0], at + 1), record)

    def _store_dynamic(self, header: TaskHeader, task: Task, value: Any, out: Results) -> None:
        """Store each item, and the value that lists them; if the producer fails, its error is the last item."""
        items = iterate(value)
        refs: list[ObjectRef[Any]] = []
        at = 2
        try:
            for each in items:
                key = object_id(task[0], at)
                self.store_result(key, each, out)
                refs.append(made_here(key, self.client.references))
                at += 1
        except Exception as error:
            key = object_id(task[0], at)
            out.items += (key, self._item_failed(header, task, error, out))
            refs.append(made_here(key, self.client.references))
        # In one commit with the value that holds them: the owner deletes results that nothing refers to.
        self.store_result(task[0] + FIRST_INDEX, DynamicObjectRefGenerator(refs), out)

    def _item_failed(self, header: TaskHeader, task: Task, error: Exception, out: Results) -> bytes:
        """Return the record of an error that takes the place of one result among several.

        Raises:
            Exception: the same error, if it is to be retried.
        """
        if self.attempts_after(header, task, error) is not None:
            raise error
        self.client.failed()
        record = records.ERROR + self.error_of(header, task, error)
        out.bytes += len(record)
        return record

    def gather(self, owner: bytes, out: Results) -> None:
        """Put the items of a call so far to what is committed next, without counting it as ended."""
        with self.interrupts, self.committer.lock:
            part = Results()
            part.items, out.items = out.items, []
            part.prepared, out.prepared = out.prepared, []
            part.function = out.function
            self.committer.of(owner).merge(part)
            self.committer.bytes += out.bytes
            out.bytes = 0

    def emit(self, owner: bytes, out: Results) -> None:
        """Commit in the middle of a call: its items so far, without counting it as ended."""
        with self.interrupts, self.committer.lock:
            self.gather(owner, out)
            self.committer.commit(last=False)

    # -- errors ------------------------------------------------------------------------------------------------------

    def attempts_after(self, header: TaskHeader, task: Task, error: BaseException) -> int | None:
        """Return the attempts to run a task again with that raised `error`; None if it fails, as cancelled ones do."""
        if self.is_cancelled(task[0]):
            return None
        return retry_policy.after_exception(header.max_retries, header.retry_exceptions, task[2], error)

    def error_of(self, header: TaskHeader, task: Task, error: BaseException) -> bytes:
        """Return the stored form of a call's failure, which is noted; as in Ray, a call that ends its actor is done."""
        stored = self._stored_error(header, task, error)
        if not isinstance(error, ActorExit):
            self.note_failure(header, task, stored)
        return stored

    def note_failure(self, header: TaskHeader, task: Task, stored: bytes) -> None:
        """A call has failed like that."""
        if header.events and self.client.events.on:
            self.committer.times.failed(task[0], task[2], *error_types.of_stored(stored))

    def _stored_error(self, header: TaskHeader, task: Task, error: BaseException) -> bytes:
        if isinstance(error, KeyboardInterrupt):
            error = TaskCancelledError(task[0].hex()).with_traceback(error.__traceback__)
        if isinstance(error, ActorExit) or (isinstance(error, SystemExit) and header.kind == KIND_ACTOR_CALL):
            reason = process_ended("It exited by itself (exit_actor, __ray_terminate__ or sys.exit).", intended=True)
            class_name = header.name.partition(".")[0]
            return death_record(class_name, header.actor, reason, pid=os.getpid(), node_id=self.node_id.hex())
        if isinstance(error, SystemExit):
            return store_error(WorkerCrashedError())
        if isinstance(error, ObjectStoreFull):
            return store_error(store_full(error))
        return capture_task_error(
            error,
            header.name,
            os.getpid(),
            self.node_id.hex(),
            ip=get_node_ip_address() if self.as_ray else "",
            actor_repr=self.actor_repr() if header.actor else None,
            actor_id=header.actor.hex() or None,
        )


class Stream:
    """The producer's side of a stream: items one by one, then the end. See `rabbitry.generators`.

    Args:
        runner: stores items.
        header: of the call.
        task: the call.
        out: where items gather until they are emitted.
        emit: takes what gathered for the owner and sees to it that it is committed; by default it is at once.
    """

    def __init__(
        self,
        runner: CallRunner,
        header: TaskHeader,
        task: Task,
        out: Results,
        emit: Callable[[bytes, Results], None] | None = None,
    ) -> None:
        self._runner = runner
        self._header = header
        self._task = task
        self._out = out
        self._emit = emit or runner.emit
        self.made = 0

    def put(self, value: Any) -> None:
        """Commit the next item, or have it committed soon.

        Raises:
            TaskCancelledError: nobody will read any more.
        """
        if self._runner.is_cancelled(self._task[0]):
            raise TaskCancelledError(self._task[0].hex())
        self._runner.store_result(object_id(self._task[0], self.made + 1), value, self._out)
        self.made += 1
        self._emit(self._header.owner, self._out)

    def reader_is_behind(self) -> bool:
        """True if the producer must pause (backpressure).

        Raises:
            TaskCancelledError: nobody will read any more.
        """
        limit = self._header.backpressure
        if not limit:
            return False
        store, task_id = self._runner.store, self._task[0]
        consumed = int(store.call(b"GET", store.keys.consumed(task_id)) or 0)
        if consumed < 0 or self._runner.is_cancelled(task_id):
            raise TaskCancelledError(task_id.hex())
        if self.made - consumed < limit:
            return False
        if not store.is_alive(self._header.owner):
            raise TaskCancelledError(task_id.hex())
        return True

    def wait_for_reader(self, sleep: Callable[[float], Any]) -> None:
        """Pause until the reader has caught up."""
        if self._header.backpressure:
            with self._runner.interrupts:
                self._runner.committer.commit(last=False)
            while self.reader_is_behind():
                sleep(BACKPRESSURE_POLL_SECONDS)

    def fail(self, error: BaseException) -> None:
        """The producer raised: its error is the last item.

        Raises:
            BaseException: the same error, if it is to be retried, or ends the process or an actor.
        """
        if isinstance(error, SystemExit) and self._header.kind == KIND_ACTOR_CALL:
            raise error
        self._runner.discard(self._out)  # an item that was interrupted half way; those before it are emitted
        ends_process = isinstance(error, SystemExit) and self._header.kind == KIND_TASK
        if ends_process or self._runner.attempts_after(self._header, self._task, error) is not None:
            raise error
        record = records.ERROR + self._runner.error_of(self._header, self._task, error)
        self._out.items += (object_id(self._task[0], self.made + 1), record)
        self.made += 1

    def end(self) -> None:
        """No more items."""
        # Reads as None, as in Ray; the generator finds in it how many items there are.
        self._out.items += (object_id(self._task[0], 0), records.counted(self.made))
        self._out.ended.append(self._task[0])


def fill(header: TaskHeader, task: Task, record: bytes, out: Results) -> None:
    """Put the same record for every result of the task."""
    for key in result_ids(task[0], header.num_returns):
        out.items += (key, record)
    if header.num_returns in (0, STREAMING):
        out.ended.append(task[0])
    out.bytes += len(record)


def iterate(value: Any) -> Iterator[Any]:
    """Iterate over a generator's items, asynchronous or not.

    Raises:
        ValueError: not iterable.
    """
    if hasattr(value, "__aiter__"):
        return _iterate_async(value)
    try:
        iterator: Iterable[Any] = iter(value)
    except TypeError:
        raise ValueError(
            f"a task with num_returns='streaming' or 'dynamic' must return an iterable, got {type(value).__name__}"
        ) from None
    return iter(iterator)


def stored(items: Iterator[Any], put: Callable[[Any], None]) -> Iterator[None]:
    """Put each item; yield after each. A generator is sent how long that took: `stats = yield item`."""
    generator = items if isinstance(items, GeneratorType) else None
    stats: StreamingGeneratorStats | None = None
    while True:
        try:
            item = next(items) if stats is None or generator is None or not _takes(generator) else generator.send(stats)
        except StopIteration:
            return
        begun = time.perf_counter()
        put(item)
        item = None  # not kept while the next one is made
        if generator is not None:
            stats = StreamingGeneratorStats(time.perf_counter() - begun)
        yield


def _takes(generator: GeneratorType[Any, Any, Any]) -> bool:
    """True if a generator may be sent something: not while it hands on what another iterator has, that takes nothing.

    Ray sends all the same, so that `yield from [1, 2]` is an AttributeError there.
    """
    inner = generator.gi_yieldfrom
    while isinstance(inner, GeneratorType):
        inner = inner.gi_yieldfrom
    return inner is None


async def stored_async(items: Any, put: Callable[[Any], None]) -> AsyncIterator[None]:
    """As `stored`, of an asynchronous iterable."""
    iterator = items.__aiter__()
    takes = isinstance(iterator, AsyncGeneratorType)
    stats: StreamingGeneratorStats | None = None
    while True:
        try:
            item = await (iterator.__anext__() if stats is None else iterator.asend(stats))
        except StopAsyncIteration:
            return
        begun = time.perf_counter()
        put(item)
        item = None
        if takes:
            stats = StreamingGeneratorStats(time.perf_counter() - begun)
        yield


def _iterate_async(value: Any) -> Generator[Any, Any, None]:
    import asyncio

    loop = asyncio.new_event_loop()
    try:
        iterator = value.__aiter__()
        sent: Any = None
        while True:
            try:
                takes = sent is not None and isinstance(iterator, AsyncGeneratorType)
                sent = yield loop.run_until_complete(iterator.asend(sent) if takes else iterator.__anext__())
            except StopAsyncIteration:
                return
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
