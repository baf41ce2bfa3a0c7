"""What stands around the parts of a client in tests: no server, no thread, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rabbitry.core.flight import Flight
from rabbitry.core.identity import Identity, Job
from rabbitry.core.lives.references import References
from rabbitry.core.ports import Captured
from rabbitry.core.resolve.streams import Stream
from rabbitry.core.resolve.values import Values
from rabbitry.core.submit.environments import Environments
from rabbitry.core.submit.inside import Inside
from rabbitry.core.submit.placement import Placements
from rabbitry.core.submit.plan import Timings
from rabbitry.core.submit.plans import Plans
from rabbitry_broker import queue_names as names
from rabbitry_broker.ids import CLIENT_BYTES, FIRST_INDEX, TaskIds
from rabbitry_broker.messages import decode_frames
from rabbitry_broker.shared_memory import ObjectStoreFull
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.keys import Keys

OURS = b"\x01" * CLIENT_BYTES
THEIRS = b"\x02" * CLIENT_BYTES
DETACHED = b"\x81" * CLIENT_BYTES
JOB = b"jobs"
SIGNER = Signer((b"0123456789abcdef",))


def task_id(number: int, owner: bytes = OURS) -> bytes:
    """Return the id of a task."""
    return owner + number.to_bytes(8, "big") + JOB


def result_id(number: int, owner: bytes = OURS) -> bytes:
    """Return the id of the first result of a task."""
    return task_id(number, owner) + FIRST_INDEX


def full() -> ObjectStoreFull:
    """Return what a store without room raises."""
    return ObjectStoreFull(10, 0, "the store")


class FakeKept:
    """Functions, records and packages, under their hash; `there` are the packages that others stored."""

    def __init__(self) -> None:
        self.put_there: dict[bytes, tuple[bytes, Any, bool]] = {}
        self.there: dict[str, list[bytes]] = {}
        self.missing: list[bytes] = []
        self.released: list[bytes] = []
        self.held: list[Any] = []

    def put(self, digest: bytes, data: bytes, client: bytes, *, detached: bool = False, kind: Any = None) -> None:
        self.put_there[digest] = (data, kind, detached)

    def hold(self, what: Any, client: bytes, *, detached: bool = False) -> Any:
        self.held.append((what, detached))
        return self.there.get(what) if isinstance(what, str) else self.missing

    def release(self, client: bytes, digests: list[bytes]) -> None:
        self.released += digests


class FakeStore:
    """Keeps what it is told, in order.

    Attributes:
        calls: what was called, with what.
        records: of objects that are there.
        fails: the error that the next calls of a name raise.
        nodes: how many hear what is announced.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.records: dict[bytes, bytes] = {}
        self.fails: dict[str, Exception] = {}
        self.ready = True  # the dependencies of what is parked
        self.alive = True
        self.nodes = 1
        self.answer: Any = None

    def _note(self, name: str, *arguments: Any) -> None:
        if name in self.fails:
            raise self.fails[name]
        self.calls.append((name, *arguments))

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """Return the arguments of the calls of one name."""
        return [call[1:] for call in self.calls if call[0] == name]

    def announce_cancel(self, keys: Any, tasks: Any, client: bytes, **options: Any) -> int:
        self._note("announce_cancel", keys, tasks, client, *options.values())
        return self.nodes

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *arguments, **options: self._note(name, *arguments, *options.values())

    def call(self, *arguments: Any) -> Any:
        self._note("call", *arguments)
        return self.answer

    def fetch(self, ids: Sequence[bytes]) -> list[bytes | None]:
        self._note("fetch", list(ids))
        return [self.records.get(each) for each in ids]

    def subscribe(self, client: bytes, ids: Sequence[bytes]) -> tuple[list[bytes | None], list[bytes]]:
        self._note("subscribe", list(ids))
        return [self.records.get(each) for each in ids], []

    def park(self, specs: Sequence[Any]) -> list[bool]:
        self._note("park", list(specs))
        return [self.ready] * len(specs)

    def commit(self, owner: bytes, items: Sequence[bytes], entry: bytes, *, require_owner: bool) -> list[Any]:
        self._note("commit", owner, list(items))
        return []

    def dependants(self, owner: bytes, left: Any) -> tuple[list[Any], list[tuple[bytes, bytes]]]:
        return [], []

    def put_packed(self, key: bytes, packed: Any, *, copy: int = 0) -> bytes:
        self._note("put_packed", key)
        return b"L" + key

    def put_records(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        self._note("put_records", list(items))
        self.records.update(items)

    def when_room(self, action: Callable[[], Any], *, patience: float = 0.0) -> Any:
        return action()

    def drop(self, ids: Sequence[bytes], *, plain: bool = False) -> tuple[set[bytes], list[bytes]]:
        self._note("drop", list(ids), plain)
        return set(), []

    def leave(self, clients: Sequence[bytes], orphan: Callable[[list[bytes]], None]) -> Iterator[None]:
        self._note("leave", clients)
        orphan([result_id(1)])
        yield None

    def renew_client(self, client: bytes, lease: float, *, driver: bool = False) -> bool:
        self._note("renew_client", client)
        return self.alive

    def seconds_left(self) -> float:
        return -1.0

    @contextmanager
    def within(self, deadline: float | None) -> Iterator[None]:
        yield

    def reply_seconds(self, after: float = 0.0) -> float:
        return 30.0


class FakePublisher:
    """Keeps what is published; `fails` is raised instead."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes, int]] = []
        self.fails: Exception | None = None

    def publish(self, queue: str, body: bytes, *, priority: int = 0) -> None:
        if self.fails is not None:
            raise self.fails
        self.published.append((queue, body, priority))

    def flush(self, timeout: float | None = None) -> bool:
        return True

    def tasks(self) -> list[list[bytes]]:
        """Return the ids of the tasks in each message."""
        return [
            [task[0] for _, tasks in decode_frames(SIGNER, body) for task in tasks] for _, body, _ in self.published
        ]


class FakeUnhandled:
    """Hears of failures."""

    def __init__(self) -> None:
        self.due: deque[tuple[bytes, bytes]] = deque()
        self.unread: set[bytes] = set()
        self.heard: list[tuple[Any, ...]] = []

    def came(self, key: bytes, record: bytes) -> None:
        self.heard.append(("came", key))

    def came_unheld(self, key: bytes, record: bytes) -> None:
        self.heard.append(("came unheld", key))

    def dropped(self, key: bytes, record: bytes) -> None:
        self.heard.append(("dropped", key))

    def dropped_early(self, key: bytes) -> None:
        self.heard.append(("dropped early", key))

    def read(self, keys: Any) -> None:
        self.heard.append(("read", *keys))


@dataclass
class Surroundings:
    """What parts share, and what surrounds them.

    Attributes:
        kicks: times that the service thread was rung for.
        registered: times that the client was made known.
        unheld: results without handles.
    """

    identity: Identity = field(
        default_factory=lambda: Identity(OURS, JOB, DETACHED, Keys("test"), SIGNER, 30.0, driver=True)
    )
    job: Job = field(default_factory=lambda: Job("space"))
    flight: Flight = field(default_factory=Flight)
    references: References = field(default_factory=lambda: References(frozenset((OURS, DETACHED))))
    values: dict[bytes, bytes] = field(default_factory=dict)
    unsent: dict[bytes, bytes] = field(default_factory=dict)
    streams: dict[bytes, Stream] = field(default_factory=dict)
    store: Any = field(default_factory=FakeStore)
    publisher: FakePublisher = field(default_factory=FakePublisher)
    unhandled: FakeUnhandled = field(default_factory=FakeUnhandled)
    ids: TaskIds = field(default_factory=lambda: TaskIds(OURS, JOB))
    kept: FakeKept = field(default_factory=lambda: FakeKept())
    kicks: int = 0
    registered: int = 0
    unheld: list[bytes] = field(default_factory=list)
    queues: list[str] = field(default_factory=list)
    bundles: dict[bytes, list[dict[str, float]]] = field(default_factory=dict)
    states: dict[bytes, str] = field(default_factory=dict)
    in_group: Captured = field(default_factory=Captured)

    def kick(self) -> None:
        self.kicks += 1

    def register(self) -> None:
        self.registered += 1

    def known(self, returned: set[bytes] | None = None) -> Values:
        """Return the part that keeps what comes."""
        return Values(
            self.references,
            self.flight,
            self.streams,
            records=self.values,
            returned=returned or set(),
            unread=self.unhandled,
            unheld=lambda key, record: self.unheld.append(key),
            kick=self.kick,
        )

    @property
    def inside(self) -> Inside:
        """Return the part that finds places in groups; the calling code is in none of them."""
        return Inside(
            self.store,
            bundles=self.bundles.get,
            state=lambda group: self.states.get(group, ""),
            current=lambda: self.in_group,
        )

    def environments(self) -> Environments:
        """Return the part that knows the environments of tasks."""
        return Environments(OURS, self.job, self.kept, self.kept, self.register)

    def plans(self, nodes: Callable[[], list[dict[str, Any]]] = list) -> Plans:
        """Return the part that makes plans."""
        return Plans(
            self.identity,
            self.job,
            Placements(self.store, self.identity.keys, nodes, self.inside, names.task_queue),
            Timings(),
            environment=self.environments().code,
            announce_priorities=self.store.announce_priorities,
            note_queue=self.queues.append,
        )
