"""Executors whose process has ended: what they had is run again, or fails."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Final

from rabbitry.exceptions import OutOfMemoryError, TaskCancelledError, WorkerCrashedError
from rabbitry_broker import retry_policy
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.messages import Task
from rabbitry_workers.node.dispatch.nesting import Nesting
from rabbitry_workers.node.dispatch.pool import ExecutorPool, Serves
from rabbitry_workers.node.model.lanes import Executor, Lanes
from rabbitry_workers.node.model.life import Life
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Commits, TakesBack
from rabbitry_workers.node.model.work import Chunk
from rabbitry_workers.node.services.output import OutputReader

AGAIN_SECONDS: Final = 1.0  # until the next try to say what became of a task whose executor died

log = logging.getLogger("rabbitry.node")


class Crashes:
    """Loop thread only.

    Args:
        node: whose loop it is.
        lanes: to which tasks go back.
        executors: all that are alive, by the process's number.
        pool: of executors.
        nesting: knows which of them wait.
        recall: puts back what they had not begun.
        commits: of errors.
        dispatcher: hands out what came back.
        life: of the node.
        actor_gone: takes in the end of an actor's host.
        client_gone: an executor was a client too.
        output: of executors: what one that died printed last.

    Attributes:
        on_lost: told of each task that is run again: executor, chunk, task, why.
        on_ended: told of each executor that has ended, and why.
    """

    def __init__(
        self,
        node: Node,
        lanes: Lanes,
        executors: Mapping[int, Executor],
        pool: ExecutorPool,
        nesting: Nesting,
        recall: TakesBack,
        commits: Commits,
        dispatcher: Serves,
        life: Life,
        actor_gone: Callable[[Executor], None],
        client_gone: Callable[[Executor], None],
        output: OutputReader,
    ) -> None:
        self._node = node
        self._lanes = lanes
        self._executors = executors
        self._pool = pool
        self._nesting = nesting
        self._recall = recall
        self._commits = commits
        self._dispatcher = dispatcher
        self._life = life
        self._actor_gone = actor_gone
        self._client_gone = client_gone
        self._output = output
        self.on_lost: Callable[[Executor, Chunk, Task, str], object] = lambda *_: None
        self.on_ended: Callable[[Executor, str], object] = lambda *_: None

    def on_exited(self, pid: int, status: int) -> None:
        """The template says that a process has ended."""
        executor = self._executors.get(pid)
        if executor is None:
            return
        if os.WIFSIGNALED(status):
            executor.leaving = executor.leaving or f"killed by signal {os.WTERMSIG(status)}"
        executor.on_exit()

    def on_gone(self, executor: Executor) -> None:
        """Its channel ended: run again, or fail, what it had."""
        running = executor.progress.started[0] - 1
        lane = executor.lane
        for tell in (self._output.ended, self._tell_ended, self._nesting.ends, self._client_gone, self._pool.gone):
            self._tell(tell, executor)
        if executor.actor:
            self._tell(self._actor_gone, executor)
        self._pool.release(executor)
        executor.close()
        for chunk in reversed(executor.chunks):
            clean: list[Task] = []
            for at, task in enumerate(chunk.tasks):
                sequence = chunk.first + at
                if sequence > running:
                    clean.append(task)
                else:
                    self._on_lost_task(executor, chunk, task, culprit=sequence == running)
            if clean:
                self._recall.put_back_unstarted(executor, chunk, clean)
        executor.chunks.clear()
        if lane is not None:
            self._dispatcher.serve(lane)
        self._dispatcher.serve_all()
        self._pool.forget(executor.key)
        self._life.stop_if_drained()

    def _tell_ended(self, executor: Executor) -> None:
        self.on_ended(executor, executor.dismissed or executor.leaving or "the process ended by itself")

    @staticmethod
    def _tell(who: Callable[[Executor], object], executor: Executor) -> None:
        """Tell one part of an end; whatever comes of that, what the executor held has to be given back."""
        try:
            who(executor)
        except Exception:
            log.exception("taking in the end of process %d failed", executor.pid)

    def _on_lost_task(self, executor: Executor, chunk: Chunk, task: Task, *, culprit: bool) -> None:
        try:
            self._retry_or_fail(executor, chunk, task, culprit=culprit)
        except RabbitryBrokerError as error:
            log.warning("cannot yet tell what became of %s: %s", chunk.header.name, error)
            self._node.loop.call_later(
                AGAIN_SECONDS, lambda: self._on_lost_task(executor, chunk, task, culprit=culprit)
            )

    def _retry_or_fail(self, executor: Executor, chunk: Chunk, task: Task, *, culprit: bool) -> None:
        header = chunk.header
        attempts = retry_policy.after_crash(header.max_retries, task[2], running=culprit)
        if task[0] in executor.cancelled or task[0] in executor.dropped:
            error = TaskCancelledError(task[0].hex(), f"Its worker process {executor.pid} was ended.")
            self._commits.commit_error(chunk.held, header, task, error, outstanding=True)
        elif attempts is None:
            text = f"The worker process {executor.pid} died while it ran {header.name}"
            said = self._output.last_words(executor, task[0]) if culprit else ""
            crash: Exception = WorkerCrashedError(f"{text}.{said}")
            if culprit and executor.over_memory:
                crash = OutOfMemoryError(f"{text}: {executor.over_memory}.{said}")
            self._commits.commit_error(chunk.held, header, task, crash, outstanding=True)
        else:
            if culprit:
                self.on_lost(
                    executor, chunk, task, f"The worker process {executor.pid} died while it ran {header.name}."
                )
            # Alone, so that a task which kills its process takes no innocent ones with it again.
            again: Task = (task[0], task[1], attempts, *task[3:])
            self._lanes.put_back(chunk.held, chunk.header_bytes, header, [again], marked=1)
