"""Fakes for the ports of a node's parts: no server, no process, and a clock that a test moves."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from rabbitry_broker import records
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import ConnectionLost
from rabbitry_broker.ids import new_client_id
from rabbitry_broker.messages import Task, TaskHeader, encode_header
from rabbitry_broker.queue_names import QueueKind
from rabbitry_broker.queues.protocol import Delivery
from rabbitry_broker.signing import Signer
from rabbitry_workers.channel import RUN
from rabbitry_workers.node.model.config import NodeConfig
from rabbitry_workers.node.model.lanes import Executor, Lane, Lanes, State
from rabbitry_workers.node.model.ledger import Ledger
from rabbitry_workers.node.model.life import Life
from rabbitry_workers.node.model.node import Node
from rabbitry_workers.node.model.work import Chunk, Held, Piece
from tests.workers.conftest import header, task

OWNER = new_client_id()
QUEUE = "task.CPU=1"


class FakeLoop:
    """Keeps what is to be called; `run` moves the clock."""

    READ, WRITE = 1, 4

    def __init__(self) -> None:
        self.now = 0.0
        self.stopped = False
        self.handlers: dict[int, Any] = {}
        self.wanted: dict[int, int] = {}  # by descriptor: the events that its handler is called for
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._order = 0

    def call_later(self, seconds: float, callback: Callable[[], object]) -> None:
        self._order += 1
        heapq.heappush(self._timers, (self.now + seconds, self._order, callback))

    def add_callback(self, callback: Callable[[], object]) -> None:
        self.call_later(0.0, callback)

    def add_handler(self, fd: int, handler: Any, events: int) -> None:
        self.handlers[fd] = handler
        self.wanted[fd] = events

    def update_handler(self, fd: int, events: int) -> None:
        assert fd in self.handlers
        self.wanted[fd] = events

    def remove_handler(self, fd: int) -> None:
        self.handlers.pop(fd, None)
        self.wanted.pop(fd, None)

    def ready(self, fd: int) -> bool:
        """A descriptor can be read; return whether anybody was told."""
        if not self.wanted.get(fd):
            return False
        self.handlers[fd](fd, self.READ)
        return True

    def stop(self) -> None:
        self.stopped = True

    def run(self, seconds: float = 0.0) -> None:
        """Call what is due until so many seconds from now."""
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            self.now, _, callback = heapq.heappop(self._timers)
            callback()
        self.now = until

    @property
    def pending(self) -> int:
        return len(self._timers)


class FakeStore:
    """A store in memory, with the few commands that the parts send; `away` makes the next calls fail."""

    def __init__(self) -> None:
        self.data: dict[bytes, Any] = {}
        self.results: dict[bytes, bytes] = {}
        self.starts: dict[bytes, bytes] = {}
        self._tokens: dict[bytes, bytes] = {}  # of the marks in `starts`
        self.attempts: dict[bytes, int] = {}
        self.committed: list[tuple[bytes, list[bytes], bool]] = []
        self.told: list[tuple[bytes, bytes]] = []
        self.forgotten: list[Any] = []
        self.aside: list[tuple[str, bytes, str]] = []
        self.announced: list[str] = []
        self.left: Any = None  # what the next commit leaves to do
        self.away = 0
        self.trusted = True
        self.clock = 1000.0
        self.large = SimpleNamespace(
            memory=lambda: 0, trim=lambda: None, sweep=lambda: None, look_after=lambda: False, shared=None
        )
        self.lives = SimpleNamespace(on_gone=None)
        self.node: Any = None  # that it is for
        self.functions = SimpleNamespace(find=lambda digest, kind: self.data.get(digest))
        self.connection = self
        self.events = SimpleNamespace(send=lambda recorder, who: list(recorder.take()))
        self.sent: list[tuple[Any, ...]] = []
        self.told_news: list[tuple[bool, bool]] = []  # of each sign of life
        self.met: dict[bytes, None] = {}  # nodes that others have read of
        self.queue_counts = (0, 0)
        self.silent = 0
        self.renewed: set[bytes] = set()  # clients whose lease has not ended after all
        self.gone: list[bytes] = []  # clients that others were told of

    def _check(self) -> None:
        if self.away:
            self.away -= 1
            raise ConnectionLost("away")

    def job(self, job: bytes) -> bytes | None:
        (stored,) = self.call(b"MGET", self.node.keys.job(job))
        return None if stored is None else self.node.signer.open(b"job" + job, stored)  # type: ignore[no-any-return]

    def trusts_leases(self, _: float) -> bool:
        return self.trusted

    def time(self) -> float:
        return self.clock

    def fetch(self, ids: Sequence[bytes]) -> list[bytes | None]:
        self._check()
        return [self.results.get(each) for each in ids]

    def commit(self, owner: bytes, items: list[bytes], entry: bytes, *, require_owner: bool, publish: bool = True):
        self._check()
        for key, record in zip(items[::2], items[1::2], strict=True):
            self.results.setdefault(key, record)
        self.committed.append((owner, items, publish))
        left, self.left = self.left, None
        return left

    def dependants(self, owner: bytes, left: Any) -> Any:
        return left

    def tell(self, client: bytes, entry: bytes) -> None:
        self.told.append((client, entry))

    def launched(self, dependants: Iterable[Any]) -> None:
        self._check()
        self.forgotten += dependants

    def start_once(self, node: bytes, ids: Sequence[bytes], token: bytes) -> list[bytes]:
        self._check()
        for each in ids:
            if each not in self.starts:
                self.starts[each], self._tokens[each] = node, token
        return [b"" if self._tokens.get(each) == token else self.starts[each] for each in ids]

    def started_by(self, task_id: bytes) -> bytes | None:
        self._check()
        return self.starts.get(task_id)

    def count_attempts(self, ids: Sequence[bytes]) -> list[int]:
        for each in ids:
            self.attempts[each] = self.attempts.get(each, 0) + 1
        return [self.attempts[each] for each in ids]

    def put_aside(self, where: str, data: bytes, reason: str) -> None:
        self.aside.append((where, data, reason))

    def announce_queue(self, queue: str) -> None:
        self._check()
        self.announced.append(queue)

    def lapse(self, clients: Sequence[bytes]) -> list[bytes]:
        self._check()
        return [each for each in clients if each not in self.renewed]

    def clients_gone(self, clients: Sequence[bytes]) -> None:
        self.gone += clients

    def keep_clients(self, clients: Sequence[bytes], lease: float) -> None:
        self.sent.append((b"keep", tuple(clients), lease))

    def script(self, name: str, *args: Any) -> Any:
        self._check()
        if name == "planner_take":
            return 0  # another node plans
        if name.startswith("node_"):
            return getattr(self, f"_{name}")(*args)
        assert name == "custody_adopt"
        found = self.data.get(args[0], {})
        if found:
            self.data.setdefault(args[1], {}).update(found)
        return [part for pair in found.items() for part in pair]

    def _node_beat(self, prefix: bytes, node: bytes, digits: str, lease: int, record: bytes, *rest: Any) -> list[Any]:
        """As `node_beat.lua` does it, but that all other nodes count as changed."""
        _, news, room, head = rest[:4]
        key, claimed = prefix + b"n:" + digits.encode(), prefix + b"head"
        alive = int(key in self.data)
        self.data[key] = record
        self.data.setdefault(prefix + b"nodes", {})[node] = record
        self.told_news.append((news == b"1", room == b"1"))
        holder = self.data.get(claimed)
        if head == b"1" and holder is None:
            self.data[claimed] = holder = node
        elif head == b"0" and holder == node:
            del self.data[claimed]
            holder = None
        held = [holder or b"", -2 if holder is None else self._do(b"PTTL", claimed)]
        changes, rooms = self._node_look(prefix, digits)
        return [
            alive,
            b"0",
            held,
            changes,
            rooms,
            [b"another", 4000],
            *self.queue_counts,
            self.silent,
            [-2] * len(rest[8:]),
        ]

    def _node_look(self, prefix: bytes, digits: str, *_: Any) -> list[Any]:
        nodes = self.data.get(prefix + b"nodes", {})
        changes: list[Any] = [b"0", 0]
        for node in {**self.met, **nodes}:
            if node.hex() != digits:
                record = self.data.get(prefix + b"n:" + node.hex().encode())
                changes += [node, record if record is not None else b"-" if node in nodes else b""]
                self.met[node] = None
        return [changes, [b"0", 0]]

    def _node_leave(self, prefix: bytes, node: bytes, digits: str, work_left: bytes) -> None:
        self.data.pop(prefix + b"n:" + digits.encode(), None)
        if work_left != b"1":
            self._do(b"HDEL", prefix + b"nodes", node)
        if self.data.get(prefix + b"head") == node:
            del self.data[prefix + b"head"]

    def pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        self._check()
        return [self._do(*command) for command in commands]

    def call(self, *command: Any) -> Any:
        self._check()
        return self._do(*command)

    def _do(self, name: bytes, *args: Any) -> Any:
        self.sent.append((name, *args))
        key = args[0] if args else b""
        if name == b"EXISTS":
            return int(key in self.data)
        if name in (b"MGET", b"GET"):
            found = [self.data.get(each) for each in args]
            return found if name == b"MGET" else found[0]
        if name == b"SET":
            before = self.data.get(key)
            if b"NX" in args and before is not None:
                return None
            self.data[key] = args[1]
            return before if b"GET" in args else b"OK"
        if name in (b"DEL", b"UNLINK"):
            return sum(self.data.pop(each, None) is not None for each in args)
        if name == b"PTTL":
            return 1
        if name == b"TIME":
            return [b"%d" % int(self.clock), b"0"]
        if name == b"HSET":
            table = self.data.setdefault(key, {})
            before = len(table)
            table.update(zip(args[1::2], args[2::2], strict=True))
            return len(table) - before
        if name == b"HSETNX":
            table = self.data.setdefault(key, {})
            new = args[1] not in table
            table.setdefault(args[1], args[2])
            return int(new)
        if name == b"HDEL":
            table = self.data.get(key, {})
            count = sum(table.pop(each, None) is not None for each in args[1:])
            if not table:
                self.data.pop(key, None)
            return count
        if name == b"HGET":
            return self.data.get(key, {}).get(args[1])
        if name == b"HMGET":
            return [self.data.get(key, {}).get(each) for each in args[1:]]
        if name == b"HKEYS":
            return list(self.data.get(key, {}))
        if name == b"HGETALL":
            return [part for pair in self.data.get(key, {}).items() for part in pair]
        if name == b"SMEMBERS":
            return list(self.data.get(key, ()))
        if name == b"ZSCORE":
            found = self.data.get(key, {}).get(args[1])
            return None if found is None else b"%g" % found
        if name == b"ZREM":
            return sum(self.data.get(key, {}).pop(each, None) is not None for each in args[1:])
        if name in (b"ZRANGE", b"ZRANGEBYSCORE"):
            members = self.data.get(key, {})
            if b"WITHSCORES" in args:
                return [part for member, score in members.items() for part in (member, b"%g" % score)]
            return list(members)
        if name == b"CLIENT":
            return self.data.get(b"CLIENT LIST", b"")
        return 0  # PUBLISH, PEXPIRE


class FakeConsumer:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.windows: dict[str, int] = {}
        self.acknowledged: list[Delivery] = []
        self.released: list[Delivery] = []
        self.abandoned: list[str] = []
        self.deleted: list[str] = []
        self.retiring: dict[str, Callable[[], None]] = {}
        self.allowed: list[str] = []
        self.full = True

    def subscribe(self, queue: str, *, prefetch: int, exclusive: bool = False) -> None:
        self.windows[queue] = prefetch

    def allow_more(self, queue: str) -> bool:
        self.allowed.append(queue)
        return self.full

    def unsubscribe(self, queue: str) -> None:
        self.windows.pop(queue, None)

    def abandon(self, queue: str) -> None:
        self.windows.pop(queue, None)
        self.abandoned.append(queue)

    def ack(self, delivery: Delivery) -> None:
        self.acknowledged.append(delivery)

    def release(self, delivery: Delivery) -> None:
        self.released.append(delivery)

    def delete_queue(self, queue: str, *, if_empty: bool = False) -> None:
        self.deleted.append(queue)

    def retire_queue(self, queue: str, on_retired: Callable[[], None]) -> None:
        self.retiring[queue] = on_retired

    def close(self) -> None:
        self.windows.clear()


class FakePublisher:
    """Keeps messages until they are confirmed; `away` makes the next ones fail."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes, int]] = []
        self.unconfirmed: list[Callable[[], None]] = []
        self.away = 0
        self.flushes = True

    def publish(self, queue: str, body: bytes, *, priority: int = 0, on_confirm: Any = None) -> None:
        if self.away:
            self.away -= 1
            raise ConnectionLost("away")
        self.messages.append((queue, body, priority))
        if on_confirm is not None:
            self.unconfirmed.append(on_confirm)

    def confirm(self) -> None:
        """The broker has everything."""
        confirmed, self.unconfirmed = self.unconfirmed, []
        for each in confirmed:
            each()

    def flush(self, timeout: float) -> bool:
        if self.flushes:
            self.confirm()
        return self.flushes


