"""The executor: takes chunks of tasks from its agent, runs them, commits results.

HOT PATH (`benchmarks/`: all task workloads). User code runs on the main thread. Results gather and are committed when
the executor's queue is empty, `COMMIT_SECONDS` have passed or enough wait (see `commit`). An executor that is told to
host an actor becomes an actor host for the rest of its life (`warren_workers.actors`).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

from warren import current
from warren.client import Client
from warren.runtime_context import TaskContext, set_context
from warren_broker.endpoint import Endpoint
from warren_broker.functions import FunctionCache
from warren_broker.messages import Task, decode_header
from warren_broker.queues import open_publisher
from warren_broker.store.object_store import NO_CONTINUATION
from warren_workers.channel import (
    ACTOR,
    BLOCKED,
    BYE,
    EXIT,
    RETIRE,
    RUN,
    TAKEN,
    UNBLOCKED,
    BlockingChannel,
)
from warren_workers.executor.calls import CallRunner, ProcessCountsAsDead, Retry
from warren_workers.executor.commit import Committer, Results
from warren_workers.executor.continuing import Continuing
from warren_workers.executor.progress import Progress
from warren_workers.executor.publisher import AgentPublisher

COMMIT_SECONDS = 0.005

_clock = time.perf_counter


class Executor:
    """The one executor of this process. Everything runs on the main thread, except user threads' API calls."""

    def __init__(self, channel: BlockingChannel, progress: Progress, config: dict[str, Any]) -> None:
        self.channel = channel
        self.progress = progress
        self.started = progress.started
        self.revocations = progress.revocations
        self._revocations_seen = 0
        endpoint = Endpoint(
            store_url=config["store_url"],
            broker_url=config["broker_url"],
            secrets=tuple(config["secrets"]),
            prefix=config["prefix"],
        )
        holder: list[Client] = []
        publisher = (
            open_publisher(endpoint, on_new_queue=lambda queue: holder[0].store.announce_queue(queue), name="executor")
            if endpoint.embedded
            else AgentPublisher(channel)
        )
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
        )
        holder.append(self.client)
        self.client.job_env = config["job_env"]
        self.client.store.expect_server()  # the agent is connected: if Redis is away just now, it will come back
        self.client.executing = True
        self.client.block_hooks = (self._blocked, self._unblocked)
        self.client.current_task = lambda: self.task_id
        current.set_client(self.client)
        self.functions = FunctionCache(self.client.store.get_function)
        self.node_id: bytes = config["node_id"]
        self.committer = Committer(self.client.store, channel, self.client.id, self.node_id)
        self.continuing = self.committer.continuing = Continuing(self.client.signer)
        self.runner = CallRunner(self.client, self.committer, self.node_id)
        self.task_id: bytes | None = None
        self.leaving = ""
        self.hosting = False
        self._main_thread = threading.get_ident()
        self._gathered_since = 0.0
        self._abandon = False
        self._takes_due = 0
        self._refused: list[tuple[int, bytes, list[Task], list[str] | None]] = []  # by a revocation
        self._sequence = 0
        self._calls: dict[bytes, int] = {}
        self._gpus: list[str] | None = None
        self._continues = NO_CONTINUATION  # the note of the continuation that runs
        self._environment_of_gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
        signal.signal(signal.SIGINT, self._on_interrupt)

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
                    self.client.deregister()
                    channel.send([BYE, self.leaving])
                    return self._wait_for_exit()
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
                if self.client.holds_nothing():
                    self.leaving = "retired"
            elif word == ACTOR:
                from warren_workers.actors.host import ActorHost

                return ActorHost(self, message).run()

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
        context = TaskContext(self.node_id, self.client.id, header, gpus)
        set_context(context)
        self.set_gpus(gpus)
        self._abandon = False
        failure: BaseException | None = None
        function: Any = None
        try:
            function = context.function = self.functions.get(header.function)
        except BaseException as error:
            failure = error
        clock, started, run = _clock, self.started, self.runner.run
        client = self.client
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
            self.task_id = None
            end = clock()
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

    def set_gpus(self, gpus: list[str] | None) -> None:
        """Show the process the GPUs that its grant holds."""
        if gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        elif self._environment_of_gpu is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = self._environment_of_gpu

    # -- blocking, interrupting --------------------------------------------------------------------------------------

    def _blocked(self) -> None:
        """Before a `get` or `wait` blocks: others may wait for what finished earlier, and for our CPU."""
        if self.hosting or threading.get_ident() != self._main_thread or self.task_id is None:
            return
        # A cancellation must not interrupt the commit half way.
        task_id, self.task_id = self.task_id, None
        self.committer.commit(last=True)
        self.task_id = task_id
        if task_id is not None and self.progress.is_cancelled(task_id):
            raise KeyboardInterrupt
        self._abandon = True
        self._takes_due += 1
        self.channel.send([BLOCKED, self._sequence])

    def _unblocked(self) -> None:
        if not self.hosting and threading.get_ident() == self._main_thread and self.task_id is not None:
            self.channel.send([UNBLOCKED])

    def _on_interrupt(self, *_: Any) -> None:
        if self.task_id is not None and self.progress.is_cancelled(self.task_id):
            self.runner.interrupts.arrived()


def main(sock: Any, page: int, config: dict[str, Any]) -> int:
    """Body of a forked executor."""
    os.environ.update(config["env"])
    sys.path[:] = config["sys_path"] + [path for path in sys.path if path not in config["sys_path"]]
    if config["cwd"] and os.path.isdir(config["cwd"]):
        os.chdir(config["cwd"])
    if config["as_ray"]:
        from warren.as_ray import install

        install(children=False)
    executor = Executor(BlockingChannel(sock), Progress(page), config)
    try:
        return executor.run()
    except ProcessCountsAsDead:
        return 1  # its tasks are run again elsewhere, or fail, like those of a crash
    finally:
        executor.client.store.close()  # also leaves the shared-memory session: what was kept for reuse goes
