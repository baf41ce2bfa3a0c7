"""Start marks: tasks that may run once only (`max_retries=0`) get one before they run, in Redis.

One that has a mark already does not run: it is a second copy, or came again, and who set the mark answers for it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from rabbitry.exceptions import NodeDiedError
from rabbitry_broker.messages import Task, TaskHeader
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Commits, Settle
from rabbitry_workers.node.model.work import Held, Piece
from rabbitry_workers.node.outcome.doubts import lost_text


class StartMarks:
    """Loop thread only. A mark goes with its owner, or when the task is handed back.

    Args:
        node: in whose name they are set.
        settle: of deliveries.
        commits: of errors.
        is_alive: True if another node's lease has not ended.
        doubt: keeps a task that another node has started.
    """

    def __init__(
        self,
        node: Node,
        settle: Settle,
        commits: Commits,
        is_alive: Callable[[bytes], bool],
        doubt: Callable[[Held, bytes, TaskHeader, Task], None],
    ) -> None:
        self._node = node
        self._settle = settle
        self._commits = commits
        self._is_alive = is_alive
        self._doubt = doubt

    def mark(self, piece: Piece, tasks: list[Task]) -> list[Task]:
        """Mark tasks taken from the head of a piece, and return those that may run."""
        fresh = tasks[piece.marked :]
        piece.marked = max(0, piece.marked - len(tasks))
        if not fresh:
            return tasks
        piece.token = piece.token or secrets.token_bytes(8)
        marks = self._node.store.start_once(self._node.id, [task[0] for task in fresh], piece.token)
        allowed = tasks[: len(tasks) - len(fresh)]
        for task, before in zip(fresh, marks, strict=True):
            if not before:
                allowed.append(task)
            elif before == self._node.id:
                self._settle(piece.held, 1)  # a second copy; the first one is here and answers for it
            elif self._is_alive(before):
                self._doubt(piece.held, piece.header_bytes, piece.header, task)
            else:
                error = NodeDiedError(lost_text(piece.header, 1))
                self._commits.commit_error(piece.held, piece.header, task, error, outstanding=True)
        return allowed
