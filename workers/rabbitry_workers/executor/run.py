"""The executor: takes chunks of tasks from its agent, runs them, commits results.

HOT PATH (`benchmarks/`: all task workloads). User code runs on the main thread. Results gather and are committed when
the executor's queue is empty, `COMMIT_SECONDS` have passed or enough wait (see `commit`). An executor that is told to
host an actor becomes an actor host for the rest of its life (`rabbitry_workers.actors`).
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from rabbitry import current
from rabbitry.client import Client
from rabbitry.core.ports import Executing
from rabbitry.runtime_context import TaskContext, current_group, set_context, task_context, task_of_call
from rabbitry.util.node_address import set_node_address
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.functions import FunctionCache
from rabbitry_broker.messages import Task, decode_header
from rabbitry_broker.queues import open_publisher
from rabbitry_broker.queues.protocol import Publisher
from rabbitry_broker.runtime_environments import Record
from rabbitry_broker.store.results import NO_CONTINUATION
from rabbitry_workers.channel import (
    ACTOR,
    BLOCKED,
    BROKEN,
    BYE,
    EXIT,
    LEAVING,
    RETIRE,
    RUN,
    TAKEN,
    UNBLOCKED,
    BlockingChannel,
)
from rabbitry_workers.executor import children, ending, place, process, titles, traces
from rabbitry_workers.executor.ahead import ahead
from rabbitry_workers.executor.calls import CallRunner, ProcessCountsAsDead, Retry, TaskExited
from rabbitry_workers.executor.commit import Committer, Results
from rabbitry_workers.executor.continuing import Continuing
from rabbitry_workers.executor.environment import Environment
from rabbitry_workers.executor.interrupts import Interrupts
from rabbitry_workers.executor.lingering import LOOK_SECONDS, LOOK_SECONDS_MAX, is_wanted
from rabbitry_workers.executor.own_signals import own_signals
from rabbitry_workers.executor.progress import Progress
from rabbitry_workers.executor.publisher import AgentPublisher, CallsByAgent
from rabbitry_workers.executor.streams import flusher

COMMIT_SECONDS = 0.005

_clock = time.perf_counter


class Executor:
    """The one executor of this process. Everything runs on the main thread, except user threads' API calls."""

    progress: Progress
    started: Any
    revocations: Any
    environment: Environment

    def __init__(self, channel: BlockingChannel, config: dict[str, Any], *, ahead: bool = False) -> None:
        """Make all of it that is not its process's own; `begin` comes next.

        Args:
            channel: to the agent.
            config: what the agent says of it.
            ahead: it begins in a process that is forked from this one.
        """
        self.channel = channel
        self._revocations_seen = 0
        endpoint = Endpoint(
            store_url=config["store_url"],
            broker_url=config["broker_url"],
            secrets=tuple(config["secrets"]),
            prefix=config["prefix"],
        )
        holder: list[Client] = []
        interrupts = Interrupts()
        publisher: Publisher = AgentPublisher(channel)
        if endpoint.traits.executors_publish:
            to_queues = open_publisher(
                endpoint,
                on_new_queue=lambda queue: holder[0].store.announce_queue(queue),
                name="executor",
                patience=endpoint.patience,
                expected=True,  # the agent is connected: if Redis is away just now, it will come back
            )
            publisher = CallsByAgent(publisher, to_queues)
        self.client = Client(
            endpoint,
            publisher,
            client_id=config["client_id"],
            job=config["job"],
            detached_id=config["detached_id"],
            namespace=config["namespace"],
            slots=config["slots"],
            driver=True,
            object_ttl=config["object_ttl"],
            spill_url=config["spill_url"],
            memory_limit=config["memory_limit"],
            lease=config["client_lease"],
            session=config["session"],
            host=config["host"],
            executing=Executing(
                self._current_task,
                self._blocked,
                self._unblocked,
                interrupts,
                current_group,
                lambda: self.waits_in_vain(),
            ),
            traced=traces.of_client(config["tracing"]),
            events=config["events"],
            node=config["node_id"],
            ahead=ahead,
        )
        holder.append(self.client)
        self.client.job_priority = config["priority"]
        self.client.actors.directory.made = set()
        self.functions = FunctionCache(self.client.store.functions.get)
        self.node_id: bytes = config["node_id"]
        self._address: str = config["address"]
        self.committer = Committer(self.client.store, channel, self.client.id, self.node_id)
        self.continuing = self.committer.continuing = Continuing(self.client.signer)
        self.runner = CallRunner(self.client, self.committer, self.node_id, interrupts, as_ray=config["as_ray"])
        self.task_id: bytes | None = None
        self.leaving = ""
        self.hosting = False
        self.waits_in_vain: Callable[[], bool] = lambda: False  # tasks are interrupted by a signal; actors set it
        self.before_exit: Callable[[], None] | None = None
        self._gathered_since = 0.0
        self._abandon = False
        self._takes_due = 0
        self._refused: list[tuple[int, bytes, list[Task], list[str] | None]] = []  # by a revocation
        self._sequence = 0
        self._calls: dict[bytes, int] = {}
        self._gpus: list[str] | None = None
        self._continues = NO_CONTINUATION  # the note of the continuation that runs

    def prepare(self) -> None:
        """Make whatever else can be made ahead."""
        self.client.store.server.prepare()
        self.committer.prepare()

    def become(self, client_id: bytes) -> None:
        """Have this one, made ahead, be this client's from now on."""
        self.client.become(client_id)
        self.committer.become(client_id)

    def begin(self, progress: Progress) -> None:
        """Be the executor of this process, on its main thread.

        Args:
            progress: the page that it shares with its agent.
        """
        self.progress = progress
        self.started = progress.started
        self.revocations = progress.revocations
        self.runner.spares_children_of = progress.spares_children_of
        self.runner.begin()
        self.client.store.expect_server()  # the agent is connected: if Redis is away just now, it will come back
        current.set_client(self.client)
        set_node_address(self._address)
        self.environment = Environment()
        self._main_thread = threading.get_ident()
        own_signals({signal.SIGINT: self._on_interrupt, signal.SIGTERM: self._on_terminate})

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until the agent is gone or this executor is to end; returns the exit code."""
        channel = self.channel
        while True:
            if self.leaving or not channel.waiting():
                self.committer.commit(last=True, offer=self._offer())
                continuation = self.committer.take_continuation()
                if continuation is not None:
                    header_bytes, task, self._continues = continuation
                    self._run_chunk(self.committer.upto, header_bytes, [task], self._gpus)
                    self._continues = NO_CONTINUATION
                    continue
                self.client.collect_quietly()
                if self.leaving:
                    if is_wanted(self.client) and not self._linger():
                        return 0
                    self.client.deregister()
                    channel.send([BYE, self.leaving])
                    return self._wait_for_exit()
            if not channel.waiting():
                titles.show(titles.IDLE)
            message = channel.receive()
            if message is None or message[0] == EXIT:
                return 0
            word = message[0]
            if word == RUN:
                if not self._takes_due:
                    self._run_new_chunk(message[1], message[2], message[3], message[4])
            elif word == TAKEN:
                if message[1]:
                    self._revocations_seen += 1
                    self._run_refused(message[2])
                else:
                    self._takes_due -= 1
            elif word == RETIRE:
                if self.client.holds_nothing() and not is_wanted(self.client):
                    self.leaving = "retired"
            elif word == ACTOR:
                from rabbitry_workers.actors.host import ActorHost

                return ActorHost(self, message).run()

    def _linger(self) -> bool:
        """Take no work any more, but stay until nobody needs this process; False if it must go at once."""
        self.channel.send([LEAVING, self.leaving, self.started[0] - 1])
        pause = LOOK_SECONDS
        while is_wanted(self.client):
            readable, _, _ = select.select([self.channel.sock], [], [], pause)
            pause = min(2 * pause, LOOK_SECONDS_MAX)
            if readable:
                message = self.channel.receive()
                if message is None or message[0] == EXIT:
                    return False
        return True

    def _wait_for_exit(self) -> int:
        """Wait until the agent lets us go: what it sent meanwhile is given to others once our channel ends."""
        while True:
            message = self.channel.receive()
            if message is None or message[0] == EXIT:
                return 0

    def _offer(self) -> str:
        """Return the queue of which this executor would go on with a task, "" if it is to do what it is told."""
        if self.leaving or self._abandon or self._takes_due or self.revocations[0] != self._revocations_seen:
            return ""
        return self.continuing.offer()

    def _run_new_chunk(self, first: int, header_bytes: bytes, tasks: list[Task], gpus: list[str] | None) -> None:
        self.continuing.began(decode_header(header_bytes))
        self._gpus = gpus
        self._run_chunk(first, header_bytes, tasks, gpus)

    def _run_chunk(self, first: int, header_bytes: bytes, tasks: list[Task], gpus: list[str] | None) -> None:
        header = decode_header(header_bytes)
        committer = self.committer
        note = committer.times.note if header.events and self.client.events.on else None
        context = TaskContext(self.node_id, self.client.id, header, gpus)
        set_context(context)
        self.environment.show(header.resources, gpus)
        titles.show(header.name)
        self._abandon = False
        failure: BaseException | None = None
        function: Any = None
        try:
            function = context.function = self.functions.get(header.function)
        except BaseException as error:
            failure = error
        clock, started, run = _clock, self.started, self.runner.run
        if header.trace:
            run = traces.of_run(run)
        client = self.client
        large, viewed = client.store.large, client.store.large.viewed
        revocations = self.revocations
        for at, task in enumerate(tasks):
            before = started[0]
            started[0] = first + at + 1
            if revocations[0] != self._revocations_seen and first + at >= revocations[1]:
                # Back to what it was, not one less: what came before this was perhaps not begun either.
                started[0] = before
                self._refused.append((first + at, header_bytes, tasks[at:], gpus))
                break
            cancelled = revocations[2] and self.progress.is_cancelled(task[0])
            self._sequence = first + at
            committer.before_user_code()
            self.task_id = task[0]
            out = Results()
            retried = False
            begin = clock()
            try:
                if cancelled:
                    self.runner.fail(header, task, KeyboardInterrupt(), out)
                elif failure is None:
                    run(header, function, task, out)
                else:
                    self.runner.fail(header, task, failure, out)
            except Retry as retry:
                retried = True
                with committer.lock:
                    committer.retries.append((first + at, retry.task))
            except KeyboardInterrupt as error:
                # The interrupt came while the result was being stored: the cancellation wins.
                self.runner.fail(header, task, error, out)
            except TaskExited:
                self.task_id = None
                committer.commit(last=True)  # what ended before it: the agent must not blame the exit for it
                raise
            self.task_id = None
            end = clock()
            if viewed:
                large.settle_views()
            if client.children:
                client.children.pop(task[0], None)
            if client.lifetimes.waiting:
                client.settle()
            out.tasks = 1
            out.busy = end - begin
            out.function = header.function
            with committer.lock:
                if not committer.tasks:
                    self._gathered_since = begin
                committer.of(header.owner).merge(out)
                committer.tasks += 1
                committer.bytes += out.bytes
                committer.upto = first + at + 1
                if note is not None:
                    note(end, out.busy)
                if not retried and self._continues is not NO_CONTINUATION:
                    committer.ends = self._continues  # until it is committed: other tasks may end before that
            if committer.full() or end - self._gathered_since > COMMIT_SECONDS or header.max_retries == 0:
                committer.commit(last=header.max_retries == 0)
            if header.max_calls:
                calls = self._calls[header.function] = self._calls.get(header.function, 0) + 1
                if calls >= header.max_calls:
                    self.leaving = "max_calls"
                    break
            if self._abandon or self.leaving:
                break

    def _run_refused(self, limit: int) -> None:
        """Run what this process would not begin, but the agent believes it did: all below `limit` is ours.

        The agent may have looked at the page between our writing the number of a task and our noticing that it was
        revoked; on a busy machine that moment can last.
        """
        refused, self._refused = self._refused, []
        for first, header_bytes, tasks, gpus in refused:
            if first < limit:
                self._run_chunk(first, header_bytes, tasks[: limit - first], gpus)

    def whose_output(self) -> tuple[bytes | None, str]:
        """Return the task that runs in the calling thread, and its name: what it prints is marked with them."""
        context = task_context()
        return task_of_call.get() or self.task_id, "" if context is None else context.header.name

    # -- blocking, interrupting --------------------------------------------------------------------------------------

    def _current_task(self) -> bytes | None:
        """Return the task whose child it is that this thread submits; None between two."""
        if self.task_id is not None:
            return self.task_id
        call = task_of_call.get()
        # Of an async or threaded actor. What goes on in its background after a call's end submits nobody's children.
        return call if call in self.client.children else None

    def _blocked(self, in_wait: bool) -> None:
        """Before a `get` or `wait` blocks: others may wait for what finished earlier, and for our CPU."""
        if self.hosting or threading.get_ident() != self._main_thread or self.task_id is None:
            return
        if flusher.pending:
            # The commit takes what is printed for that of an ended task, and ends its line; this one goes on with it.
            flusher.pending = False
            flusher.flush()
        # A cancellation must not interrupt the commit half way.
        task_id, self.task_id = self.task_id, None
        self.committer.commit(last=True)
        self.task_id = task_id
        if task_id is not None and self.progress.is_cancelled(task_id):
            raise KeyboardInterrupt
        self._abandon = True
        self._takes_due += 1
        self.channel.send([BLOCKED, self._sequence, in_wait])

    def _unblocked(self) -> None:
        if not self.hosting and threading.get_ident() == self._main_thread and self.task_id is not None:
            self.channel.send([UNBLOCKED])

    def _on_interrupt(self, *_: Any) -> None:
        if self.task_id is not None and self.progress.is_cancelled(self.task_id):
            self.runner.interrupts.arrived()

    def _on_terminate(self, *_: Any) -> None:
        if self.task_id is not None and not self.hosting and not self.runner.interrupts.held:
            raise SystemExit(1)  # so that the task's `finally` blocks run
        ending.run_exit_handlers(self.before_exit)
        os._exit(1)


def _breakpoint(*_: Any, **__: Any) -> None:
    """What `breakpoint()` does in tasks and actors."""
    from rabbitry import debugging

    debugging.stop_at(sys._getframe(1))


def _agent_is_gone() -> None:
    """End at once, as if killed: what runs here is run again elsewhere, or fails like in a crash."""
    children.end(children.descendants(os.getpid()))
    os._exit(1)


def main(sock: Any, page: int, config: dict[str, Any]) -> int:
    """Body of a forked executor."""
    made, entry = ahead.take(config)
    channel = BlockingChannel() if made is None else made.channel
    channel.sock, channel.on_lost = sock, _agent_is_gone
    try:
        setup = process.enter(config, entry=entry)
        titles.begin(as_ray=config["as_ray"])
    except Exception as error:
        channel.send([BROKEN, process.as_text(error)])
        return 1
    place.settle(config["files"], setup.path)
    executor = made or Executor(channel, config)
    if made is not None:
        made.become(config["client_id"])
    executor.begin(Progress(page))
    if not os.environ.get("PYTHONBREAKPOINT"):
        sys.breakpointhook = _breakpoint
    flusher.tail, flusher.whose = executor.progress, executor.whose_output
    try:
        executor.client.environments.inherit(
            config["env"], Record(setup.env, tuple(bytes.fromhex(each) for each in setup.holds))
        )
        try:
            process.run_hook(setup, executor.functions.get)
        except BaseException as error:
            text = "".join(traceback.format_exception(error))
            channel.send([BROKEN, f"worker_process_setup_hook failed: {process.as_text(error)}\n{text}"])
            return 1
        try:
            code = executor.run()
        except TaskExited as error:
            code = error.code
        except ProcessCountsAsDead:
            return 1  # its tasks are run again elsewhere, or fail, like those of a crash
        ending.run_exit_handlers(executor.before_exit)
        return code
    finally:
        executor.client.store.close()  # also leaves the shared-memory session: what was kept for reuse goes
