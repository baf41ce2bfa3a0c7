"""Cancelling tasks, wherever they are on this node.

| where the task is | what is done |
|---|---|
| not here (yet) | its id is kept: if it comes, it fails without having run |
| it waits in a lane | it fails without having run |
| sent to an executor, not begun | its error is committed, and the executor is told to skip it |
| running | the executor is interrupted, or killed by `force` |

A task may begin just while it is being cancelled, and what an executor has not begun may go to another one: so those
that were cancelled unbegun stay marked until the executor has nothing in hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from warren.exceptions import TaskCancelledError, store_error
from warren_broker import records
from warren_broker.messages import Completion, Task, TaskHeader, encode_completion
from warren_workers.executor.calls import result_ids

if TYPE_CHECKING:
    from warren_workers.node.agent import Agent
    from warren_workers.node.executors import Chunk, ExecutorProcess
    from warren_workers.node.intake import Held

CANCELS_KEPT: Final = 10000


class Cancelling:
    """Part of the agent. Loop thread only.

    Attributes:
        known: ids of cancelled tasks that were not here, in the order of their cancelling.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.known: dict[bytes, None] = {}

    def start(self) -> None:
        """Learn what was cancelled lately: it may still be on a queue."""
        store, keys = self._agent.store, self._agent.keys
        self.known.update(dict.fromkeys(store.call(b"ZRANGEBYSCORE", keys.cancelled, store.time(), b"+inf") or ()))

    def without_cancelled(
        self, held: Held, header: TaskHeader, tasks: list[Task], *, outstanding: bool = False
    ) -> list[Task]:
        """Return the tasks that were not cancelled; the others fail. `outstanding`: their delivery counts them."""
        kept = []
        for task in tasks:
            if task[0] in self.known:
                error = TaskCancelledError(task[0].hex())
                self._agent.commit_error(held, header, task, error, outstanding=outstanding)
            else:
                kept.append(task)
        return kept

    def cancel(self, task_id: bytes, client: bytes, *, force: bool) -> None:
        """Cancel a task.

        Args:
            task_id: which.
            client: who asked; it is told that the task's end will be committed here.
            force: kill the executor that runs it.
        """
        agent = self._agent
        for executor in list(agent.executors.values()):
            for chunk in executor.chunks:
                for at, task in enumerate(chunk.tasks):
                    if task[0] == task_id:
                        self.cancel_sent(executor, chunk, chunk.first + at, task, client, force=force)
                        return
        for lane in agent.lanes.values():
            for piece in lane.all_pieces():
                for task in piece.tasks:
                    if task[0] == task_id:
                        piece.tasks.remove(task)
                        lane.waiting -= 1
                        error = TaskCancelledError(task_id.hex())
                        agent.commit_error(piece.held, piece.header, task, error, outstanding=True)
                        return
        while len(self.known) > CANCELS_KEPT:
            self.known.pop(next(iter(self.known)))
        self.known[task_id] = None

    def cancel_sent(
        self, executor: ExecutorProcess, chunk: Chunk, sequence: int, task: Task, client: bytes, *, force: bool
    ) -> None:
        """Cancel a task that was sent to an executor."""
        agent = self._agent
        if executor.actor:
            self._claim(client, task[0])
            agent.actors.cancel(executor, task[0])
        elif executor.progress.started[0] - 1 == sequence:
            self._claim(client, task[0])
            self._interrupt(executor, task[0], force=force)
        else:
            # Not begun (or done and not reported): the first result stands, whichever it is.
            executor.progress.cancel(task[0])
            executor.dropped[task[0]] = force
            items: list[bytes] = []
            record = records.ERROR + store_error(TaskCancelledError(task[0].hex()))
            for key in result_ids(task[0], chunk.header.num_returns):
                items += (key, record)
            agent.commit(chunk.held, chunk.header, items, [])

    def interrupt_dropped(self, executor: ExecutorProcess) -> None:
        """A task may have begun while it was being cancelled: it is interrupted after all."""
        if not executor.chunks:
            executor.dropped.clear()
            return
        running = executor.running()
        if running is None:
            return
        chunk, at = running
        task_id = chunk.tasks[at][0]
        if task_id in executor.dropped and task_id not in executor.cancelled:
            self._interrupt(executor, task_id, force=executor.dropped[task_id])

    def _claim(self, client: bytes, task_id: bytes) -> None:
        note = Completion(b"", 0, 0.0, [], [task_id], "cancel-claimed")
        self._agent.store.tell(client, encode_completion(self._agent.signer, client, note))

    @staticmethod
    def _interrupt(executor: ExecutorProcess, task_id: bytes, *, force: bool) -> None:
        executor.cancelled.add(task_id)
        if force:
            executor.kill()
        else:
            executor.interrupt(task_id)
