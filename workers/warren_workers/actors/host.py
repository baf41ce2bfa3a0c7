"""The actor host: an executor that holds one instance for the rest of its life.

It takes calls from its agent in the order of the actor's queue. How they run is up to a *runner*: one after the other
on the main thread (`SerialRunner`), on thread pools (`ThreadRunner`), or on one asyncio loop (`AsyncRunner`).

Order: calls of one caller start in the order they were sent. A call whose arguments are not ready waits, and with it
what the same caller sent later (unless the actor runs calls out of order anyway); other callers pass by.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from warren import runtime_context
from warren.actor_client import END_METHOD, death_record
from warren.exceptions import ActorDiedError, TaskCancelledError, load_task_error, store_error
from warren.exit import ActorExit
from warren.object_ref import ObjectRef
from warren_broker import records
from warren_broker.ids import FIRST_INDEX
from warren_broker.messages import Task, TaskHeader, decode_actor_spec, decode_header
from warren_workers.actors.durable import DurableState
from warren_workers.channel import BYE, CANCEL, CREATED, EXIT, RUN
from warren_workers.executor.calls import DependencyFailed, Retry, fill, result_ids
from warren_workers.executor.commit import Fenced, Results

if TYPE_CHECKING:
    from warren_workers.executor.run import Executor


class Call:
    """One call that arrived and has not ended."""

    __slots__ = ("args", "exits", "header", "kwargs", "sequence", "task")

    def __init__(self, sequence: int, header: TaskHeader, task: Task) -> None:
        self.sequence = sequence
        self.header = header
        self.task = task
        self.args: tuple[Any, ...] | None = None
        self.kwargs: dict[str, Any] = {}
        self.exits = False


class ActorHost:
    """The actor in this process. The main thread owns everything but what runners say otherwise."""

    def __init__(self, executor: Executor, message: list[Any]) -> None:
        _, header_bytes, task, gpus, epoch, restarts = message
        self.executor = executor
        self.client = executor.client
        self.channel = executor.channel
        self.committer = executor.committer
        self.runner_of_calls = executor.runner
        self.header = decode_header(header_bytes)
        self.task: Task = tuple(task)
        self.spec = decode_actor_spec(self.header.extra)
        self.epoch = epoch
        self.restarts = restarts
        self.gpus = gpus
        self.instance: Any = None
        self.cancelled: set[bytes] = set()
        self.durable: DurableState | None = None
        self._line: dict[bytes, deque[Call]] = {}  # per caller: calls that wait for arguments, and those behind them
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self.ending = ""
        executor.hosting = True
        self.committer.sequences = []
        self.context = runtime_context.TaskContext(executor.node_id, self.client.id, self.header, gpus)
        self.context.actor = self._handle
        self.context.resources = self.spec.running
        self.context.reconstructed = restarts > 0
        self.context.actor_name = self.spec.name
        self.context.cancelled = self.is_cancelled
        self.runner_of_calls.is_cancelled = self._was_cancelled
        runtime_context.set_context(self.context)

    def _handle(self) -> Any:
        from warren.actor import handle_from_facts

        return handle_from_facts(self.header.actor, self.spec.facts, creation_ref=None)

    # -- life --------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Create the instance, then serve calls until the end; returns the exit code."""
        from warren_workers.actors.runners import make_runner

        self.executor.set_gpus(self.gpus)
        runner = make_runner(self)
        if not self._create(runner):
            return self.leave("constructor failed")
        try:
            return int(runner.serve())
        except Fenced:
            return 0  # a later process of this actor lives; this one must leave no trace

    def _create(self, runner: Any) -> bool:
        """Make the instance, commit the outcome, tell the agent."""
        header, task = self.header, self.task
        out = Results()
        failure = b""
        self.executor.task_id = task[0]
        try:
            cls = self.executor.functions.get(header.function)
            if self.spec.durable:
                self.durable = DurableState(self)
                self.context.checkpoint = self.durable.checkpoint
            if self.durable is None or not self.durable.restore(cls):
                args, kwargs = self.runner_of_calls.arguments(task)
                self.instance = runner.construct(lambda: cls(*args, **kwargs))
                args = kwargs = None  # type: ignore[assignment]
        except DependencyFailed as failed:
            failure = store_error(ActorDiedError(load_task_error(failed.record[1:])))  # type: ignore[arg-type]
        except BaseException as error:
            name = f"{self.spec.class_name}.__init__"
            told = self.runner_of_calls.error_of(
                self.header.__class__(**{**_fields(header), "name": name}), task, error
            )
            failure = store_error(ActorDiedError(load_task_error(told)))  # type: ignore[arg-type]
        self.executor.task_id = None
        self.context.instance = self.instance
        if failure:
            fill(header, task, records.ERROR + failure, out)
        else:
            out.items += (task[0] + FIRST_INDEX, records.ACTOR + header.actor)
            if self.durable is not None:
                self.committer.state = self.durable.commit_fields
        out.tasks = 1
        self.client.settle()
        with self.committer.lock:
            if not self.restarts:
                self.committer.of(header.owner).merge(out)
            self.committer.commit(last=True)
        self.channel.send([CREATED, failure])
        return not failure

    def leave(self, reason: str) -> int:
        """Say goodbye to the agent, end when it agrees."""
        self.committer.commit(last=True)
        self.client.deregister()
        self.channel.send([BYE, reason])
        while True:
            message = self.channel.receive()
            if message is None or message[0] == EXIT:
                return 0

    # -- what arrives ------------------------------------------------------------------------------------------------

    def receive(self, *, wait: bool, start: Callable[[Call], None]) -> bool:
        """Take messages and start what may start; False when the host must end.

        Args:
            wait: block until something arrives (a message, or an argument that calls wait for).
            start: starts a call whose arguments are there.
        """
        channel = self.channel
        if wait and not channel.waiting():
            if self._line or self.runner_wakes:
                readable, _, _ = select.select([channel.sock.fileno(), self._wake_read], [], [])
                if self._wake_read in readable:
                    self.drain_wakes()
                    self.start_ready(start)
                if channel.sock.fileno() not in readable:
                    return True
        elif not wait and not channel.waiting():
            return True
        message = channel.receive()
        return self.on_message(message, start)

    runner_wakes = False  # a runner sets it if its threads wake the main thread

    def on_message(self, message: list[Any] | None, start: Callable[[Call], None]) -> bool:
        """Act on one message; False when the host must end."""
        if message is None or message[0] == EXIT:
            return False
        if message[0] == RUN:
            _, first, header_bytes, tasks, _ = message
            header = decode_header(header_bytes)
            if self.durable is not None:
                tasks = self._without_applied(first, header, tasks)
            else:
                tasks = list(enumerate(tasks, first))
            for sequence, task in tasks:
                self.arrive(Call(sequence, header, tuple(task)), start)
        elif message[0] == CANCEL:
            self.cancel(message[1])
        return True

    def arrive(self, call: Call, start: Callable[[Call], None]) -> None:
        """A call arrived: start it, or let it wait for its arguments or its turn."""
        task = call.task
        line = self._line.get(call.header.owner) if self._line else None
        if line is not None and not self.spec.out_of_order:
            line.append(call)
            return
        if task[3] and len(task[4]) < len(task[3]) and not self._ready(call):
            self._line.setdefault(call.header.owner, deque()).append(call)
            return
        start(call)

    def _ready(self, call: Call) -> bool:
        """True if the arguments are there; else have the main thread woken when one more is."""
        store = self.client.store
        missing = [key for key in call.task[3] if key not in call.task[4]]
        absent = {key for key, record in zip(missing, store.fetch(missing), strict=True) if record is None}
        if not absent:
            return True
        if call.args is None:
            call.args, call.kwargs = self.runner_of_calls.unpack_arguments(call.task)
        refs = [value for value in (*call.args, *call.kwargs.values()) if type(value) is ObjectRef]
        for ref in refs:
            if ref._id in absent:
                self.client.on_ready(ref, self.wake)
                break
        return False

    def start_ready(self, start: Callable[[Call], None]) -> None:
        """Start calls whose arguments have come."""
        for caller in list(self._line):
            line = self._line[caller]
            while line and (not line[0].task[3] or self._ready(line[0])):
                start(line.popleft())
            if not line:
                del self._line[caller]

    def wake(self) -> None:
        """Wake the main thread from its select. Any thread."""
        try:
            os.write(self._wake_write, b"x")
        except BlockingIOError:
            return  # enough wakes are in the pipe

    def drain_wakes(self) -> None:
        """Forget wakes."""
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            return

    def cancel(self, task_id: bytes) -> None:
        """Drop a call that waits; one that runs sees `get_runtime_context().is_canceled()`."""
        self.cancelled.add(task_id)
        self.executor.progress.cancel(task_id)

    def is_cancelled(self, task_id: str | None) -> bool:
        """True if this running call was cancelled. Any thread."""
        return task_id is not None and self.executor.progress.is_cancelled(bytes.fromhex(task_id))

    def _was_cancelled(self, task_id: bytes) -> bool:
        return task_id in self.cancelled or self.executor.progress.is_cancelled(task_id)

    # -- one call ----------------------------------------------------------------------------------------------------

    def method(self, header: TaskHeader) -> Callable[..., Any]:
        """Return what a call runs."""
        name = header.method
        if name.startswith("__"):
            if name == "__ray_ready__":
                return lambda: True
            if name in ("__ray_terminate__", END_METHOD):
                return self._exit
            if name == "__ray_call__":
                return lambda function, *args, **kwargs: function(self.instance, *args, **kwargs)
        return getattr(self.instance, name)  # type: ignore[no-any-return]

    def _noting_exit(self, call: Call) -> Callable[..., Any]:
        """Return the method, but note if it leaves by `exit_actor`."""
        method = self.method(call.header)

        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except ActorExit:
                call.exits = True
                raise

        return run

    @staticmethod
    def _exit() -> None:
        raise ActorExit

    def perform(self, call: Call) -> None:
        """Run a call to its end in this thread; its results are gathered, not committed. HOT PATH."""
        header, task = call.header, call.task
        out = Results()
        begin = time.perf_counter()
        retry: Task | None = None
        try:
            if task[0] in self.cancelled or self.executor.progress.is_cancelled(task[0]):
                self.cancelled.discard(task[0])
                self.refuse(call, out)
            else:
                self.runner_of_calls.run(header, self._noting_exit(call), task, out)
        except Retry as again:
            retry = again.task
        except AttributeError as error:
            self.runner_of_calls.fail(header, task, error, out)
        self.finished(call, out, time.perf_counter() - begin, retry)

    def refuse(self, call: Call, out: Results) -> None:
        """The call was cancelled before it began."""
        record = records.ERROR + store_error(TaskCancelledError(call.task[0].hex()))
        fill(call.header, call.task, record, out)

    def finished(self, call: Call, out: Results, busy: float, retry: Task | None = None) -> None:
        """Gather a call's results for the next commit. Any thread."""
        client, committer = self.client, self.committer
        call.args = None
        if client.lifetimes.waiting:
            client.settle()
        out.tasks = 1
        out.busy = busy
        with committer.lock:
            if retry is not None:
                committer.retries.append((call.sequence, retry))
            committer.of(call.header.owner).merge(out)
            committer.tasks += 1
            committer.bytes += out.bytes
            assert committer.sequences is not None
            committer.sequences.append(call.sequence)
            if self.durable is not None:
                self.durable.applied(call.header.owner, call.task[5])

    # -- durable -----------------------------------------------------------------------------------------------------

    def _without_applied(self, first: int, header: TaskHeader, tasks: list[Any]) -> list[tuple[int, Task]]:
        """Calls that took effect before (delivered again) are answered from their results, not run."""
        assert self.durable is not None
        fresh: list[tuple[int, Task]] = []
        for sequence, task in enumerate(tasks, first):
            if not self.durable.is_applied(header.owner, task[5]):
                fresh.append((sequence, task))
                continue
            out = Results()
            keys = result_ids(task[0], header.num_returns)
            for key, record in zip(keys, self.client.store.fetch(keys), strict=True):
                if record is not None:
                    out.items += (key, record)
            out.ended.append(task[0])
            out.tasks = 1
            with self.committer.lock:
                self.committer.of(header.owner).merge(out)
                assert self.committer.sequences is not None
                self.committer.sequences.append(sequence)
        return fresh


def _fields(header: TaskHeader) -> dict[str, Any]:
    return {name: getattr(header, name) for name in header.__struct_fields__}


__all__ = ["ActorHost", "Call", "death_record"]
