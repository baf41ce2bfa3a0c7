"""Completions: what executors say is committed. HOT PATH: `on_done`; its cost is per chunk, not per task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rabbitry_broker.messages import Task, as_task
from rabbitry_workers.node.dispatch.pool import ExecutorPool
from rabbitry_workers.node.dispatch.run_times import RunTimes
from rabbitry_workers.node.dispatch.turns import Turns
from rabbitry_workers.node.model.lanes import Executor, State
from rabbitry_workers.node.model.life import Life
from rabbitry_workers.node.model.ports import Publishes, Serve, Settle, TellsEnds
from rabbitry_workers.node.model.work import Chunk, Held


class Completions:
    """Loop thread only.

    Args:
        settle: of deliveries.
        publishing: of what results released.
        run_times: of functions.
        turns: knows which job is next.
        pool: to which executors go back.
        serve: gives a lane's tasks to executors.
        gone_on: takes note of what an executor goes on with by itself.
        retry: tries a task again whose exception asks for it.
        life: of the node.
        events: records what ended; None for nothing.
    """

    def __init__(
        self,
        settle: Settle,
        publishing: Publishes,
        run_times: RunTimes,
        turns: Turns,
        pool: ExecutorPool,
        serve: Serve,
        gone_on: Callable[[Executor, int, list[Any]], None],
        retry: Callable[[Chunk, Task], None],
        life: Life,
        events: TellsEnds | None = None,
    ) -> None:
        self._events = events
        self._settle = settle
        self._publishing = publishing
        self._note = run_times.note
        self._turns = turns
        self._pool = pool
        self._serve = serve
        self._gone_on = gone_on
        self._retry = retry
        self._life = life

    def on_done(
        self,
        executor: Executor,
        upto: int,
        tasks: int,
        busy: float,
        retries: list[tuple[int, Task]],
        dependants: list[Any],
        continuation: list[Any] | None,
        since: float = 0.0,
        times: bytes = b"",
        failures: list[Any] | None = None,
    ) -> None:
        """Everything below `upto` is committed. HOT PATH.

        Args:
            executor: which says so.
            upto: sequence number of the first task that is not.
            tasks: how many they are.
            busy: seconds that they took together.
            retries: (sequence number, task) of those that are to be tried again.
            dependants: what their results released.
            continuation: one of those, with which the executor goes on.
            since: what `times` counts from.
            times: when those tasks ended whose events are recorded, and how long each took.
            failures: which of them failed, and how.
        """
        settle = self._settle
        chunks = executor.chunks
        helds: list[Held] = []
        retried: list[tuple[Chunk, Task]] = []
        for sequence, task in retries:
            for chunk in chunks:
                if chunk.first <= sequence < chunk.end:
                    retried.append((chunk, as_task(task)))
        for chunk, _ in retried:
            chunk.held.outstanding += 1
        settled: list[tuple[Held, int]] = []
        noted = False
        lane, shared = executor.lane, self._turns.is_shared
        events, at = self._events, 0
        while chunks and chunks[0].first < upto:
            chunk = chunks[0]
            if tasks:
                self._note(chunk.header.function, busy / tasks)
            if chunk.end <= upto:
                chunks.popleft()
                count = chunk.end - chunk.first
                ended = chunk.tasks
            else:
                count = upto - chunk.first
                ended = chunk.tasks[:count]
                del chunk.tasks[:count]
                chunk.first = upto
            if chunk.clears_note:
                noted = True
                if not retried:
                    chunk.held.continues = None
            if shared and lane is not None and tasks:
                self._turns.ended(lane, chunk, count, busy * count / tasks)
            settled.append((chunk.held, count))
            helds.append(chunk.held)
            if events is not None and chunk.header.events:
                events.done(executor, chunk, ended, since, times[at : at + 8 * len(ended)])
                at += 8 * len(ended)
        if failures and events is not None:
            events.failed_there(executor, failures)
        if dependants:
            self._publishing.publish_dependants(helds, [tuple(each) for each in dependants], noted=noted)
        if continuation is not None:
            self._gone_on(executor, upto, continuation)
        for held, count in settled:
            settle(held, count)
        for chunk, task in retried:
            self._retry(chunk, task)
        if not chunks and executor.cancelled:
            executor.cancelled.clear()
        if executor.leaving and not chunks:
            self._pool.release(executor)
            executor.end()
            if lane is not None:
                self._serve(lane)
        elif lane is not None and executor.state is State.LEASED:
            if lane.waiting and (chunks or not self._turns.gives_way(lane)):
                self._serve(lane)
            if not chunks and executor.state is State.LEASED:
                self._pool.end_lease(executor)
        self._life.stop_if_drained()
