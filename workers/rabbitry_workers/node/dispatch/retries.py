"""Tasks whose exception is to be tried again, after a while; whether, and after how long: `retry_policy`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rabbitry.exceptions import TaskCancelledError
from rabbitry_broker import retry_policy
from rabbitry_broker.messages import Task
from rabbitry_workers.node.model.lanes import Lanes
from rabbitry_workers.node.model.life import Life
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.ports import Cancels, Commits, Serve
from rabbitry_workers.node.model.work import Chunk


class Retries:
    """Loop thread only.

    Args:
        node: whose loop it is.
        lanes: to which tasks go back.
        commits: of errors of those that were cancelled meanwhile.
        cancelling: knows them.
        serve: gives a lane's tasks to executors.
        give_back_all: of a node that leaves, gives what waits to others.
        life: of the node.

    Attributes:
        delayed: what is under way, by task id: called when its delay is over, which removes it.
    """

    def __init__(
        self,
        node: Node,
        lanes: Lanes,
        commits: Commits,
        cancelling: Cancels,
        serve: Serve,
        give_back_all: Callable[[], None],
        life: Life,
    ) -> None:
        self._node = node
        self._lanes = lanes
        self._commits = commits
        self._cancelling = cancelling
        self._serve = serve
        self._give_back_all = give_back_all
        self._life = life
        self.delayed: dict[bytes, Callable[[], None]] = {}

    def retry_later(self, chunk: Chunk, task: Task) -> None:
        """A task whose exception is to be retried goes back to its lane after its delay."""
        header = chunk.header
        delay = retry_policy.delay(header.retry_delay, task[2])

        def put() -> None:
            if self.delayed.pop(task[0], None) is None:
                return  # it was put back because the node leaves
            if task[0] in self._cancelling.known:
                error = TaskCancelledError(task[0].hex())
                self._commits.commit_error(chunk.held, header, task, error, outstanding=True)
                return
            self._lanes.put_back(chunk.held, chunk.header_bytes, header, [task], marked=1)
            if self._life.draining:
                self._give_back_all()
            else:
                self._serve(self._lanes.of(header))

        self.delayed[task[0]] = put
        if delay and not self._life.draining:
            self._node.loop.call_later(delay, put)
        else:
            put()

    def put_all(self) -> None:
        """The node leaves: what is delayed goes back to its lane now."""
        for put in list(self.delayed.values()):
            put()

    def task_ids(self) -> Iterable[bytes]:
        """Return what is under way."""
        return self.delayed
