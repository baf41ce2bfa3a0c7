"""The actor host: an executor that holds one instance for the rest of its life.

It takes calls from its agent in the order of the actor's queue. How they run is up to a *runner*: one after the other
on the main thread (`SerialRunner`), on thread pools (`ThreadRunner`), or on asyncio loops (`AsyncRunner`).

Order: calls of one caller start in the order they were sent. A call whose arguments are not ready waits, and with it
what the same caller sent later (unless the actor runs calls out of order anyway); other callers pass by.
"""

from __future__ import annotations

import os
import select
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from rabbitry import runtime_context
from rabbitry.core.failures import cancelled_error, death_record, process_ended
from rabbitry.core.submit.plans import END_METHOD
from rabbitry.exceptions import (
    ActorDiedError,
    TaskError,
    load_task_error,
    store_error,
    store_input_failure,
)
from rabbitry.exit import ActorExit
from rabbitry.object_ref import ObjectRef
from rabbitry.runtime_context import task_of_call
from rabbitry_broker import records
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import FIRST_INDEX
from rabbitry_broker.messages import STREAMING, Task, TaskHeader, decode_actor_spec, decode_header
from rabbitry_broker.store.actors import ActorRecords
from rabbitry_workers.actors.durable import DurableState
from rabbitry_workers.channel import BYE, CANCEL, CREATED, EXIT, RUN
from rabbitry_workers.executor import titles, traces
from rabbitry_workers.executor.calls import (
    DependencyFailed,
    ProcessCountsAsDead,
    ProcessFails,
    Retry,
    fill,
    result_ids,
)
from rabbitry_workers.executor.commit import Fenced, Results

if TYPE_CHECKING:
    from rabbitry_workers.executor.run import Executor


LABEL_CHARACTERS = 200
EXIT_PATIENCE_SECONDS: Final = 30.0  # an actor that ends waits so long for the calls that run
GRACEFUL: Final = frozenset(("exit_actor", "sys.exit"))  # ends without a restart


