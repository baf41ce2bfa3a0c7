"""How an actor's calls run: serially, on threads, or on asyncio loops (see `loops`)."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rabbitry.core.service.thread import Step
from rabbitry.runtime_context import task_of_call
from rabbitry_broker.messages import STREAMING
from rabbitry_workers.actors.host import ActorHost, Call
from rabbitry_workers.actors.loops import SYSTEM_GROUP, AsyncRunner
from rabbitry_workers.channel import BYE
from rabbitry_workers.executor import titles
from rabbitry_workers.executor.commit import Results
from rabbitry_workers.executor.streams import flusher

COMMIT_SECONDS = 0.005


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
        self._shown = ""  # the method that the title of the process names
        host.on_exit = self._ended
        host.interrupt_waits()
        host.client.serve_too(
            Step(
                "cancelling what a cancelled call has submitted",
                host.cancel_children_of_running,
                when=host.has_new_cancellations,
            )
        )

    def _ended(self) -> None:
        """The actor is to end. Any thread."""
        if threading.current_thread() is not threading.main_thread():
            # The main thread may sleep until the agent says something; if it runs a call, that comes to its end first.
            self._host.channel.send([BYE, self._host.ending])

    def construct(self, cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the constructor."""
        return cls(*args, **kwargs)

    def serve(self) -> int:
        """Serve until the end."""
        host = self._host
        while True:
            if host.ending:
                return host.leave(host.ending)
            if not host.channel.waiting():
                host.committer.commit(last=True)
                host.client.collect_quietly()
                if self._shown and not host.channel.waiting():
                    self._shown = ""
                    titles.show(host.spec.short_name)
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
        elif committer.tasks and (
            call.header.num_returns == STREAMING or self._means.get(method, 1.0) > COMMIT_SECONDS
        ):
            # The state cannot be committed while a call changes it, so what is finished goes before a slow call, and
            # before one that commits items while it runs.
            committer.commit(last=True)
        begin = time.monotonic()
        if not committer.tasks:
            self._since = begin
        if method != self._shown:
            self._shown = method
            titles.show(f"{host.spec.short_name}.{method}")
        host.perform(call)
        executor.task_id = None
        if host.client.children:
            host.client.children.pop(call.task[0], None)  # it has ended: nobody can cancel it with what it submitted
        if host.durable is not None:
            self._means[method] = 0.5 * (self._means.get(method, 0.0) + time.monotonic() - begin)
        if host.ending:
            return
        if committer.full() or time.monotonic() - self._since > COMMIT_SECONDS:
            committer.commit(last=False)


class ThreadRunner:
    """Calls run on thread pools, one a concurrency group. The main thread receives and commits."""

    def __init__(self, host: ActorHost) -> None:
        self._host = host
        flusher.concurrent = True
        host.runner_wakes = True
        self._pools = {
            name: ThreadPoolExecutor(limit, thread_name_prefix=f"rabbitry-{name}")
            for name, limit in host.spec.groups.items()
        }
        self._pools[""] = ThreadPoolExecutor(host.spec.concurrency, thread_name_prefix="rabbitry-call")
        # Its thread starts with its first call.
        self._pools.setdefault(SYSTEM_GROUP, ThreadPoolExecutor(1, thread_name_prefix="rabbitry-system"))
        self._running = 0
        self._lock = threading.Lock()
        self._failure: BaseException | None = None  # of a thread that could not finish its call
        self._ends_at = 0.0  # what runs then is left to the end of the process
        host.on_exit = self._ended
        host.interrupt_waits()
        host.on_cancel = lambda task_id: host.end_waits()

    def _ended(self) -> None:
        """The actor is to end. Any thread."""
        patience = self._host.patience_at_end
        self._ends_at = time.monotonic() + patience
        timer = threading.Timer(patience, self._host.wake)
        timer.daemon = True
        timer.start()
        self._host.wake()

    def construct(self, cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the constructor."""
        return cls(*args, **kwargs)

    def serve(self) -> int:
        """Serve until the end."""
        host = self._host
        while True:
            if self._failure is not None:
                raise self._failure
            if not host.channel.waiting():
                host.committer.commit(last=True)
                host.client.collect_quietly()
            if host.ending and (not self._running or time.monotonic() >= self._ends_at):
                return host.leave(host.ending)
            if not host.receive(wait=True, start=self._start):
                return 0

    def _start(self, call: Call) -> None:
        host = self._host
        with self._lock:
            self._running += 1
        host.executor.started[0] = max(host.executor.started[0], call.sequence + 1)
        pool = self._pools.get(call.header.group)
        if pool is None:
            host.refuse_group(call)
            with self._lock:
                self._running -= 1
            return
        pool.submit(self._run, call)

    def _run(self, call: Call) -> None:
        token = task_of_call.set(call.task[0])
        host = self._host
        try:
            if not host.ending:
                host.client.children[call.task[0]] = []  # what it submits, until `finished`
                host.perform(call)
            elif host.refuse_after_end(call, out := Results()):
                host.finished(call, out, 0.0)
        except BaseException as error:
            self._failure = error  # its caller is told by this process's end, or never
        finally:
            task_of_call.reset(token)
            with self._lock:
                self._running -= 1
            host.wake()
