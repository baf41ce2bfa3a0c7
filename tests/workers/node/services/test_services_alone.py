"""The services of a node with a store in memory: clients in executors, drivers, memory, output, janitor, turns."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_broker.errors import ConnectionLost, StoreError
from rabbitry_broker.ids import new_client_id
from rabbitry_broker.messages import decode, encode
from rabbitry_broker.output_marks import for_pipe, read_file_mark
from rabbitry_broker.queue_names import node_queue, task_queue
from rabbitry_workers.node.peers.names import connection_name
from rabbitry_workers.node.services import clients, drivers, janitor, memory, output
from rabbitry_workers.node.services.clients import ExecutorClients
from rabbitry_workers.node.services.drivers import Drivers
from rabbitry_workers.node.services.janitor import Janitor
from rabbitry_workers.node.services.log_files import LogFiles
from rabbitry_workers.node.services.memory import (
    SMALLEST_LIMIT,
    MemoryWatch,
    limit_from_environment,
    memory_of,
    own_memory_of,
)
from rabbitry_workers.node.services.output import OutputReader, address_of
from rabbitry_workers.node.services.turns import takes_turn
from rabbitry_workers.node.services.wrong_types import put_aside_wrong_types
from tests.workers.node.fakes import FakeExecutor, World

OTHER = b"n" * 28
WRONG = StoreError("WRONGTYPE Operation against a key holding the wrong kind of value")


class Lives:
    """Clears up after clients in one step each."""

    def __init__(self) -> None:
        self.left: list[bytes] = []
        self.erased: list[bytes] = []
        self.trouble: list[Exception] = []
        self.keys: list[bytes] = []

    def leave(self, dead: Any, orphan: Any, note: Any = None) -> Iterator[None]:
        if self.trouble:
            raise self.trouble.pop(0)
        yield
        for key in self.keys if note is not None else ():
            note(key)
        self.left += dead
        orphan([b"object"])

    def erase(self, client: bytes) -> Iterator[None]:
        self.erased.append(client)
        yield

    def lay_ghosts(self) -> None:
        pass


class Servants(World):
    def __init__(self, **settings: Any) -> None:
        super().__init__(client_lease=12.0, lease=10.0, **settings)
        self.lives = Lives()
        self.registered: set[bytes] = set()
        self.jobs_ended: list[bytes] = []
        self.orphans: list[bytes] = []
        self.taken_over: list[bytes] = []
        self.condemned: list[bytes] = []
        self.store.lives = self.lives  # type: ignore[attr-defined]
        self.store.registered = lambda some: [each for each in some if each in self.registered]  # type: ignore[attr-defined]
        self.store.end_job = self.jobs_ended.append  # type: ignore[attr-defined]
        self.store.condemn = lambda client, too_old: self.condemned.append(client) or True  # type: ignore[attr-defined]
        self.clients = ExecutorClients(self.node, self.orphans.extend)
        self.drivers = Drivers(self.node)
        self.janitor = Janitor(self.node, self.consumer, self.orphans.extend, self.take_over)

    def take_over(self, node: bytes) -> int:
        self.taken_over.append(node)
        if self.lives.trouble:
            raise self.lives.trouble.pop(0)
        return 1


@pytest.fixture
def world() -> Servants:
    return Servants()


@pytest.fixture(autouse=True)
def _no_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "sweep_dead_sessions", lambda: None)
    monkeypatch.setattr(janitor, "put_aside_wrong_types", lambda store: 0)


# -- clients in executors ----------------------------------------------------------------------------------------------


def test_leases_of_executors_are_renewed_while_they_live(world: Servants):
    executor = FakeExecutor(5)
    world.clients.started(executor, b"client")
    world.clients.start()
    world.loop.run(3.0)
    assert (b"keep", (b"client",), 12.0) in world.store.sent
    world.clients.gone(executor)
    world.clients.gone(executor)
    world.store.sent.clear()
    world.clients.renew()
    assert not world.store.sent


@pytest.mark.parametrize("trouble", [None, ConnectionLost("away"), ValueError("nonsense")])
def test_an_executor_that_ended_without_a_goodbye_is_cleared_up_after(world: Servants, trouble: Any):
    world.registered.add(b"client")
    world.lives.trouble = [trouble] if trouble else []
    executor = FakeExecutor(5)
    world.clients.started(executor, b"client")
    world.clients.gone(executor)
    for _ in range(clients.DEAD_SESSIONS_ROUNDS):
        world.clients.run_once()
    world.loop.run(1.0)
    assert world.lives.left == ([] if trouble else [b"client"])
    assert world.orphans == ([] if trouble else [b"object"])


# -- drivers -----------------------------------------------------------------------------------------------------------


def silent_driver(world: Servants, *, connected: bool) -> bytes:
    client = new_client_id()
    world.store.data[world.node.keys.drivers] = {client: 0.0, b"stranger": 0.0}
    names = [connection_name(world.node.id)] + ([drivers_name(client)] if connected else [])
    world.store.data[b"CLIENT LIST"] = b"".join(b"id=1 name=%s db=0\n" % name.encode() for name in names)
    return client


def drivers_name(client: bytes) -> str:
    from rabbitry_broker.store.presence import driver_connection

    name = driver_connection(client)
    return name if name.startswith("rabbitry-") else f"rabbitry-{name}"


def test_a_silent_driver_is_kept_while_it_is_connected(world: Servants):
    client = silent_driver(world, connected=True)
    world.drivers.start()
    world.loop.run(4.0)
    assert not world.store.sent, "the sign of life of the node has told of none"
    world.drivers.look_soon()
    world.loop.run(4.0)
    assert (b"keep", (client,), 12.0) in world.store.sent
    assert not world.condemned
    assert not world.drivers.is_silent(client)


def test_one_without_a_connection_in_two_looks_is_condemned(world: Servants):
    client = silent_driver(world, connected=False)
    world.drivers.run_once()
    assert not world.condemned
    assert world.drivers.is_silent(client)
    world.loop.run(drivers.CONFIRM_SECONDS)
    assert world.condemned == [client]


@pytest.mark.parametrize("why", ["away", "untrusted"])
def test_nobody_is_condemned_while_redis_is_in_trouble(world: Servants, why: str):
    silent_driver(world, connected=False)
    world.drivers.run_once()
    if why == "away":
        world.store.away = 1
    else:
        world.store.trusted = False
    world.loop.run(drivers.CONFIRM_SECONDS)
    assert not world.condemned


def test_leases_decide_where_connections_cannot_be_seen(world: Servants):
    client = silent_driver(world, connected=False)
    world.store.data[b"CLIENT LIST"] = b"id=1 name=proxy\n"
    assert world.drivers.keep_connected() == {}
    call = world.store.call

    def refuse(*command: Any) -> Any:
        if command[0] == b"CLIENT":
            raise StoreError("NOPERM")
        return call(*command)

    world.store.call = refuse  # type: ignore[method-assign]
    assert world.drivers.keep_connected() == {}
    assert not world.drivers.is_silent(client)


# -- memory ------------------------------------------------------------------------------------------------------------


def test_an_executor_that_takes_too_much_is_killed_once(world: Servants, monkeypatch: pytest.MonkeyPatch):
    executor, idle = world.executor(1), world.executor(2)
    world.chunk(executor)
    executor.progress.started[0] = 1
    monkeypatch.setattr(memory, "memory_of", lambda pid: 300 << 20)
    monkeypatch.setattr(memory, "own_memory_of", lambda pid: 300 << 20)
    watch = MemoryWatch(world.node, world.executors, 200 << 20)
    watch.start()
    world.loop.run(1.0)
    assert executor.signals == idle.signals == [9]
    assert "300 MiB" in executor.over_memory
    assert "out of memory" in executor.leaving


def test_what_an_executor_shares_with_its_template_does_not_count(world: Servants, monkeypatch: pytest.MonkeyPatch):
    executor = world.executor(1)
    looks, own, has = [], 20, 300

    def own_memory_of(pid: int) -> int:
        looks.append(pid)
        return own << 20

    monkeypatch.setattr(memory, "memory_of", lambda pid: has << 20)
    monkeypatch.setattr(memory, "own_memory_of", own_memory_of)
    watch = MemoryWatch(world.node, world.executors, 200 << 20)
    for _ in range(5):
        watch.run_once()
    assert executor.signals == [] and looks == [executor.pid], "nor is it looked at closely each time"
    own, has = 250, 530  # within that second
    watch.run_once()
    assert executor.signals == [9] and "250 MiB" in executor.over_memory
    world.executors.clear()
    watch.run_once()
    assert watch._closer == {}


def test_where_nobody_says_what_is_shared_all_counts(world: Servants, monkeypatch: pytest.MonkeyPatch):
    executor = world.executor(1)
    monkeypatch.setattr(memory, "memory_of", lambda pid: 300 << 20)
    monkeypatch.setattr(memory, "own_memory_of", lambda pid: None)
    MemoryWatch(world.node, world.executors, 200 << 20).run_once()
    assert executor.signals == [9]


def test_a_forked_process_s_own_memory_is_what_it_has_written_to():
    kept = bytearray(b"x" * (48 << 20))
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        own = own_memory_of(os.getpid()) or 0
        kept[::4096] = b"y" * len(kept[::4096])
        os.write(write, f"{own} {own_memory_of(os.getpid())}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    before, after = map(int, os.read(read, 100).split())
    os.close(read)
    os.close(write)
    assert before < 24 << 20 < 48 << 20 <= after
    assert own_memory_of(2**30) is None


def test_without_a_limit_nothing_is_watched(world: Servants):
    watch = MemoryWatch(world.node, world.executors, None)
    watch.start()
    watch.run_once()
    assert world.loop.pending == 0


def test_the_memory_of_a_process_is_read_and_that_of_none_is_nothing():
    assert memory_of(os.getpid()) > 0
    assert memory_of(2**30) == 0


@pytest.mark.parametrize(("text", "limit"), [("", None), ("0", None), (str(SMALLEST_LIMIT), SMALLEST_LIMIT)])
def test_the_limit_comes_from_the_environment(text: str, limit: int | None):
    assert limit_from_environment({memory.VARIABLE: text}) == limit


@pytest.mark.parametrize("text", ["1", "much", "-5"])
def test_an_impossible_limit_says_so(text: str):
    with pytest.raises(ValueError, match="number of bytes"):
        limit_from_environment({memory.VARIABLE: text})


# -- output ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def printing(world: Servants, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    executor, ends = FakeExecutor(7), [os.pipe(), os.pipe()]
    executor.outputs = (ends[0][0], ends[1][0])
    monkeypatch.setenv("RABBITRY_LOG_DIR", str(tmp_path))
    reader = OutputReader(world.node, LogFiles(b"node", passing=True))
    reader.watch(executor)
    yield SimpleNamespace(world=world, executor=executor, reader=reader, out=ends[0], err=ends[1])
    for pair in ends:
        for fd in pair:
            with suppress(OSError):
                os.close(fd)


def published(world: Servants) -> list[Any]:
    return [
        decode(world.node.signer.open(b"logsjjjj", command[2]))
        for command in world.store.sent
        if command[0] == b"PUBLISH"
    ]


def test_lines_are_published_in_the_name_of_what_runs_and_the_rest_at_the_end(printing: Any):
    world = printing.world
    world.chunk(printing.executor)
    printing.executor.progress.started[0] = 1
    os.write(printing.out[1], b"one\ntwo")
    world.loop.handlers[printing.out[0]](printing.out[0], 1)
    os.close(printing.out[1])
    world.loop.handlers[printing.out[0]](printing.out[0], 1)
    assert [(name, pid, is_error, lines) for name, pid, _, _, is_error, lines, _ in published(world)] == [
        ("f", 7, False, [b"one"]),
        ("f", 7, False, [b"two"]),
    ]
    assert printing.out[0] not in world.loop.handlers


def test_what_is_there_is_published_before_the_token_and_lost_output_is_no_trouble(printing: Any):
    world = printing.world
    os.write(printing.err[1], b"partial")
    printing.reader.flush(b"jjjj", b"token")
    *_, text, last = published(world)
    assert (text[4], text[5], last[6]) == (True, [b"partial"], b"token")
    world.store.away = 1
    printing.reader.send(b"jjjj", [])
    os.write(printing.out[1], b"slow")
    world.loop.handlers[printing.out[0]](printing.out[0], 1)
    world.loop.run(output.PARTIAL_SECONDS * 3)
    assert published(world)[-1][5] == [b"slow"]


def test_a_process_that_died_is_quoted_down_to_what_it_had_not_written(printing: Any, tmp_path: Path):
    world, executor, reader = printing.world, printing.executor, printing.reader
    one, two = b"\1" * 24, b"\2" * 24
    os.write(printing.out[1], for_pipe(one, "one").encode() + b"of another\n" + for_pipe(two, "two").encode())
    os.write(printing.out[1], b"said\x1b[2J\n")
    executor.tails = {0: b"kept back", 1: b""}
    executor.progress.tail = executor.tails.get
    reader.ended(executor)
    told = reader.last_words(executor, two)
    assert "of another" not in told
    assert "\n    said\\x1b[2J\n    kept back\n" in told
    assert f"rabbitry logs task --id {two.hex()}" in told
    assert [lines for *_, lines, _ in published(world)] == [[b"of another"], [b"said\x1b[2J"], [b"kept back"]]
    (file,) = tmp_path.glob("node-*/worker-*.out")
    marks = [read_file_mark(line) for line in file.read_bytes().split(b"\n")]
    assert [mark[2] for mark in marks if mark] == ["one", "two"]
    assert file.read_bytes().endswith(b"said\x1b[2J\nkept back\n")


def test_a_process_that_said_nothing_is_not_quoted(printing: Any):
    printing.reader.ended(printing.executor)
    assert printing.reader.last_words(printing.executor, b"\1" * 24) == ""


def test_the_address_of_this_host_is_that_by_which_it_reaches_the_servers(world: Servants):
    endpoint: Any = SimpleNamespace(broker_url="amqp://127.0.0.1:1/x", store_url="")
    assert address_of(endpoint) == "127.0.0.1"
    assert address_of(SimpleNamespace(broker_url=None, store_url="unix:///x")) == ""  # type: ignore[arg-type]


# -- janitor -----------------------------------------------------------------------------------------------------------


def dead_client(world: Servants) -> bytes:
    client = new_client_id()
    world.store.data[world.node.keys.clients] = {client: 0.0, b"stranger": 0.0}
    return client


def test_the_janitor_clears_up_after_clients_whose_lease_ended_and_ends_their_jobs(world: Servants):
    client, node = dead_client(world), world.node
    world.store.data[node.keys.job(b"jjjj")] = node.signer.seal(b"jobjjjj", encode({"client": client}))
    world.store.data[node.keys.job(b"fake")] = b"forged"
    world.lives.keys = [node.keys.job(b"jjjj"), node.keys.job(b"fake"), node.keys.prefix + b"j:strange", b"other"]
    world.janitor.start()
    world.loop.run(janitor.INTERVAL_SECONDS + 1.0)
    assert world.lives.left == [client]
    assert world.jobs_ended == [b"jjjj"]
    assert b"stranger" not in world.store.data[node.keys.clients]


def test_one_of_the_dead_with_keys_of_a_wrong_type_keeps_the_janitor_from_nothing(world: Servants):
    client = dead_client(world)
    world.lives.trouble = [WRONG, WRONG]
    world.janitor.run_once()
    assert world.lives.erased == [client]
    assert world.store.aside


def test_the_work_of_a_dead_node_is_taken_over_and_its_record_goes_after_a_while(world: Servants):
    keys = world.node.keys
    world.store.data[keys.nodes] = {OTHER: b"", world.node.id: b""}
    world.janitor.run_once()
    assert world.taken_over == [OTHER]
    world.store.clock += janitor.DEAD_NODES_KEPT_SECONDS + 1
    world.lives.trouble = [WRONG]
    world.janitor.run_once()
    assert list(world.store.data[keys.nodes]) == [world.node.id]
    assert world.store.aside


def test_a_node_that_is_back_is_not_dead_any_more(world: Servants):
    keys = world.node.keys
    world.store.data.update({
        keys.nodes: {OTHER: b""}, keys.node(OTHER): b"", keys.nodes + b":died": {OTHER: b"1", b"left": b"1"},
    })  # fmt: skip
    world.janitor.run_once()
    assert not world.taken_over
    assert keys.nodes + b":died" not in world.store.data


def test_queues_of_forgotten_nodes_are_deleted_after_a_while(world: Servants, monkeypatch: pytest.MonkeyPatch):
    queue = node_queue(OTHER)
    world.store.data[world.node.keys.queues] = [queue.encode(), b"nonsense", b"task.CPU=1"]
    world.janitor.run_once()
    assert not world.consumer.deleted
    monkeypatch.setattr(janitor, "QUEUES_KEPT_SECONDS", -1.0)
    world.janitor.run_once()
    assert world.consumer.deleted == [queue]


@pytest.mark.parametrize(
    ("queue", "seconds"),
    [
        (task_queue("CPU=1"), janitor.IDLE_QUEUES_KEPT_SECONDS),
        (task_queue("CPU=1", job=b"here"), janitor.IDLE_QUEUES_KEPT_SECONDS),
        (task_queue("CPU=1", job=b"left"), janitor.QUEUES_KEPT_SECONDS),
    ],
)
def test_queues_of_classes_go_when_nobody_has_used_them_for_long(world: Servants, queue: str, seconds: float):
    keys, name = world.node.keys, queue.encode()
    world.store.data[keys.queues] = [name, b"task.(nonsense", b"\xff"]
    world.store.data[keys.jobs] = {b"here": 1.0}
    world.store.data[keys.used] = {b"gone": b"1"}
    world.janitor.run_once()
    assert list(world.store.data[keys.used]) == [name], "it counts from the first look on"
    world.store.clock += seconds - 1.0
    world.janitor.run_once()
    assert not world.consumer.retiring
    world.store.clock += 2.0
    world.janitor.run_once()
    assert list(world.consumer.retiring) == [queue]
    world.consumer.retiring.clear()
    world.janitor.run_once()
    assert not world.consumer.retiring, "one that holds messages is asked again after as long"
    world.store.clock += seconds + 1.0
    world.janitor.run_once()
    world.consumer.retiring[queue]()
    assert (b"SREM", keys.queues, name) in world.store.sent
    assert keys.used not in world.store.data


def test_cancellations_are_forgotten_when_they_are_over(world: Servants):
    world.store.data[world.node.keys.cancelled] = {b"task": 1.0}
    world.janitor.run_once()
    assert not world.store.data[world.node.keys.cancelled]


def its_turn(world: Servants) -> None:
    """It is nobody's turn, and the node was told so."""
    del world.store.data[world.node.keys.janitor]
    world.node.turns.told(world.node.keys.janitor, -2)


