"""What the pages show, as rows, and where they get it: the one thing that pages know of a cluster.

Any thread may call a source, and its calls may block: pages call it in threads, and share what it answered
(`readings.py`). Times are seconds since 1970, sizes bytes; None is what is not known. Texts are as users wrote them and
are shown as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

Row = TypeVar("Row")

WAITING: Final = "waiting"
RUNNING: Final = "running"
FINISHED: Final = "finished"
FAILED: Final = "failed"
GROUPS: Final = (WAITING, RUNNING, FINISHED, FAILED)
"""Groups of states of tasks; which state is of which group, the source says."""


class Missing(Exception):
    """What was asked for is not there, or not any more. The message is for the reader of the page."""


class Refused(Exception):
    """An action could not be done. The message is for the reader of the page."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which rows of a table, and in which order.

    Attributes:
        text: rows that have it in a name or at the beginning of an id; any case.
        state: one state, or one of `GROUPS`; "" for all.
        job: hex id; "" for all.
        node: hex id; "" for all.
        actor: hex id; "" for all.
        sort: attribute of the row; "" for the source's order, the newest first.
        descending: of `sort`.
        offset: rows before the first one.
        limit: rows at most.
    """

    text: str = ""
    state: str = ""
    job: str = ""
    node: str = ""
    actor: str = ""
    sort: str = ""
    descending: bool = False
    offset: int = 0
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Rows(Generic[Row]):
    """A part of a table.

    Attributes:
        rows: that part.
        total: rows that the query fits, in all.
    """

    rows: Sequence[Row]
    total: int


@dataclass(frozen=True, slots=True)
class Overview:
    """The cluster at one look.

    Attributes:
        groups: how many tasks are in each of `GROUPS`, of those that are remembered.
        finished: tasks that ended well in each second, the last whole second at the end.
        failed: tasks that failed in each of the same seconds.
        nodes: by state.
        actors: by state.
        jobs: by state.
        used: of each resource, on all living nodes.
        total: the same.
        put_aside: messages that could not be read.
        dropped: events that found no room: so many tasks may be missing or shown in an older state.
        functions: the busiest ones: name, and tasks in each of `GROUPS`.
        notes: what the reader should know, such as that events are switched off.
    """

    groups: Mapping[str, int]
    finished: Sequence[int]
    failed: Sequence[int]
    nodes: Mapping[str, int]
    actors: Mapping[str, int]
    jobs: Mapping[str, int]
    used: Mapping[str, float]
    total: Mapping[str, float]
    put_aside: int = 0
    dropped: int = 0
    functions: Sequence[tuple[str, Mapping[str, int]]] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task, in its last attempt.

    Attributes:
        id: hex.
        name: of the function, or Class.method.
        state: Ray's word.
        group: one of `GROUPS`.
        kind: Ray's word: NORMAL_TASK, ACTOR_TASK, ACTOR_CREATION_TASK.
        job: hex id.
        attempt: the first is 0.
        node: hex id.
        worker: hex id.
        pid: of its process.
        actor: hex id; "" for none.
        created: when it was submitted.
        started: when it began to run.
        ended: when it ended.
        error: the kind of error; "" for none.
    """

    id: str
    name: str
    state: str
    group: str
    kind: str = "NORMAL_TASK"
    job: str = ""
    attempt: int = 0
    node: str = ""
    worker: str = ""
    pid: int | None = None
    actor: str = ""
    created: float | None = None
    started: float | None = None
    ended: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class TaskDetail:
    """All that is known of a task.

    Attributes:
        row: the same as in the table.
        states: (state, when), the first one first, with the attempt if it is not the first.
        message: text of the error.
        waits_for: why it does not run yet; "" if it does, or has.
        resources: what it takes.
        parent: the task or driver that submitted it; None if that is not remembered.
        children: tasks that it submitted, a hundred at most.
        children_total: how many there are.
        log: (node, file) of what it printed; None for nothing.
        facts: other facts by name.
    """

    row: TaskRow
    states: Sequence[tuple[str, float]] = ()
    message: str = ""
    waits_for: str = ""
    resources: Mapping[str, float] = field(default_factory=dict)
    parent: TaskRow | None = None
    children: Sequence[TaskRow] = ()
    children_total: int = 0
    log: tuple[str, str] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActorRow:
    """An actor.

    Attributes:
        id: hex.
        class_name: of its class.
        state: Ray's word.
        name: that `get_actor` takes; "" for none.
        namespace: of the name.
        job: hex id.
        node: hex id.
        pid: of its process.
        restarts: so far.
        detached: outlives its job.
        durable: its state is kept.
        waits_for: why it is not alive yet.
        death: why it ended.
        resources: what it takes.
        worker: hex id of its process.
        log: (node, file) of what it printed; None for nothing.
    """

    id: str
    class_name: str
    state: str
    name: str = ""
    namespace: str = ""
    job: str = ""
    node: str = ""
    pid: int | None = None
    restarts: int = 0
    detached: bool = False
    durable: bool = False
    waits_for: str = ""
    death: str = ""
    resources: Mapping[str, float] = field(default_factory=dict)
    worker: str = ""
    log: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class JobRow:
    """A driver, or an entrypoint that was submitted.

    Attributes:
        id: hex id of the driver's job; "" while there is none.
        submission: id of what was submitted; "" for a plain driver.
        state: Ray's word.
        entrypoint: command line.
        message: what is to be said of its state.
        started: when.
        ended: when.
        host: where its driver runs.
        pid: of its driver.
        log: (node, file) of what it printed; None for nothing.
    """

    id: str
    state: str
    submission: str = ""
    entrypoint: str = ""
    message: str = ""
    started: float | None = None
    ended: float | None = None
    host: str = ""
    pid: int | None = None
    log: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Executor:
    """A worker process of a node.

    Attributes:
        pid: of the process.
        kind: worker or actor.
        runs: name of the task or class; "" for nothing.
        task: hex id of the task; "" for none.
        actor: hex id of the actor; "" for none.
        since: when it began that.
        worker: hex id.
    """

    pid: int
    kind: str
    runs: str = ""
    task: str = ""
    actor: str = ""
    since: float | None = None
    worker: str = ""


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node.

    Attributes:
        id: hex.
        name: what people call it.
        host: its machine.
        state: alive, draining or dead.
        pid: of its agent.
        started: when.
        total: resources that it offers.
        used: of these.
        labels: of the node.
        cpu: share of the machine's processors in use, 0 to 1.
        memory: (used, total) of the machine.
        shared: (used, total) of shared memory there.
        gpus: (name, share in use or None, memory used or None, memory in all or None) of each.
        executors: worker processes.
        address: of the machine.
    """

    id: str
    name: str
    host: str
    state: str
    pid: int | None = None
    started: float | None = None
    total: Mapping[str, float] = field(default_factory=dict)
    used: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    cpu: float | None = None
    memory: tuple[int, int] | None = None
    shared: tuple[int, int] | None = None
    gpus: Sequence[tuple[str, float | None, int | None, int | None]] = ()
    executors: Sequence[Executor] = ()
    address: str = ""


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A placement group.

    Attributes:
        id: hex.
        name: "" for none.
        state: Ray's word.
        strategy: PACK, SPREAD, STRICT_PACK or STRICT_SPREAD.
        bundles: of each, (what it takes, hex id of its node or "").
        job: hex id.
        waits_for: what it lacks.
    """

    id: str
    name: str
    state: str
    strategy: str = ""
    bundles: Sequence[tuple[Mapping[str, float], str]] = ()
    job: str = ""
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """An object.

    Attributes:
        id: hex.
        size: bytes of its value.
        kind: value, error, large value and the like.
        place: where the value lies.
        owner: hex id of the client.
        task: hex id of the task that makes it; "" for `put`.
        holders: who holds it besides its owner.
    """

    id: str
    size: int | None = None
    kind: str = ""
    place: str = ""
    owner: str = ""
    task: str = ""
    holders: int = 0


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A queue.

    Attributes:
        name: of the queue.
        kind: class, node or actor.
        messages: that wait.
        tasks: in them.
        unacknowledged: messages that nodes have and did not settle.
        into: messages a second that come.
        out: messages a second that go.
        consumers: how many, or None.
        by: who consumes it.
    """

    name: str
    kind: str
    messages: int | None = None
    tasks: int | None = None
    unacknowledged: int | None = None
    into: float | None = None
    out: float | None = None
    consumers: int | None = None
    by: str = ""


@dataclass(frozen=True, slots=True)
class Queues:
    """Queues, and figures of the server that has them.

    Attributes:
        rows: the queues.
        server: facts of the server, by name.
        note: what cannot be told, and why; "" for nothing.
    """

    rows: Sequence[QueueRow]
    server: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class AsideRow:
    """A message that could not be read.

    Attributes:
        number: 0 is the newest.
        reason: why.
        size: bytes.
        excerpt: its beginning, printable.
    """

    number: int
    reason: str
    size: int = 0
    excerpt: str = ""


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file of what was printed.

    Attributes:
        node: hex id.
        name: of the file.
        kind: what wrote it.
        place: what people call the node.
    """

    node: str
    name: str
    kind: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class LogPart:
    """A piece of a log.

    Attributes:
        text: whole lines.
        position: where to go on reading; the source knows what it means.
        ended: there is no more of it now.
        over: and nothing will come.
    """

    text: str
    position: object
    ended: bool = True
    over: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """What ran where, for the timeline.

    Attributes:
        lane: node and worker.
        name: of the task.
        task: hex id.
        queued: when it was submitted.
        started: when it began.
        ended: when it ended; None: it runs.
        failed: with an error.
    """

    lane: str
    name: str
    task: str
    queued: float | None
    started: float
    ended: float | None
    failed: bool = False


