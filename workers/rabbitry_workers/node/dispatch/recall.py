"""Taking tasks back from executors that have not begun them.

An executor gets quick tasks by the chunk, and one of them may turn out slow. What stands behind it must not wait: other
executors or nodes may be idle. The executor cannot be asked, since user code keeps it busy; so it is *revoked* on
the page that both share:

    running --same task for STUCK_SECONDS--> revoked --next look--> taken back, TAKEN sent

From the revocation on the executor begins nothing but what it had begun, until it reads TAKEN. Between the two lies a
round of the agent's service (50 ms), far longer than a processor takes to show one process what another wrote: what
had not begun then is in nobody's hands but ours. Where the two still disagree (the executor lost the processor just
between writing what it begins and noticing the revocation), what TAKEN says counts: all below its number is the
executor's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

from rabbitry_broker.messages import Task
from rabbitry_workers.channel import TAKEN
from rabbitry_workers.node.dispatch.pool import ExecutorPool
from rabbitry_workers.node.model.lanes import Executor, Lanes, State
from rabbitry_workers.node.model.ports import Settle
from rabbitry_workers.node.model.work import STUCK_SECONDS, Chunk


class Recall:
    """Loop thread only.

    Args:
        lanes: to which tasks go back.
        executors: all that are alive, by the process's number.
        settle: of deliveries.
        pool: of executors; its dispatcher hands out what came back.
        interrupt_dropped: looks after an executor that was told to skip tasks.
    """

    def __init__(
        self,
        lanes: Lanes,
        executors: Mapping[int, Executor],
        settle: Settle,
        pool: ExecutorPool,
        interrupt_dropped: Callable[[Executor], None],
    ) -> None:
        self._lanes = lanes
        self._executors = executors
        self._settle = settle
        self._pool = pool
        self._interrupt_dropped = interrupt_dropped

    def run_once(self) -> None:
        """Look at what every executor runs, and recall what is stuck behind it."""
        now = time.monotonic()
        for executor in list(self._executors.values()):
            if executor.dropped:
                self._interrupt_dropped(executor)
            if executor.revoked:
                self._finish(executor)
            elif executor.chunks and executor.state is State.LEASED:
                started = executor.progress.started[0]
                if started != executor.seen_sequence:
                    executor.seen_sequence = started
                    executor.seen_at = now
                elif now - executor.seen_at > STUCK_SECONDS and executor.chunks[-1].end > started > 0:
                    executor.revoked = True
                    executor.revoke()
            else:
                executor.seen_at = now  # what it is given next has just begun, whatever its number

    def _finish(self, executor: Executor) -> None:
        executor.revoked = False
        if executor.state is State.ACTOR:
            return
        begun = executor.progress.started[0]
        self.take_back(executor, begun - 1)
        executor.send([TAKEN, 1, begun])
        lane = executor.lane
        if not executor.chunks and executor.state is State.LEASED:
            self._pool.end_lease(executor)
        if lane is not None:
            self._pool.dispatcher.serve(lane)
        self._pool.dispatcher.serve_all()

    def take_back(self, executor: Executor, current: int) -> None:
        """Put what an executor has not begun back into its lane.

        Args:
            executor: it will not begin it, for certain.
            current: sequence number of the last task that it began.
        """
        kept: deque[Chunk] = deque()
        for chunk in reversed(executor.chunks):
            keep = max(0, current + 1 - chunk.first)
            rest = chunk.tasks[keep:]
            if rest:
                self.put_back_unstarted(executor, chunk, rest)
                del chunk.tasks[keep:]
                chunk.end = chunk.first + keep
            if chunk.tasks:
                kept.appendleft(chunk)
        executor.chunks = kept

    def put_back_unstarted(self, executor: Executor, chunk: Chunk, tasks: list[Task]) -> None:
        """Put what the executor will not begin of a chunk back to its lane, but for what is cancelled."""
        left = [task for task in tasks if task[0] not in executor.dropped]
        if left:
            self._lanes.put_back(chunk.held, chunk.header_bytes, chunk.header, left, marked=len(left))
        if len(left) < len(tasks):
            self._settle(chunk.held, len(tasks) - len(left))
