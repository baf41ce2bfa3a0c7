"""Executors that wait in `get` or `wait`: their CPUs are lent to others meanwhile. What runs then: `nesting`."""

from __future__ import annotations

from collections.abc import Callable

from rabbitry_workers.channel import TAKEN
from rabbitry_workers.node.dispatch.nesting import Nesting
from rabbitry_workers.node.dispatch.pool import Serves
from rabbitry_workers.node.model.lanes import Executor, State
from rabbitry_workers.node.model.ports import TakesBack


class Blocking:
    """Loop thread only.

    Args:
        nesting: knows who waits.
        recall: puts back what those have not begun.
        dispatcher: gives their room to others.
        allow_for: takes more messages, since those of blocked tasks stay unacknowledged.
    """

    def __init__(
        self,
        nesting: Nesting,
        recall: TakesBack,
        dispatcher: Serves,
        allow_for: Callable[[int], None],
    ) -> None:
        self._nesting = nesting
        self._recall = recall
        self._dispatcher = dispatcher
        self._allow_for = allow_for

    def on_blocked(self, executor: Executor, current: int, in_wait: bool) -> None:
        """The executor waits in `get`, or in `wait`: its CPUs and what it has not started are for others."""
        lane = executor.lane
        self._recall.take_back(executor, current)
        executor.send([TAKEN, 0])
        if executor.state is State.LEASED:
            executor.move(State.BLOCKED)
            executor.in_wait = in_wait
            self._nesting.begins(executor)
            if executor.grant is not None:
                executor.grant.ledger.lend(executor.grant)
        self._allow_for(len(self._nesting.blocked))
        if lane is not None:
            self._dispatcher.serve(lane)
        self._dispatcher.serve_all()

    def on_unblocked(self, executor: Executor) -> None:
        """It goes on."""
        if executor.state is State.BLOCKED:
            self._nesting.ends(executor)
            executor.move(State.LEASED)
            if executor.grant is not None:
                executor.grant.ledger.reclaim(executor.grant)
            if not self._nesting.blocked:
                self._dispatcher.serve_all()  # nothing is held back any more, and there may be room
