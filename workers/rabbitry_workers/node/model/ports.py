"""What parts of a node are to each other: each takes the few things that it uses, and a test gives it fakes of those.

What goes down (to settle, to commit, to publish) is one of the protocols below; what must go up is a callback that
`node.agent` hands in. Only the agent knows which part stands behind which port.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from rabbitry_broker.messages import Task, TaskHeader
from rabbitry_broker.queue_names import QueueName
from rabbitry_broker.queues.protocol import OnConfirm
from rabbitry_broker.resources import ResourceRequest
from rabbitry_broker.store.specs import Dependant
from rabbitry_workers.node.model.lanes import Executor, Lane
from rabbitry_workers.node.model.work import Chunk, Held, Piece

Settle = Callable[[Held, int], None]
"""So many tasks (or other business) of a delivery are done; it is acknowledged after the last."""

Serve = Callable[[Lane], None]
"""Give a lane's waiting tasks to executors."""

Admit = Callable[[Held, bytes, TaskHeader, list[Task]], None]
"""Take tasks of a delivery as work for this node."""

Failed = tuple[Held, TaskHeader, Task, bytes]
"""A task that its delivery counts as outstanding, and the record that all its results become."""


class Commits(Protocol):
    """Writes results in the name of executors."""

    def commit(
        self, held: Held, header: TaskHeader, items: list[bytes], ended: list[bytes], *, stands: bool = False
    ) -> None:
        """Commit results (id, record, ...) and the ends of tasks."""

    def commit_records(self, failed: list[Failed]) -> None:
        """Commit for each of these tasks the same record as all its results."""

    def commit_record(
        self, held: Held, header: TaskHeader, task: Task, record: bytes, *, outstanding: bool = False
    ) -> None:
        """Commit the same record for every result of a task; `outstanding`: settle it too."""

    def commit_error(
        self, held: Held, header: TaskHeader, task: Task, error: Exception, *, outstanding: bool = False
    ) -> None:
        """Commit the same error for every result of a task."""


class Publishes(Protocol):
    """Sends what must not be lost."""

    def publish(self, queue: str, frame: bytes, priority: int, confirmed: OnConfirm | None = None) -> None:
        """Publish, now or as soon as servers are back."""

    def publish_now(self, queue: str, frame: bytes, priority: int, confirmed: OnConfirm | None = None) -> None:
        """Publish, or raise if Redis or the broker is away."""

    def publish_dependants(self, helds: list[Held], dependants: list[Dependant], *, noted: bool = False) -> None:
        """Publish released tasks; their releasers' deliveries stay unacknowledged until the broker has them."""

    def flush(self, timeout: float) -> bool:
        """Wait until the broker has confirmed everything; False if it has not in time."""


class Fails(Protocol):
    """Fails tasks, however many, without keeping the loop from other work."""

    def add(self, failed: Iterable[Failed]) -> None:
        """Fail tasks that their deliveries count as outstanding."""

    def gather(self, failed: Iterable[Failed]) -> None:
        """Fail such tasks a moment later, with what comes until then."""

    def fail_tasks(self, held: Held, header: TaskHeader, tasks: list[Task], error: Exception) -> None:
        """Fail tasks of one delivery with an error, none of them having run."""


class Rechecks(Protocol):
    """Decides what becomes of tasks that come again."""

    def recheck(self, held: Held, header: TaskHeader, tasks: list[Task], *, lost: bool | None = None) -> list[Task]:
        """Skip tasks whose result stands; count an attempt for the rest if a node was lost with them."""

    def not_ended(self, released: list[Dependant]) -> list[Dependant]:
        """Of released tasks, those that have not ended since."""


class Shadows(Protocol):
    """Knows what this node has in hand."""

    def not_held_here(self, held: Held, header: TaskHeader, tasks: list[Task]) -> list[Task]:
        """Return those that are not in hand; the others keep the new delivery until they end."""


class Peers(Protocol):
    """The other nodes, as far as this one knows."""

    @property
    def has_others(self) -> bool:
        """True if other nodes are alive."""

    def is_alive(self, node: bytes) -> bool:
        """True if that node's lease has not ended."""

    def is_orphaned(self, place: QueueName) -> bool:
        """True if this is the queue of a node that is gone (or never was)."""

    def room_elsewhere(self, request: ResourceRequest, selector: str = "") -> bool:
        """True if some other node has room for a request now, as far as is known."""

    def room_inside(self, group: bytes, request: ResourceRequest) -> bool:
        """True if some other node has room for a request in a bundle of that group, as far as is known."""

    def lost_a_node(self) -> bool:
        """True if a node was lost lately, and work with it."""


class KnowsGroups(Protocol):
    """Placement groups, as far as intake has to know them."""

    def serves(self, place: QueueName) -> bool:
        """True if work for this bundle can run here, now or as soon as its group stands."""

    def is_gone(self, group: bytes) -> bool:
        """True if that group was removed, or never was."""

    def has_room(self, place: QueueName) -> bool:
        """True if there is something free in a bundle here that this queue is for."""

    def slots(self, place: QueueName) -> int:
        """Return how many tasks may run at a time in the bundles here that this queue is for, about."""


class Cancels(Protocol):
    """Knows what was cancelled."""

    known: dict[bytes, None]

    def without_cancelled(
        self, held: Held, header: TaskHeader, tasks: list[Task], *, outstanding: bool = False
    ) -> list[Task]:
        """Return the tasks that were not cancelled; the others fail."""


class TellsEnds(Protocol):
    """Records what ended; see `node.services.events`."""

    def done(self, executor: Executor, chunk: Chunk, tasks: list[Task], since: float, times: bytes) -> None:
        """Tasks of a chunk have ended."""

    def failed_there(self, executor: Executor, failures: list[Any]) -> None:
        """Tasks of an executor have failed."""


class Hosts(Protocol):
    """Makes executors the hosts of actors."""

    def host(self, executor: Executor, piece: Piece, task: Task) -> bool:
        """Make `executor` the host of the actor that `task` creates; False if there is nothing to host."""


class TakesBack(Protocol):
    """Puts what executors will not begin back into its lane."""

    def take_back(self, executor: Executor, current: int) -> None:
        """Put back all behind the task with this number."""

    def put_back_unstarted(self, executor: Executor, chunk: Chunk, tasks: list[Task]) -> None:
        """Put back these tasks of a chunk, but for what is cancelled."""
