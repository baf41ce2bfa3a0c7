"""How an actor's calls run: serially, on threads, or on an asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from warren.exceptions import TaskCancelledError
from warren.exit import ActorExit
from warren.runtime_context import task_of_call
from warren_broker.messages import STREAMING
from warren_workers.actors.host import ActorHost, Call
from warren_workers.channel import CANCEL
from warren_workers.executor.calls import Retry, Stream
from warren_workers.executor.commit import Fenced, Results

COMMIT_SECONDS = 0.005
COMMIT_SOON_SECONDS = 0.0005


def make_runner(host: ActorHost) -> SerialRunner | ThreadRunner | AsyncRunner:
    """Return the runner that the actor's options ask for."""
    if host.spec.is_async:
        return AsyncRunner(host)
    if host.spec.concurrency > 1 or host.spec.groups:
        return ThreadRunner(host)
    return SerialRunner(host)


class SerialRunner:
    """One call after the other, on the main thread. HOT PATH."""

    def __init__(self, host: ActorHost) -> None:
        self._host = host
        self._since = 0.0  # when the first of the calls that are not committed began
        self._means: dict[str, float] = {}  # run times of a durable actor's methods, in seconds

    def construct(self, make: Callable[[], Any]) -> Any:
        """Run the constructor."""
        return make()

    def serve(self) -> int:
        """Serve until the end."""
        host = self._host
        while True:
            if host.ending:
                return host.leave(host.ending)
            if not host.channel.waiting():
                host.committer.commit(last=True)
                host.client.collect_quietly()
            if not host.receive(wait=True, start=self._start):
                return 0

    def _start(self, call: Call) -> None:
        host = self._host
        if host.ending:
            return  # the agent fails what comes after the end
        executor, committer = host.executor, host.committer
        executor.task_id = call.task[0]
        executor.started[0] = call.sequence + 1
        host.context.header = call.header
        method = call.header.method
        if host.durable is None:
            committer.before_user_code()
        elif committer.tasks and self._means.get(method, 1.0) > COMMIT_SECONDS:
            # The state cannot be committed while a call changes it, so what is finished goes before a slow call.
            committer.commit(last=True)
        begin = time.monotonic()
        if not committer.tasks:
            self._since = begin
        host.perform(call)
        executor.task_id = None
        if host.durable is not None:
            self._means[method] = 0.5 * (self._means.get(method, 0.0) + time.monotonic() - begin)
        if call.exits:
            host.ending = "exit_actor"
            return
        if committer.full() or time.monotonic() - self._since > COMMIT_SECONDS:
            committer.commit(last=False)


class ThreadRunner:
    """Calls run on thread pools, one a concurrency group. The main thread receives and commits."""

    def __init__(self, host: ActorHost) -> None:
        self._host = host
        host.runner_wakes = True
        self._pools = {
            name: ThreadPoolExecutor(limit, thread_name_prefix=f"warren-{name}")
            for name, limit in host.spec.groups.items()
        }
        self._pools[""] = ThreadPoolExecutor(host.spec.concurrency, thread_name_prefix="warren-call")
        self._running = 0
        self._lock = threading.Lock()
        self._failure: BaseException | None = None  # of a thread that could not finish its call

    def construct(self, make: Callable[[], Any]) -> Any:
        """Run the constructor."""
        return make()

    def serve(self) -> int:
        """Serve until the end."""
        host = self._host
        while True:
            if self._failure is not None:
                raise self._failure
            if not host.channel.waiting():
                host.committer.commit(last=True)
                host.client.collect_quietly()
            if host.ending and not self._running:
                return host.leave(host.ending)
            if not host.receive(wait=True, start=self._start):
                return 0

    def _start(self, call: Call) -> None:
        host = self._host
        if host.ending:
            return
        with self._lock:
            self._running += 1
        host.executor.started[0] = max(host.executor.started[0], call.sequence + 1)
        pool = self._pools.get(call.header.group)
        if pool is None:
            self._unknown_group(call)
            return
        pool.submit(self._run, call)

    def _unknown_group(self, call: Call) -> None:
        out = Results()
        error = ValueError(f"{call.header.name}: no concurrency group {call.header.group!r} in this actor")
        self._host.runner_of_calls.fail(call.header, call.task, error, out)
        self._host.finished(call, out, 0.0)
        with self._lock:
            self._running -= 1

    def _run(self, call: Call) -> None:
        token = task_of_call.set(call.task[0])
        try:
            self._host.perform(call)
            if call.exits:
                self._host.ending = "exit_actor"
        except BaseException as error:
            self._failure = error  # its caller is told by this process's end, or never
        finally:
            task_of_call.reset(token)
            with self._lock:
                self._running -= 1
            self._host.wake()


