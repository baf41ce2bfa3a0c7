"""Asyncio actors: coroutine methods on event loops, one for each concurrency group.

| actor | main thread | other threads |
|---|---|---|
| without groups | the loop, which also reads the channel | |
| with groups | the loop of the default group | a loop for each named group; one that reads the channel |

Plain methods run on the loop of their group too and block it, as in Ray; other groups go on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from rabbitry.exceptions import TaskCancelledError
from rabbitry.runtime_context import task_of_call
from rabbitry_broker.messages import STREAMING
from rabbitry_workers.actors.event_loop import actor_loop, group_loop
from rabbitry_workers.executor import traces
from rabbitry_workers.executor.calls import ProcessFails, Retry, Stream, stored, stored_async
from rabbitry_workers.executor.commit import Results
from rabbitry_workers.executor.streams import flusher

if TYPE_CHECKING:
    from rabbitry_workers.actors.host import ActorHost, Call

COMMIT_SOON_SECONDS: Final = 0.001  # loops count in milliseconds: less is at once for uvloop
BACKPRESSURE_SECONDS: Final = 0.005
CANCELLED_SECONDS: Final = 5.0  # what does not end so long after it was cancelled is left to the end of the process
SYSTEM_GROUP: Final = "_ray_system"  # a group that every actor has, with a limit of its own


class Group:
    """The calls of one concurrency group. All of it belongs to its loop's thread, but for `submit` and `cancel`."""

    def __init__(self, runner: AsyncRunner, loop: asyncio.AbstractEventLoop, limit: int) -> None:
        self.loop = loop
        self._runner = runner
        self._host = runner.host
        self._thread: threading.Thread | None = None
        self._limit = asyncio.Semaphore(limit)
        self._tasks: dict[bytes, tuple[asyncio.Task[None], Call]] = {}  # until their results are gathered
        self._commit_planned = False
        self._settle_planned = False

    def run_in_thread(self, name: str) -> None:
        """Run the loop on a thread of its own, until `stop`."""
        self._thread = threading.Thread(target=self._run_loop, name=f"rabbitry-group-{name}", daemon=True)
        self._thread.start()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        except SystemExit as error:  # of a task that user code has started
            self._runner.end(self._host.reason_of(error))
            self._run_loop()

    def stop(self) -> None:
        """Stop the loop, if it runs on a thread of its own. Its process ends in a moment."""
        if self._thread is not None:
            self.loop.call_soon_threadsafe(self.loop.stop)

    def submit(self, call: Call) -> None:
        """Start a call. Any thread."""
        if self._runner.threaded:
            self.loop.call_soon_threadsafe(self.start, call)
        else:
            self.start(call)

    def cancel(self, task_id: bytes) -> None:
        """Cancel a call, if it is one of this group. Any thread."""
        if self._runner.threaded:
            self.loop.call_soon_threadsafe(self._cancel, task_id)
        else:
            self._cancel(task_id)

    def _cancel(self, task_id: bytes) -> None:
        running = self._tasks.get(task_id)
        if running is not None:
            running[0].cancel()

    async def drain(self, patience: float) -> None:
        """Wait for what runs; after so many seconds it is cancelled."""
        if self._tasks:
            await asyncio.wait([task for task, _ in self._tasks.values()], timeout=patience)
        self.cancel_all()
        if self._tasks:
            await asyncio.wait([task for task, _ in self._tasks.values()], timeout=CANCELLED_SECONDS)

    def cancel_all(self) -> None:
        """Cancel what runs."""
        for task, _ in self._tasks.values():
            task.cancel()

    def start(self, call: Call) -> None:
        """Start a call, on the loop's thread. HOT PATH."""
        task = self.loop.create_task(self._run_traced(call) if call.header.trace else self._run(call))
        self._tasks[call.task[0]] = (task, call)
        task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self._never_ran(task)
            return
        error = task.exception()
        if error is not None:
            self._runner.fail(error)

    def _never_ran(self, task: asyncio.Task[None]) -> None:
        """A task was cancelled before its first step: nobody else answers for its call."""
        for each, call in list(self._tasks.values()):
            if each is task:
                del self._tasks[call.task[0]]
                if self._is_end_of_actor(call):
                    self._refuse_after_end(call, Results())
                elif not self._runner.exiting:
                    out = Results()
                    self._host.refuse(call, out)
                    self._refused(call, out)

    def _is_end_of_actor(self, call: Call) -> bool:
        """True if a call is cancelled since its actor ends, and by nobody who made it."""
        return bool(self._host.ending) and not self._host.was_cancelled(call.task[0])

    def _refuse_after_end(self, call: Call, out: Results) -> None:
        if not self._runner.exiting and self._host.refuse_after_end(call, out):
            self._refused(call, out)

    async def _run_traced(self, call: Call) -> None:
        with traces.running(call.header, call.task):
            await self._run(call)

    async def _run(self, call: Call) -> None:
        host = self._host
        header, task = call.header, call.task
        task_of_call.set(task[0])
        out = Results()
        begin = 0.0
        retry = None
        runner = host.runner_of_calls
        try:
            async with self._limit:
                begin = time.perf_counter()
                if host.was_cancelled(task[0]):
                    raise asyncio.CancelledError
                if host.ending:
                    self._tasks.pop(task[0], None)
                    self._refuse_after_end(call, out)
                    return
                if task[2]:
                    host.committer.commit(last=True)  # as in `ActorHost.perform`
                args, kwargs = runner.arguments(task)
                # A method that is no coroutine keeps the loop from committing.
                if self._runner.threaded:
                    with host.committer.lock:
                        host.committer.before_user_code()
                else:
                    host.committer.before_user_code()
                host.client.children[task[0]] = []  # what it submits, until `finished`
                value = host.method(header)(*args, **kwargs)
                if inspect.isawaitable(value):
                    value = await value
                args = kwargs = None  # type: ignore[assignment]
                if header.num_returns == STREAMING:
                    await self._stream(call, value, out)
                else:
                    runner.store_value(header, task, value, out)
                value = None
                if host.cancelled and host.returned_in_vain(call, out):
                    runner.discard(out)
                    raise asyncio.CancelledError
        except asyncio.CancelledError:
            args = kwargs = None  # type: ignore[assignment]
            if self._is_end_of_actor(call):
                self._tasks.pop(task[0], None)
                self._refuse_after_end(call, Results())
                return
            host.cancelled.add(task[0])  # so that it is not tried again
            runner.fail(header, task, TaskCancelledError(task[0].hex()), out)
        except BaseException as error:
            args = kwargs = None  # type: ignore[assignment]
            if task[0] in host.cancelled and host.durable is None and isinstance(error, Exception):
                error = TaskCancelledError(task[0].hex())  # as in Ray, whatever the coroutine makes of it
            try:
                runner.fail(header, task, error, out)
            except Retry as again:
                retry = again.task
            except ProcessFails:
                self._tasks.pop(task[0], None)
                return  # its node tells the caller, or tries again
        self._tasks.pop(task[0], None)
        if self._runner.exiting:
            return
        host.finished(call, out, time.perf_counter() - begin if begin else 0.0, retry)
        self._commit_soon()

    def _refused(self, call: Call, out: Results) -> None:
        self._host.finished(call, out, 0.0)
        self._commit_soon()

    async def _stream(self, call: Call, value: Any, out: Results) -> None:
        stream = Stream(self._host.runner_of_calls, call.header, call.task, out, self._emit)
        try:
            if hasattr(value, "__aiter__"):
                async for _ in stored_async(value, stream.put):
                    while stream.reader_is_behind():
                        await asyncio.sleep(BACKPRESSURE_SECONDS)
            else:
                for _ in stored(iter(value), stream.put):
                    while stream.reader_is_behind():
                        await asyncio.sleep(BACKPRESSURE_SECONDS)
        except asyncio.CancelledError:
            self._host.cancelled.add(call.task[0])
            stream.fail(TaskCancelledError(call.task[0].hex()))
        except BaseException as error:
            stream.fail(error)
        stream.end()

    def _emit(self, owner: bytes, out: Results) -> None:
        """Have items of a stream committed in this round of the loop, with those of other calls and with its end.

        A generator that yields without ever waiting keeps the loop from its next round: the flusher commits then.
        """
        committer = self._host.committer
        if committer.state is not None:
            self._host.runner_of_calls.emit(owner, out)
            return
        with committer.lock:
            self._host.runner_of_calls.gather(owner, out)
            if committer.full():
                committer.commit(last=False)
                return
            committer.before_user_code()
        self._commit_soon()

    def _commit_soon(self) -> None:
        if not self._commit_planned:
            self._commit_planned = True
            self.loop.call_soon(self._commit)

    def _commit(self) -> None:
        """Commit what ended in this round of the loop; read the reply a little later, if nothing else comes."""
        self._commit_planned = False
        try:
            self._host.committer.commit(last=False)
            if not self._settle_planned:
                self._settle_planned = True
                self.loop.call_later(COMMIT_SOON_SECONDS, self._settle)
        except Exception as error:
            self._runner.fail(error)

    def _settle(self) -> None:
        self._settle_planned = False
        try:
            self._host.committer.commit(last=True)
            if self._thread is None:
                self._host.client.collect_quietly()
        except Exception as error:
            self._runner.fail(error)


