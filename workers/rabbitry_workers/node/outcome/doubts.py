"""Doubts: tasks that may run once only, and that another node, which lives, has marked as started.

in doubt --its result stands---> settled
--that node is gone---> NodeDiedError: it may have run
--its mark is gone----> run here: that node gave it back, and one of the copies will do
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from rabbitry.exceptions import NodeDiedError
from rabbitry_broker.messages import Task, TaskHeader
from rabbitry_workers.executor.calls import result_ids
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Admit, Commits, Settle
from rabbitry_workers.node.model.work import Held

LOOK_SECONDS: Final = 1.0
SLICE_SECONDS: Final = 0.05  # of the loop's time for what is in doubt, in each look


class _Doubt:
    """A task that another living node may be running."""

    __slots__ = ("header", "header_bytes", "held", "task")

    def __init__(self, held: Held, header_bytes: bytes, header: TaskHeader, task: Task) -> None:
        self.held = held
        self.header_bytes = header_bytes
        self.header = header
        self.task = task


class Doubts:
    """Service on the agent's loop: `start`, `run_once`.

    Args:
        node: on which they are.
        settle: of deliveries.
        commits: of errors.
        is_alive: True if another node's lease has not ended.
        admit: takes what did not run after all.
    """

    def __init__(
        self, node: Node, settle: Settle, commits: Commits, is_alive: Callable[[bytes], bool], admit: Admit
    ) -> None:
        self._node = node
        self._settle = settle
        self._commits = commits
        self._is_alive = is_alive
        self._admit = admit
        self._doubts: list[_Doubt] = []  # `_decide` ends them

    def start(self) -> None:
        """Look at what is in doubt from now on."""
        self._node.periodic.every(LOOK_SECONDS, self.run_once)

    def add(self, held: Held, header_bytes: bytes, header: TaskHeader, task: Task) -> None:
        """A task that may run once only was started by another node: keep it until that ends."""
        self._doubts.append(_Doubt(held, header_bytes, header, task))

    def run_once(self) -> None:
        """Decide about what is in doubt, as far as that is possible now."""
        if not self._doubts:
            return
        doubts, self._doubts = self._doubts[::-1], []
        until = time.monotonic() + SLICE_SECONDS
        try:
            while doubts:
                self._decide(doubts[-1])
                doubts.pop()
                if time.monotonic() > until:
                    break
        finally:
            # What there was no time for comes first next time.
            self._doubts[:0] = doubts[::-1]

    def _decide(self, each: _Doubt) -> None:
        store = self._node.store
        header, task = each.header, each.task
        final = result_ids(task[0], header.num_returns)[-1:]
        if final and store.fetch(final)[0] is not None:
            self._settle(each.held, 1)
            return
        node = store.started_by(task[0])
        if node is None:
            # It did not run after all: that node gave it back, and a copy of it is on a queue. One of them will.
            self._admit(each.held, each.header_bytes, header, [task])
            self._settle(each.held, 1)
        elif self._is_alive(node):
            self._doubts.append(each)
        else:
            error = NodeDiedError(lost_text(header, 1))
            self._commits.commit_error(each.held, header, task, error, outstanding=True)


def lost_text(header: TaskHeader, attempts: int) -> str:
    """Return what NodeDiedError says of a task."""
    times = "once" if attempts == 1 else f"{attempts} times"
    return f"Task {header.name} was lost {times} with the node that ran it, and max_retries is {header.max_retries}."