class AsyncRunner:
    """Coroutine methods on one asyncio loop on the main thread; plain methods run on it too and block it, as in Ray."""

    def __init__(self, host: ActorHost) -> None:
        self._host = host
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._limits: dict[str, asyncio.Semaphore] = {}
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._commit_planned = False
        self._settle_planned = False
        self._done: asyncio.Event | None = None
        self._failure: BaseException | None = None  # of a commit, or of a call that could not be finished

    def construct(self, make: Callable[[], Any]) -> Any:
        """Run the constructor inside the loop, so that it may make futures and tasks."""

        async def inside() -> Any:
            return make()

        return self._loop.run_until_complete(inside())

    def serve(self) -> int:
        """Serve until the end."""
        self._loop.run_until_complete(self._serve())
        with contextlib.suppress(Exception):
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        if self._failure is not None:
            raise self._failure
        if self._host.ending:
            return self._host.leave(self._host.ending)
        return 0

    async def _serve(self) -> None:
        host = self._host
        self._done = asyncio.Event()
        limits = {"": host.spec.concurrency, **host.spec.groups}
        self._limits = {name: asyncio.Semaphore(limit) for name, limit in limits.items()}
        self._loop.add_reader(host.channel.sock.fileno(), self._on_channel)
        self._loop.add_reader(host._wake_read, self._on_wake)
        self._on_channel()
        await self._done.wait()
        if self._failure is not None:
            return
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))
        self._loop.remove_reader(host.channel.sock.fileno())
        self._loop.remove_reader(host._wake_read)

    def _on_channel(self) -> None:
        host = self._host
        while host.channel.waiting():
            message = host.channel.receive()
            if not host.on_message(message, self._start):
                for task in self._tasks.values():
                    task.cancel()
                self._end("")
                return
            if message is not None and message[0] == CANCEL:
                running = self._tasks.get(message[1])
                if running is not None:
                    running.cancel()

    def _on_wake(self) -> None:
        self._host.drain_wakes()
        self._host.start_ready(self._start)

    def _end(self, reason: str) -> None:
        self._host.ending = self._host.ending or reason
        if self._done is not None:
            self._done.set()

    def _fail(self, error: BaseException) -> None:
        """This process has lost results: the callers are told by its end, or never."""
        self._failure = self._failure or error
        self._end("")

    def _start(self, call: Call) -> None:
        host = self._host
        if host.ending:
            return
        host.executor.started[0] = max(host.executor.started[0], call.sequence + 1)
        task = self._loop.create_task(self._run(call))
        self._tasks[call.task[0]] = task
        task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(error)

    async def _run(self, call: Call) -> None:
        host = self._host
        header, task = call.header, call.task
        task_of_call.set(task[0])
        out = Results()
        begin = 0.0
        retry = None
        runner = host.runner_of_calls
        try:
            limit = self._limits.get(header.group)
            if limit is None:
                raise ValueError(f"{header.name}: no concurrency group {header.group!r} in this actor")
            async with limit:
                begin = time.perf_counter()
                if task[0] in host.cancelled:
                    raise asyncio.CancelledError
                args, kwargs = runner.arguments(task)
                host.committer.before_user_code()  # a method that is no coroutine keeps the loop from committing
                value = host.method(header)(*args, **kwargs)
                if inspect.isawaitable(value):
                    value = await value
                args = kwargs = None  # type: ignore[assignment]
                if header.num_returns == STREAMING:
                    await self._stream(call, value, out)
                else:
                    runner.store_value(header, task, value, out)
                value = None
        except asyncio.CancelledError:
            args = kwargs = None  # type: ignore[assignment]
            runner.fail(header, task, TaskCancelledError(task[0].hex()), out)
        except BaseException as error:
            args = kwargs = None  # type: ignore[assignment]
            try:
                runner.fail(header, task, error, out)
            except Retry as again:
                retry = again.task
            if isinstance(error, ActorExit):
                self._loop.call_soon(self._end, "exit_actor")
        host.cancelled.discard(task[0])
        self._tasks.pop(task[0], None)
        host.finished(call, out, time.perf_counter() - begin if begin else 0.0, retry)
        if not self._commit_planned:
            self._commit_planned = True
            self._loop.call_soon(self._commit)

    async def _stream(self, call: Call, value: Any, out: Results) -> None:
        stream = Stream(self._host.runner_of_calls, call.header, call.task, out)
        try:
            if hasattr(value, "__aiter__"):
                async for each in value:
                    stream.put(each)
                    each = None
                    while stream.reader_is_behind():
                        await asyncio.sleep(COMMIT_SECONDS)
            else:
                for each in value:
                    stream.put(each)
                    each = None
                    while stream.reader_is_behind():
                        await asyncio.sleep(COMMIT_SECONDS)
        except BaseException as error:
            stream.fail(error)
        stream.end()

    def _commit(self) -> None:
        """Commit what ended in this round of the loop; read the reply a little later, if nothing else comes."""
        self._commit_planned = False
        try:
            self._host.committer.commit(last=False)
            if not self._settle_planned:
                self._settle_planned = True
                self._loop.call_later(COMMIT_SOON_SECONDS, self._settle)
        except Fenced:
            self._end("")
        except Exception as error:
            self._fail(error)

    def _settle(self) -> None:
        self._settle_planned = False
        try:
            self._host.committer.commit(last=True)
            self._host.client.collect_quietly()
        except Fenced:
            self._end("")
        except Exception as error:
            self._fail(error)