class FakeExecutor(Executor):
    """An executor without a process: keeps what it is told."""

    def __init__(self, pid: int = 1, key: tuple[bytes, bytes] = (b"jjjj", b"")) -> None:
        super().__init__(pid, key)
        self.client_id = new_client_id()
        self.sent: list[list[Any]] = []
        self.signals: list[int] = []
        self.skipped: list[bytes] = []
        self.ended = False
        self.exited = False
        self.outputs = (-1, -1)
        self.tails = {0: b"", 1: b""}
        self.progress = SimpleNamespace(
            started=[0],
            revocations=[0, 0, 0],
            cancel=self.skipped.append,
            spare_children_of=lambda task_id: None,
            close=lambda: None,
            tail=self.tails.get,
        )

    def send(self, message: list[Any]) -> None:
        self.sent.append(message)

    def kill(self, number: int = 9) -> None:
        self.signals.append(number)

    def end(self) -> None:
        self.ended = True

    def on_exit(self) -> None:
        self.exited = True

    def close(self) -> None:
        self.state = State.DEAD

    def words(self) -> list[Any]:
        return [message[0] for message in self.sent]

    def ran(self) -> list[bytes]:
        """Return the ids of the tasks it was given."""
        return [each[0] for message in self.sent if message[0] == RUN for each in message[3]]