class Source(Protocol):
    """A cluster to look at.

    All methods raise `RabbitryBrokerError` if a server does not answer, `Missing` if there is no such thing (or the
    cluster does not tell), and actions `Refused`.
    """

    def overview(self) -> Overview:
        """Return the cluster at one look."""

    def jobs(self) -> Sequence[JobRow]:
        """Return all jobs, the newest first."""

    def tasks(self, query: Query) -> Rows[TaskRow]:
        """Return tasks."""

    def task(self, task: str) -> TaskDetail:
        """Return all that is known of a task."""

    def actors(self) -> Sequence[ActorRow]:
        """Return all actors, the newest first."""

    def nodes(self) -> Sequence[NodeRow]:
        """Return all nodes."""

    def placement_groups(self) -> Sequence[GroupRow]:
        """Return all placement groups."""

    def objects(self) -> Rows[ObjectRow]:
        """Return the largest objects, ten thousand at most, and how many there are."""

    def queues(self) -> Queues:
        """Return all queues."""

    def put_aside(self) -> Rows[AsideRow]:
        """Return messages put aside, the newest first, and how many there were in all."""

    def logs(self) -> Sequence[LogFile]:
        """Return the log files of all nodes."""

    def read_log(self, node: str, name: str, task: str, position: object, lines: int) -> LogPart:
        """Return the next piece of a log from a position on; for None, its last `lines` lines.

        `task`: only what this task printed; "" for all.
        """

    def timeline(self, seconds: float) -> Sequence[Span]:
        """Return what ran in the last seconds, the newest five thousand at most."""

    def trace(self) -> bytes:
        """Return a Chrome trace as JSON."""

    def stack(self, node: str, pid: int) -> str:
        """Return what a worker process does just now."""

    def cancel(self, task: str, *, force: bool) -> str:
        """Cancel a task; return what to tell the user."""

    def kill(self, actor: str, *, restart: bool) -> str:
        """Kill an actor; return what to tell the user."""

    def stop_job(self, submission: str) -> str:
        """Stop a submitted job; return what to tell the user."""

    def drain(self, node: str) -> str:
        """Have a node finish what it runs and leave; return what to tell the user."""
