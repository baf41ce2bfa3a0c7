"""Executors that take nothing any more, by what they say themselves.

| word | what it means | what is done |
|---|---|---|
| BYE | it ends now | what it has not started comes back when its channel ends |
| LEAVING | it begins nothing more, but others live by it | it stays without holding anything |
| BROKEN | it cannot be set up as its job and environment want it, as no other could | all of that environment fails |
"""

from __future__ import annotations

from collections.abc import Callable

from rabbitry.exceptions import RuntimeEnvSetupError, store_error
from rabbitry_workers.node.dispatch.pool import ExecutorPool, Serves
from rabbitry_workers.node.model.lanes import Executor, Lanes
from rabbitry_workers.node.model.life import Life
from rabbitry_workers.node.model.ports import Fails, TakesBack


class Ending:
    """Loop thread only.

    Args:
        lanes: in which work of the same environment waits.
        pool: of executors.
        recall: puts back what they had not begun.
        dispatcher: hands that out.
        failing: of what can never run.
        actor_created: takes in that an actor's host could not be set up: executor, stored error.
        life: of the node.
    """

    def __init__(
        self,
        lanes: Lanes,
        pool: ExecutorPool,
        recall: TakesBack,
        dispatcher: Serves,
        failing: Fails,
        actor_created: Callable[[Executor, bytes], None],
        life: Life,
    ) -> None:
        self._lanes = lanes
        self._pool = pool
        self._recall = recall
        self._dispatcher = dispatcher
        self._failing = failing
        self._actor_created = actor_created
        self._life = life

    def on_bye(self, executor: Executor, why: str) -> None:
        """It ends now. What it has not started comes back when its channel ends."""
        self._pool.leaves(executor, why)
        executor.end()

    def on_leaving(self, executor: Executor, reason: str, last: int) -> None:
        """The executor begins nothing after number `last`, but others live by it: it stays without holding anything."""
        self._pool.leaves(executor, reason)
        executor.lingering = True
        lane = executor.lane
        self._recall.take_back(executor, last)
        self._pool.end_lease(executor)
        if lane is not None:
            self._dispatcher.serve(lane)
        self._dispatcher.serve_all()
        self._life.stop_if_drained()

    def on_broken(self, executor: Executor, why: str) -> None:
        """It could not be set up as its job and environment want it, as no other would be: all of that fails."""
        self._pool.leaves(executor, why)
        error = RuntimeEnvSetupError(why)
        if executor.actor:
            self._actor_created(executor, store_error(error))
            return
        for chunk in executor.chunks:
            self._failing.fail_tasks(chunk.held, chunk.header, chunk.tasks, error)
        executor.chunks.clear()
        self.fail_waiting(executor.key, error)

    def fail_waiting(self, key: tuple[bytes, bytes], error: Exception) -> None:
        """Fail all that waits for executors of a job and environment: there can be none."""
        for lane in self._lanes.values():
            if lane.key[1:] == key:
                for piece in lane.take_all():
                    self._failing.fail_tasks(piece.held, piece.header, list(piece.tasks), error)
                    piece.tasks.clear()