class FakeCommits:
    """Keeps what it is told to commit; `away` makes the next calls fail."""

    def __init__(self, settle: Callable[[Held, int], None]) -> None:
        self._settle = settle
        self.results: dict[bytes, bytes | Exception] = {}
        self.ended: list[bytes] = []
        self.stands: list[bytes] = []
        self.away = 0

    def _check(self) -> None:
        if self.away:
            self.away -= 1
            raise ConnectionLost("away")

    def commit(self, held: Held, header: TaskHeader, items: list[bytes], ended: list[bytes], *, stands: bool = False):
        self._check()
        self.ended += ended
        if stands:
            self.stands += ended
        for key, record in zip(items[::2], items[1::2], strict=True):
            self.results[key[:-4]] = record

    def commit_records(self, failed: list[Any]) -> None:
        self._check()
        for _, _, each, record in failed:
            self.results[each[0]] = record

    def commit_record(self, held: Held, header: TaskHeader, each: Task, record: bytes, *, outstanding: bool = False):
        self.commit_records([(held, header, each, record)])
        if outstanding:
            self._settle(held, 1)

    def commit_error(self, held: Held, header: TaskHeader, each: Task, error: Exception, *, outstanding: bool = False):
        self.commit_record(held, header, each, records.ERROR, outstanding=outstanding)
        self.results[each[0]] = error


