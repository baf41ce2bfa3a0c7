"""Tasks that executors went on with by themselves (`warren_workers.executor.continuing`), as their agent sees them.

    delivery --task--> executor --result releases--> continuation --result releases--> continuation ...
       ^                                                  |                                 |
       '------- outstanding until all of them are settled, then their specs are forgotten --'

A continuation came by no delivery of its own. It holds the delivery that began its streak: if this node dies, that one
comes again, its result stands, and what it released is released again, since the specs are still there.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from warren_broker.messages import as_task, decode_header
from warren_workers.node.executors import Chunk, ExecutorProcess
from warren_workers.node.intake import Held, Piece

if TYPE_CHECKING:
    from warren_workers.node.agent import Agent


class Continuations:
    """Part of the agent. Loop thread only."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def adopt(self, executor: ExecutorProcess, sequence: int, released_by: Held, fields: list[Any]) -> None:
        """Take note of what an executor runs now. HOT PATH.

        Args:
            executor: which.
            sequence: the task's number there.
            released_by: what the task that released it belongs to.
            fields: (spec key, queue, tag and suffix of the releasing object, header bytes, task).
        """
        spec, queue, tag, suffix, header_bytes, task_fields = fields
        root = released_by.root or released_by
        held = Held(None, queue)
        held.root = root
        held.outstanding = 1
        root.outstanding += 1
        root.launched.append((spec, b"", queue, 0, tag, suffix))
        task = as_task(task_fields)
        header = decode_header(header_bytes)
        executor.chunks.appendleft(Chunk(Piece(held, header_bytes, header, deque()), sequence, [task]))
        if self._agent.cancelled and task[0] in self._agent.cancelled:
            self._agent.cancel_held(executor, executor.chunks[0], sequence, task, header.owner, force=False)

    def settled(self, held: Held) -> None:
        """Nothing of a continuation is outstanding."""
        root, held.root = held.root, None
        if root is not None:
            self._agent.settle(root, 1)