class Call:
    """One call that arrived and has not ended."""

    __slots__ = ("args", "header", "kwargs", "sequence", "task")

    def __init__(self, sequence: int, header: TaskHeader, task: Task) -> None:
        self.sequence = sequence
        self.header = header
        self.task = task
        self.args: tuple[Any, ...] | None = None
        self.kwargs: dict[str, Any] = {}


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
        self._half_made: Any = None  # what an `__init__` that failed had begun, while its error is told
        self.cancelled: set[bytes] = set()
        self._cancellations_seen = 0
        self.durable: DurableState | None = None
        self._line: dict[bytes, deque[Call]] = {}  # per caller: calls that wait for arguments, and those behind them
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self.ending = ""  # why the actor ends, if it does: nothing begins any more
        self.on_exit: Callable[[], None] = lambda: None  # runners set it: `ending` is set. Any thread
        self.on_cancel: Callable[[bytes], None] = lambda task_id: None  # and this: a call that runs is cancelled
        executor.hosting = True
        self.client.actors.directory.made = None  # an actor that ends does not ask whether others live by it
        self.committer.sequences = []
        self.context = runtime_context.TaskContext(executor.node_id, self.client.id, self.header, gpus)
        self.context.actor = self._handle
        self.context.resources = self.spec.running
        self.context.reconstructed = restarts > 0
        self.context.actor_name = self.spec.name
        self.context.cancelled = self.is_cancelled
        self.context.exit = lambda: self.end("exit_actor")
        self.runner_of_calls.is_cancelled = self.was_cancelled
        self.runner_of_calls.on_exit = self._on_exit_of_call
        self.runner_of_calls.actor_repr = self._repr_for_errors
        runtime_context.set_context(self.context)

    def _handle(self) -> Any:
        from rabbitry.actor import handle_from_facts

        return handle_from_facts(self.header.actor, self.spec.facts, creation_ref=None)

    # -- life --------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Create the instance, then serve calls until the end; returns the exit code."""
        from rabbitry_workers.actors.runners import make_runner

        self.executor.environment.show(self.spec.running, self.gpus)
        titles.show(f"{self.spec.short_name}.__init__")
        runner = make_runner(self)
        failed = self._create(runner)
        if failed:
            return self.leave(failed)
        self.executor.before_exit = self._shut_down
        titles.show(self.spec.short_name)
        try:
            return int(runner.serve())
        except Fenced as error:
            raise ProcessCountsAsDead from error  # a later process of this actor lives; this one must leave no trace

    def _shut_down(self) -> None:
        """The actor ends, not by a crash: it may let go of what it has."""
        shut_down = getattr(self.instance, "__ray_shutdown__", None)
        if callable(shut_down):
            shut_down()

    def _create(self, runner: Any) -> str:
        """Make the instance, commit the outcome, tell the agent; return why this process must end, if it must."""
        header, task = self.header, self.task
        out = Results()
        failure = b""
        self.executor.task_id = task[0]
        cls: Any = None
        try:
            cls = self.executor.functions.get(header.function)
            if self.spec.durable:
                self.durable = DurableState(self)
                self.context.checkpoint = self.durable.checkpoint
            if self.durable is None or not self.durable.restore(cls):
                args, kwargs = self.runner_of_calls.arguments(task)
                if header.trace:
                    with traces.running(header, task):
                        self.instance = runner.construct(cls, args, kwargs)
                else:
                    self.instance = runner.construct(cls, args, kwargs)
                args = kwargs = None  # type: ignore[assignment]
        except DependencyFailed as failed:
            told = store_input_failure(failed.record[1:], f"{self.spec.short_name}.__init__")
            failure = self._never_made(load_task_error(told))
        except SystemExit as error:
            if not self.ends_for_good(error):
                return self.reason_of(error)  # as by a crash
            failure = self._never_made(error)
        except BaseException as error:
            name = f"{self.spec.short_name}.__init__"
            self._half_made = _instance_in(error, cls)
            told = self.runner_of_calls.error_of(
                self.header.__class__(**{**_fields(header), "name": name}), task, error
            )
            self._half_made = None
            failure = self._never_made(load_task_error(told))
        self.executor.task_id = None
        self.client.children.pop(task[0], None)
        self.context.instance = self.instance
        if header.lifetime:
            out.ended.append(task[0])  # nobody would ever delete the object; the actor's record says how it fares
        elif failure:
            fill(header, task, records.ERROR + failure, out)
        else:
            out.items += (task[0] + FIRST_INDEX, records.ACTOR + header.actor)
        if not failure and self.durable is not None:
            self.committer.state = self.durable.commit_fields
            if not self.client.endpoint.traits.one_host:  # there are no replicas of a server that ends with its host
                self.committer.replicas = self.spec.replicas
        if not failure:
            # The node hears of it later: nobody who has a result of this actor may find that it waits for its creation.
            self.committer.announce = (self.client.keys.actor(header.actor), self.epoch, os.getpid())
        out.tasks = 1
        self.client.settle()
        with self.committer.lock:
            if not self.restarts:
                self.committer.of(header.owner).merge(out)
            self.committer.commit(last=True)
        self.channel.send([CREATED, failure, "" if failure else _label_of(self.instance)])
        return "constructor failed" if failure else ""

    def _repr_for_errors(self) -> str | None:
        """Return what errors of calls show of the actor: its `repr` if its class has one, for Ray's programs always."""
        instance = self._half_made if self.instance is None else self.instance
        label = "" if instance is None else _label_of(instance)
        if label or not self.runner_of_calls.as_ray:
            return label or None
        return f"<{self.spec.class_name} object>" if instance is None else object.__repr__(instance)

    def _never_made(self, error: BaseException) -> bytes:
        """Return the stored error of calls to an actor whose constructor, or an argument of it, failed so."""
        if isinstance(error, TaskError):
            return store_error(ActorDiedError(error))
        reason = f"Its constructor failed: {type(error).__name__}: {error}"
        return death_record(self.spec.class_name, self.header.actor, reason, name=self.spec.name, never_started=True)

    @property
    def patience_at_end(self) -> float:
        """Seconds that calls which run have, now that the actor ends; none if that is like a crash."""
        return EXIT_PATIENCE_SECONDS if self.ending in GRACEFUL else 0.0

    def end(self, reason: str) -> None:
        """The actor ends when the calls that run have ended. Any thread; the first reason stands."""
        if self.ending:
            return
        self.ending = reason
        if self.spec.name and reason in GRACEFUL:
            self._free_name()
        self.on_exit()

    def _free_name(self) -> None:
        """Whoever sees that the actor has ended finds its name free, and nobody gets it any more."""
        try:
            ActorRecords(self.client.store).leaving(self.header.actor)
        except RabbitryBrokerError:
            return  # the node frees it when it hears of the end

    @staticmethod
    def ends_for_good(error: SystemExit) -> bool:
        """True for `exit_actor()` and `sys.exit(0)`; another exit code is a failure, and the actor may be restarted."""
        return isinstance(error, ActorExit) or error.code is None or error.code == 0

    def _on_exit_of_call(self, error: SystemExit) -> None:
        self.end(self.reason_of(error))
        if not self.ends_for_good(error):
            raise ProcessFails from None

    @classmethod
    def reason_of(cls, error: SystemExit) -> str:
        """Return why the actor ends with that."""
        if isinstance(error, ActorExit):
            return "exit_actor"
        return "sys.exit" if cls.ends_for_good(error) else f"sys.exit({error.code!r})"

    def leave(self, reason: str) -> int:
        """Say goodbye to the agent, end when it agrees."""
        self.say_goodbye(reason)
        while True:
            message = self.channel.receive()
            if message is None or message[0] == EXIT:
                return 0

    def say_goodbye(self, reason: str) -> None:
        """Commit what is left, tell the agent that this process ends."""
        if self.durable is None or not self.durable.calling:  # else the state is half changed: nothing has taken effect
            self.committer.commit(last=True)
        self.client.deregister()
        self.channel.send([BYE, reason])

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
            if not self.executor.progress.spares_children_of(message[1]):
                self.client.cancel_children(message[1], force=False)
            self.cancel(message[1])
            self._drop_waiting(message[1], start)
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

    def _drop_waiting(self, task_id: bytes, start: Callable[[Call], None]) -> None:
        """End a cancelled call that waits for its arguments, or behind one that does: those may never come."""
        for line in self._line.values():
            for call in line:
                if call.task[0] == task_id:
                    line.remove(call)
                    start(call)  # which refuses it
                    self.start_ready(start)
                    return

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
        self.executor.progress.cancel(task_id)
        for line in self._line.values():
            for call in line:
                if call.task[0] == task_id:
                    line.remove(call)
                    self.wake()  # what stood behind it
                    told = cancelled_error(task_id)
                    self.runner_of_calls.note_failure(call.header, call.task, told)
                    self._answer(call, records.ERROR + told)
                    return
        self.cancelled.add(task_id)
        self.on_cancel(task_id)

    def _answer(self, call: Call, record: bytes) -> None:
        """Answer a call that does not begin."""
        out = Results()
        fill(call.header, call.task, record, out)
        self.finished(call, out, 0.0)
        self.committer.commit(last=True)

    def refuse_group(self, call: Call) -> None:
        """There is no such concurrency group."""
        error = ValueError(f"{call.header.name}: no concurrency group {call.header.group!r} in this actor")
        self._answer(call, records.ERROR + self.runner_of_calls.error_of(call.header, call.task, error))

    def refuse_after_end(self, call: Call, out: Results) -> bool:
        """The actor ends before this call began; False if it may be tried again by the next process."""
        if self.ending not in GRACEFUL:
            return False
        reason = process_ended("It exited by itself.", intended=True)
        record = death_record(self.spec.class_name, self.header.actor, reason, pid=os.getpid())
        self.runner_of_calls.note_failure(call.header, call.task, record)
        fill(call.header, call.task, records.ERROR + record, out)
        return True

    def interrupt_waits(self) -> None:
        """From now on a call that blocks in `get` or `wait` is interrupted if it is cancelled. For calls on threads."""
        self.executor.waits_in_vain = self._waits_in_vain

    def _waits_in_vain(self) -> bool:
        running = task_of_call.get() or self.executor.task_id
        return running is not None and self.executor.progress.is_cancelled(running)

    def end_waits(self) -> None:
        """Calls were cancelled: those that wait for results look whether they are among them. Any thread."""
        self.client.inbox.look_again()

    def cancel_children_of_running(self) -> None:
        """Cancel what the running call has submitted, if it was cancelled: the main thread is busy with it. Any thread.

        A next call may run by now: then there is nothing left of the children of this one.
        """
        progress = self.executor.progress
        seen, running = progress.revocations[2], self.executor.task_id
        if running is not None and progress.is_cancelled(running) and not progress.spares_children_of(running):
            self.client.cancel_children(running, force=False)
        self._cancellations_seen = seen
        self.end_waits()

    def has_new_cancellations(self) -> bool:
        """True if a call was cancelled since `cancel_children_of_running` looked. Any thread."""
        return self.executor.progress.revocations[2] != self._cancellations_seen

    def is_cancelled(self, task_id: str | None) -> bool:
        """True if this running call was cancelled. Any thread."""
        return task_id is not None and self.executor.progress.is_cancelled(bytes.fromhex(task_id))

    def was_cancelled(self, task_id: bytes) -> bool:
        """True if somebody asked for a call to be cancelled."""
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
        instance = self.instance
        if name in getattr(instance, "__dict__", ()):
            # As in Ray, methods are the class's: an attribute of the instance does not hide them.
            for cls in type(instance).__mro__:
                if name in cls.__dict__:
                    return cls.__dict__[name].__get__(instance, type(instance))  # type: ignore[no-any-return]
        return getattr(instance, name)  # type: ignore[no-any-return]

    @staticmethod
    def _exit() -> None:
        raise ActorExit

    def perform(self, call: Call) -> None:
        """Run a call to its end in this thread; its results are gathered, not committed. HOT PATH."""
        header, task = call.header, call.task
        out = Results()
        begin = time.perf_counter()
        retry: Task | None = None
        if task[2]:
            self.committer.commit(last=True)  # it may end this process: what came before it must not be lost
        if self.durable is not None:
            self.durable.calling = True
        try:
            if task[0] in self.cancelled or self.executor.progress.is_cancelled(task[0]):
                self.refuse(call, out)
            else:
                run = self.runner_of_calls.run
                if header.trace:
                    run = traces.of_run(run)
                run(header, self.method(header), task, out)
                if (self.cancelled or self.executor.revocations[2]) and self.returned_in_vain(call, out):
                    self.runner_of_calls.discard(out)
                    self.refuse(call, out)
        except Retry as again:
            retry = again.task
        except ProcessFails:
            return  # its node tells the caller, or tries again
        except AttributeError as error:
            self.runner_of_calls.fail(header, task, error, out)
        self.finished(call, out, time.perf_counter() - begin, retry)

    def returned_in_vain(self, call: Call, out: Results) -> bool:
        """True if the call was cancelled while it ran: as in Ray, its caller hears of that, and not what it returned.

        What it raised stands. So does what a durable actor's call returned: that has taken effect. And what a generator
        yielded has been told already.
        """
        if self.durable is not None or call.header.num_returns == STREAMING or not self.was_cancelled(call.task[0]):
            return False
        return not any(record.startswith(records.ERROR) for record in out.items[1::2])

    def refuse(self, call: Call, out: Results) -> None:
        """The call was cancelled: before it began, or while it ran."""
        told = cancelled_error(call.task[0])
        record = records.ERROR + told
        self.runner_of_calls.note_failure(call.header, call.task, told)
        fill(call.header, call.task, record, out)

    def finished(self, call: Call, out: Results, busy: float, retry: Task | None = None) -> None:
        """Gather a call's results for the next commit. Any thread."""
        client, committer = self.client, self.committer
        call.args = None
        if client.children:
            client.children.pop(call.task[0], None)
        if self.cancelled:
            self.cancelled.discard(call.task[0])
        if client.lifetimes.waiting:
            client.settle()
        out.tasks = 1
        out.busy = busy
        with committer.lock:
            if call.header.events and client.events.on:
                committer.times.note(time.perf_counter(), busy)
            if retry is not None:
                committer.retries.append((call.sequence, retry))
            committer.of(call.header.owner).merge(out)
            committer.tasks += 1
            committer.bytes += out.bytes
            assert committer.sequences is not None
            committer.sequences.append(call.sequence)
            if self.durable is not None:
                self.durable.calling = False
                if retry is None:  # else it is to be run again, and is answered then
                    self.durable.applied(call.header.owner, call.task[5])
            if call.task[2] or retry is not None:
                # A process may have died with it because of what came behind it: it must not be lost once more, or each
                # process to come would run it again, up to the call that ends the process.
                committer.commit(last=True)

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
                if header.events and self.client.events.on:
                    self.committer.times.note(time.perf_counter(), 0.0)
                self.committer.of(header.owner).merge(out)
                assert self.committer.sequences is not None
                self.committer.sequences.append(sequence)
        return fresh


def _fields(header: TaskHeader) -> dict[str, Any]:
    return {name: getattr(header, name) for name in header.__struct_fields__}


def _label_of(instance: Any) -> str:
    """Return what marks an actor's output: its `repr` if its class defines one, "" for the class's name."""
    if not any("__repr__" in vars(cls) for cls in type(instance).__mro__[:-1]):
        return ""
    try:
        return repr(instance)[:LABEL_CHARACTERS].replace("\n", " ")
    except Exception:
        return ""  # it does not matter so much


def _instance_in(error: BaseException, cls: Any) -> Any:
    """Return the instance whose `__init__` raised an error, as the traceback knows it; None if it does not."""
    if not isinstance(cls, type):
        return None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "__init__" and frame.f_code.co_argcount:
            instance = frame.f_locals.get(frame.f_code.co_varnames[0])
            if cls in type(instance).__mro__:
                return instance
    return None


__all__ = ["ActorHost", "Call", "death_record"]