class AsyncRunner:
    """Runs the calls of an asyncio actor, see the module's head."""

    def __init__(self, host: ActorHost) -> None:
        self.host = host
        self.threaded = bool(host.spec.groups)  # the channel is read by another thread than the main one
        self.exiting = False  # told to end at once
        self._loop = actor_loop()
        asyncio.set_event_loop(self._loop)
        self._groups = {"": Group(self, self._loop, host.spec.concurrency)}
        for name, limit in host.spec.groups.items():
            self._groups[name] = Group(self, group_loop(), limit)
        self._groups.setdefault(SYSTEM_GROUP, Group(self, self._loop, 1))
        self._serving = False  # its loop runs until it is stopped
        self._over = False  # and is not to run on
        self._receiver: threading.Thread | None = None
        self._failure: BaseException | None = None  # of a commit, or of a call that could not be finished
        host.on_exit = self._ended
        host.on_cancel = self._cancel

    def construct(self, cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the constructor, which may be a coroutine, inside the default group's loop."""

        async def inside() -> Any:
            initialise: Any = getattr(cls, "__init__")  # noqa: B009  (mypy thinks of subclasses)
            if not inspect.iscoroutinefunction(initialise):
                return cls(*args, **kwargs)
            instance: Any = cls.__new__(cls, *args, **kwargs)
            await initialise(instance, *args, **kwargs)
            return instance

        self._loop.goes_on = True
        return self._loop.run_until_complete(inside())

    def serve(self) -> int:
        """Serve until the end."""
        host = self.host
        for name, group in self._groups.items():
            if group.loop is not self._loop:
                group.run_in_thread(name)
        flusher.concurrent = True
        if self.threaded:
            host.runner_wakes = True
            self._receiver = threading.Thread(target=self._receive, name="rabbitry-calls", daemon=True)
            self._receiver.start()
        else:
            self._loop.add_reader(host.channel.sock.fileno(), self._on_channel)
            # uvloop makes what it watches non-blocking: the goodbye would fail, and sends when the agent is slow.
            os.set_blocking(host.channel.sock.fileno(), True)
            self._loop.add_reader(host._wake_read, self._on_wake)
            self._loop.call_soon(self._on_channel)
        self._serving = True
        # Not by a task of ours that runs until the end: user code may cancel all tasks of its loop, or stop it.
        while not self._over:
            try:
                self._loop.run_forever()
            except SystemExit as error:  # of a task that user code has started
                self.end(host.reason_of(error))
        patience = 0.0 if self.exiting else host.patience_at_end
        if self._failure is None and (patience or self.exiting):  # else what runs is lost with this process
            self._serving = False
            self._loop.run_until_complete(self._drain(patience))
        self._loop.goes_on = False
        for group in self._groups.values():
            group.stop()
        if self._failure is not None:
            raise self._failure
        with contextlib.suppress(Exception):
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        if self.exiting:
            return 0
        if self._receiver is None:
            return host.leave(host.ending)
        host.say_goodbye(host.ending)
        self._receiver.join()  # until the agent agrees
        return 0

    async def _drain(self, patience: float) -> None:
        """Wait for the calls that run, on whatever loop."""
        drained = [
            asyncio.ensure_future(group.drain(patience))
            if group.loop is self._loop
            else asyncio.wrap_future(asyncio.run_coroutine_threadsafe(group.drain(patience), group.loop))
            for group in self._groups.values()
        ]
        # A method that blocks its loop may never let it go.
        await asyncio.wait(drained, timeout=patience + 2 * CANCELLED_SECONDS)
        if not self.threaded:
            self._loop.remove_reader(self.host.channel.sock.fileno())
            self._loop.remove_reader(self.host._wake_read)

    # -- what arrives, on the thread that reads the channel ------------------------------------------------------------

    def _receive(self) -> None:
        """Body of the thread that reads the channel, if it is not the main one."""
        try:
            while self.host.receive(wait=True, start=self._start):
                pass
        except BaseException as error:
            self.fail(error)
        else:
            self._exit()

    def _on_channel(self) -> None:
        host = self.host
        while host.channel.waiting():
            if not host.on_message(host.channel.receive(), self._start):
                self._loop.remove_reader(host.channel.sock.fileno())
                self._exit()
                return

    def _on_wake(self) -> None:
        self.host.drain_wakes()
        self.host.start_ready(self._start)

    def _start(self, call: Call) -> None:
        host = self.host
        host.executor.started[0] = max(host.executor.started[0], call.sequence + 1)
        group = self._groups.get(call.header.group)
        if group is None:
            host.refuse_group(call)
            return
        group.submit(call)

    def _cancel(self, task_id: bytes) -> None:
        for group in self._groups.values():
            group.cancel(task_id)

    def _exit(self) -> None:
        """The agent is gone, or wants this process to end at once."""
        self.exiting = True
        self._ended()
        for group in self._groups.values():  # also if the calls that run are being waited for
            group.loop.call_soon_threadsafe(group.cancel_all)

    # -- ends, from any thread -----------------------------------------------------------------------------------------

    def end(self, reason: str) -> None:
        """The actor ends: nothing begins any more, what runs may come to its end."""
        self.host.end(reason)

    def _ended(self) -> None:
        self._over = True
        if self._serving:
            self._loop.call_soon_threadsafe(self._loop.stop)

    def fail(self, error: BaseException) -> None:
        """This process has lost results: the callers are told by its end, or never."""
        self._failure = self._failure or error
        self._ended()