class FakePublishing:
    """Keeps what is published, and what results released."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes, int]] = []
        self.confirms: list[Callable[[], None] | None] = []
        self.released: list[tuple[list[Held], list[Any], bool]] = []
        self.flushes = True

    def publish(self, queue: str, frame: bytes, priority: int, confirmed: Any = None) -> None:
        self.messages.append((queue, frame, priority))
        self.confirms.append(confirmed)

    publish_now = publish

    def publish_dependants(self, helds: list[Held], dependants: list[Any], *, noted: bool = False) -> None:
        self.released.append((helds, dependants, noted))

    def flush(self, timeout: float) -> bool:
        return self.flushes

    def confirm(self) -> None:
        confirms, self.confirms = self.confirms, []
        for each in confirms:
            if each is not None:
                each()


class FakeFailing:
    """Keeps what fails."""

    def __init__(self) -> None:
        self.failed: dict[bytes, Any] = {}

    def add(self, failed: Iterable[Any]) -> None:
        self.failed.update((each[0], record) for _, _, each, record in failed)

    gather = add

    def fail_tasks(self, held: Held, header: TaskHeader, tasks: list[Task], error: Exception) -> None:
        self.failed.update((each[0], error) for each in tasks)


class FakePeers:
    """Other nodes, as a test wants them."""

    def __init__(self) -> None:
        self.has_others = True
        self.alive: set[bytes] = set()
        self.room = True
        self.lost = False
        self.groups_with_room: set[bytes] = set()
        self.on_other_hosts = False
        self.room_at: dict[bytes, list[bytes]] = {}  # by host: nodes, one for each task that has room there

    def is_alive(self, node: bytes) -> bool:
        return node in self.alive

    def is_orphaned(self, place: Any) -> bool:
        return place.kind is QueueKind.NODE and place.id not in self.alive

    def room_elsewhere(self, request: Any, selector: str = "") -> bool:
        return self.room

    def room_inside(self, group: bytes, request: Any) -> bool:
        return group in self.groups_with_room

    def take_room(self, hosts: list[bytes], request: Any, selector: str) -> bytes | None:
        return next((self.room_at[host].pop() for host in hosts if self.room_at.get(host)), None)

    def lost_a_node(self) -> bool:
        return self.lost


class World:
    """A node, and fakes of all that stands around one part of it."""

    def __init__(self, cpus: float = 1.0, *, embedded: bool = False, **settings: Any) -> None:
        endpoint = Endpoint("redis://nowhere", None if embedded else "amqp://nowhere", (b"s" * 32,), "test:")
        config = NodeConfig(endpoint=endpoint, totals={"CPU": cpus}, name="n", host=b"h" * 16, **settings)
        self.loop, self.store = FakeLoop(), FakeStore()
        self.node = Node.of(config, self.loop, self.store, Signer(endpoint.secrets))  # type: ignore[arg-type]
        self.store.node = self.node
        self.ledger = Ledger(self.node.totals)
        self.lanes = Lanes(self.ledger)
        self.executors: dict[int, Executor] = {}
        self.life = Life(self.loop.stop)
        self.consumer, self.publisher = FakeConsumer(), FakePublisher()
        self.settled: list[tuple[Held, int]] = []
        self.commits = FakeCommits(self.settle)
        self.publishing, self.failing, self.peers = FakePublishing(), FakeFailing(), FakePeers()
        self.served: list[Lane] = []
        self.served_all = 0

    def settle(self, held: Held, count: int) -> None:
        held.outstanding -= count
        self.settled.append((held, count))

    def serve(self, lane: Lane) -> None:
        self.served.append(lane)

    def serve_all(self) -> None:
        self.served_all += 1

    def wait(self, count: int = 1, *, first: int = 1, **fields: Any) -> Piece:
        """Put tasks into their lane, and return their piece."""
        head = header(OWNER, **fields)
        held = Held(None, QUEUE)
        held.outstanding = count
        tasks = deque(task(head.owner, first + at) for at in range(count))
        piece = Piece(held, encode_header(head), head, tasks)
        self.lanes.of(head).put(piece)
        return piece

    def executor(self, pid: int = 1, *, lane: Lane | None = None, state: State = State.LEASED) -> FakeExecutor:
        """Enter an executor; one with a lane is leased for it."""
        executor = self.executors[pid] = FakeExecutor(pid)
        executor.state = state
        if lane is not None:
            executor.lane, executor.grant = lane, self.ledger.force_acquire(lane.request)
            lane.executors.append(executor)
        return executor

    def chunk(self, executor: Executor, count: int = 1, *, first: int = 1, held: Held | None = None, **fields: Any):
        """Have an executor been sent tasks."""
        head = header(OWNER, **fields)
        held = held or Held(None, QUEUE)
        held.outstanding += count
        piece = Piece(held, encode_header(head), head, deque())
        chunk = Chunk(piece, executor.next_sequence, [task(head.owner, first + at) for at in range(count)])
        executor.next_sequence = chunk.end
        executor.chunks.append(chunk)
        return chunk


def ids(tasks: Iterable[Task]) -> list[bytes]:
    """Return the ids of tasks."""
    return [each[0] for each in tasks]


def delivery(body: bytes = b"", *, queue: str = QUEUE, redelivered: bool = False) -> Delivery:
    """Return a message as the consumer hands it over."""
    return Delivery(queue, body, None, redelivered)