@pytest.mark.parametrize("error", [ConnectionLost("away"), ValueError("nonsense")])
def test_a_round_that_fails_is_not_the_last(world: Servants, error: Exception):
    dead_client(world)
    world.lives.trouble = [error]
    world.janitor.start()
    world.loop.run(janitor.INTERVAL_SECONDS + 1.0)
    its_turn(world)
    world.loop.run(janitor.INTERVAL_SECONDS + 1.0)
    assert len(world.lives.left) == 1
    its_turn(world)
    world.store.away = 1
    world.loop.run(janitor.INTERVAL_SECONDS + 1.0)
    assert world.loop.pending


# -- turns and wrong types ---------------------------------------------------------------------------------------------


def test_a_turn_is_one_nodes_and_a_key_that_would_not_end_goes(world: Servants):
    store: Any = world.store
    assert takes_turn(store, b"turn", OTHER, 60.0)
    assert not takes_turn(store, b"turn", OTHER, 60.0)
    pipeline = store.pipeline
    store.pipeline = lambda commands: [pipeline(commands)[0], -1]
    assert not takes_turn(store, b"turn", OTHER, 60.0)
    assert takes_turn(store, b"turn", OTHER, 60.0)


def test_shared_keys_of_a_wrong_type_go_and_are_counted():
    keys = World().node.keys
    wrong = {keys.clients, keys.put_aside + b":count"}
    gone: list[bytes] = []

    def call(name: bytes, key: bytes, *rest: bytes) -> Any:
        if name == b"UNLINK":
            gone.append(key)
            wrong.discard(key)
        elif key in wrong:
            if name == b"GET":
                return b"no number"
            raise WRONG
        return None

    store: Any = SimpleNamespace(
        keys=keys, call=call, pipeline=lambda some: [call(*each) for each in some], put_aside=lambda *_: None
    )
    assert put_aside_wrong_types(store) == 2
    assert set(gone) == {keys.clients, keys.put_aside + b":count"}
    assert put_aside_wrong_types(store) == 0
