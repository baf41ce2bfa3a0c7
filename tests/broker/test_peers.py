"""Large values from host to host: what two peers say to each other, and what nobody else gets."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from rabbitry_broker import shared_memory
from rabbitry_broker.ids import OBJECT_BYTES
from rabbitry_broker.records import TOKEN_BYTES
from rabbitry_broker.shared_memory import SharedMemoryStore, default_directory
from rabbitry_broker.signing import SIGNATURE_BYTES, Signer
from rabbitry_broker.store.peers import reading, serving, session
from rabbitry_broker.store.peers.directory import Place
from rabbitry_broker.store.peers.reading import PeerReader
from rabbitry_broker.store.peers.serving import PeerServer, listen
from rabbitry_broker.store.peers.session import Ask, as_reader, as_server
from rabbitry_broker.store.peers.wire import PeerLost, Wire
from rabbitry_broker.store.redis.address import parse
from tests.broker.between import Between
from tests.servers import wait_until

HOST, HERE = b"the host that made it", b"the host that reads it"
GREETING_BYTES = len(session.MAGIC) + session.NONCE_BYTES
PROOF_BYTES = GREETING_BYTES + SIGNATURE_BYTES
PLAIN = parse("redis://nowhere")
MIB = 1 << 20


def new_name() -> bytes:
    return secrets.token_bytes(OBJECT_BYTES + TOKEN_BYTES)


class Places:
    """A directory whose entries a test writes."""

    def __init__(self) -> None:
        self.places: dict[bytes, Place] = {}
        self.forgotten: list[bytes] = []

    def find(self, host: bytes) -> Place | None:
        return self.places.get(host)

    def forget(self, host: bytes, place: Place) -> None:
        self.forgotten.append(host)


class World:
    """Two hosts: one makes values and serves them, the other one reads them."""

    def __init__(self) -> None:
        self.signer = Signer((secrets.token_bytes(32),))
        self.made = SharedMemoryStore(f"made{secrets.token_hex(4)}")
        self.read = SharedMemoryStore(f"read{secrets.token_hex(4)}")
        self.places = Places()
        self.servers: list[PeerServer] = []
        self.readers: list[PeerReader] = []
        self.betweens: list[Between] = []

    def serve(self, host: bytes = HOST, **options: Any) -> PeerServer:
        server = PeerServer(listen("127.0.0.1", 0), self.made, self.signer, host, **options)
        server.start()
        self.places.places[host] = ("127.0.0.1", server.port)
        self.servers.append(server)
        return server

    def reader(self, signer: Signer | None = None) -> PeerReader:
        self.readers.append(PeerReader(self.places, signer or self.signer, PLAIN))
        return self.readers[-1]

    def between(self, server: PeerServer, host: bytes = HOST) -> Between:
        self.betweens.append(Between(server.port))
        self.places.places[host] = ("127.0.0.1", self.betweens[-1].port)
        return self.betweens[-1]

    def fetch(self, reader: PeerReader, name: bytes, sizes: list[int], *, digest: bool = False) -> bool:
        return reader.read(HOST, name, sizes, lambda fill: self.read.receive(name, sizes, fill), digest=digest)

    def values(self, name: bytes) -> list[bytes]:
        return [bytes(each) for each in self.read.open(name)[1]]

    def files(self) -> list[str]:
        start = f"rabbitry-{self.read.session_id}-"
        return [name for name in os.listdir(default_directory()) if name.startswith(start) and "lock" not in name]

    def close(self) -> None:
        for each in (*self.readers, *self.betweens, *self.servers):
            each.close()
        for memory in (self.made, self.read):
            memory.clear()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()
    wait_until(lambda: not [each for each in threading.enumerate() if each.name.startswith("rabbitry-peer")], "it ends")


def test_values_come_as_they_were_made_over_one_connection(world: World) -> None:
    between = world.between(world.serve())
    reader = world.reader()
    for buffers in ([os.urandom(3 * MIB)], [b"", b"some", os.urandom(70_001), b""], [b"x" * 7] * 2000):
        name = new_name()
        world.made.create(name, buffers)
        assert world.fetch(reader, name, [len(each) for each in buffers])
        assert world.values(name) == buffers
    assert len(between.to_server) == 1
    assert not reader.read(HOST, new_name(), [5], lambda fill: None, digest=False), "there is no such value"


def test_a_pickle_among_the_bytes_is_compared_with_what_the_maker_has(world: World) -> None:
    world.serve()
    reader, name, buffers = world.reader(), new_name(), [os.urandom(300_000), os.urandom(100)]
    world.made.create(name, buffers)
    assert world.fetch(reader, name, [300_000, 100], digest=True)
    assert world.values(name) == buffers


def test_a_value_without_bytes_comes_too(world: World) -> None:
    world.serve()
    reader, name = world.reader(), new_name()
    world.made.create(name, [b"", b""])
    assert world.fetch(reader, name, [0, 0])
    assert world.values(name) == [b"", b""]
    other = new_name()
    world.made.create(other, [b"next"])
    assert world.fetch(reader, other, [4])


def test_who_has_another_secret_learns_nothing(world: World) -> None:
    between = world.between(world.serve())
    name = new_name()
    world.made.create(name, [b"confidential"])
    with pytest.raises(PeerLost):
        world.fetch(world.reader(Signer((b"another secret of 30 characters",))), name, [12])
    assert [len(each) for each in between.to_reader] == [GREETING_BYTES], "it is told no more than a nonce"
    assert not world.files()


def test_a_node_without_the_secret_is_not_believed(world: World) -> None:
    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(target=lambda: _impostor(listener, world.signer))
    thread.start()
    world.places.places[HOST] = ("127.0.0.1", listener.getsockname()[1])
    with pytest.raises(PeerLost, match="does not have the cluster's secret"):
        world.fetch(world.reader(), new_name(), [12])
    thread.join(10)
    listener.close()


def _impostor(listener: socket.socket, signer: Signer) -> None:
    """Answer a reader with his own proof, which is all that one without the secret has."""
    connection, _ = listener.accept()
    with connection:
        connection.sendall(session.MAGIC + bytes(session.NONCE_BYTES))
        proof = connection.recv(PROOF_BYTES, socket.MSG_WAITALL)
        connection.sendall(proof[-SIGNATURE_BYTES:])
        connection.recv(1)


def test_a_node_of_another_host_is_not_taken_for_the_right_one(world: World) -> None:
    server = world.serve(b"another host")
    world.places.places[HOST] = ("127.0.0.1", server.port)
    with pytest.raises(PeerLost):
        world.fetch(world.reader(), new_name(), [12])


def test_what_was_recorded_of_one_connection_is_worth_nothing_on_another(world: World) -> None:
    server = world.serve()
    between = world.between(server)
    name = new_name()
    world.made.create(name, [b"confidential"])
    assert world.fetch(world.reader(), name, [12])
    with socket.create_connection(("127.0.0.1", server.port), 10) as replayed:
        replayed.sendall(between.to_server[0])
        assert len(_all(replayed)) == GREETING_BYTES


def _all(sock: socket.socket) -> bytes:
    found = b""
    try:
        while data := sock.recv(1 << 16):
            found += data
    except ConnectionResetError:
        pass
    return found


def test_an_ask_counts_once(world: World) -> None:
    server = world.serve()
    name = new_name()
    world.made.create(name, [b"confidential"])
    between = world.between(server)
    # The second time the same bytes come, they stand for another ask.
    between.change = lambda to_server, before, data: data * 2 if to_server and before >= PROOF_BYTES else data
    assert world.fetch(world.reader(), name, [12])
    wait_until(lambda: not server._open, "the connection is ended")
    assert between.to_reader[0].count(b"confidential") == 1


@pytest.mark.parametrize("direction", ["to the server", "to the reader"])
def test_a_message_that_is_changed_on_its_way_ends_the_connection(world: World, direction: str) -> None:
    between = world.between(world.serve())
    name = new_name()
    world.made.create(name, [b"confidential"])

    def change(to_server: bool, before: int, data: bytes) -> bytes:
        if to_server == (direction == "to the server") and before + len(data) > PROOF_BYTES:  # the same both ways
            return data[:-1] + bytes((data[-1] ^ 1,))
        return data

    between.change = change
    with pytest.raises(PeerLost):
        world.fetch(world.reader(), name, [12])
    assert not world.files()


def test_a_changed_pickle_is_not_taken_over(world: World) -> None:
    between = world.between(world.serve())
    name, stream = new_name(), os.urandom(MIB)
    world.made.create(name, [stream])
    between.change = lambda to_server, before, data: data if to_server else data.replace(stream[500:510], b"0" * 10)
    with pytest.raises(PeerLost, match="pickle"):
        world.fetch(world.reader(), name, [MIB], digest=True)
    assert not world.files()


@pytest.mark.parametrize("bytes_before_the_end", [30, 200, MIB, 3 * MIB - 1, 3 * MIB + 90])
def test_half_a_value_is_none(world: World, bytes_before_the_end: int) -> None:
    between = world.between(world.serve())
    name = new_name()
    world.made.create(name, [os.urandom(3 * MIB)])
    between.change = lambda to_server, before, data: (
        data if to_server or before + len(data) <= bytes_before_the_end else None
    )
    with pytest.raises(PeerLost):
        world.fetch(world.reader(), name, [3 * MIB])
    assert not world.files(), "nothing of it is left"
    between.change = lambda to_server, before, data: data
    assert world.fetch(world.reader(), name, [3 * MIB])


def test_a_value_of_other_sizes_than_its_record_says_is_refused(world: World) -> None:
    world.serve()
    name = new_name()
    world.made.create(name, [b"some", b"bytes"])
    for sizes in ([4, 6], [9], [4, 5, 0]):
        with pytest.raises(PeerLost, match="sizes"):
            world.fetch(world.reader(), name, sizes)
    assert not world.files()


@pytest.mark.parametrize("name", [b"", b"/etc/passwd", b"../../etc/passwd".ljust(36, b"/"), b"lock", b"\0" * 36])
def test_nothing_but_objects_can_be_named(world: World, name: bytes) -> None:
    opened: list[bytes] = []

    class Memory:
        def body(self, object_id: bytes) -> Any:
            opened.append(object_id)
            return world.made.body(object_id)

    server = PeerServer(listen("127.0.0.1", 0), Memory(), world.signer, HOST)
    world.servers.append(server)
    server.start()
    world.places.places[HOST] = ("127.0.0.1", server.port)
    reader = world.reader()
    assert not reader.read(HOST, name, [5], lambda fill: None, digest=False)
    assert all(len(each) == OBJECT_BYTES + TOKEN_BYTES for each in opened)
    there = new_name()
    world.made.create(there, [b"there"])
    assert world.fetch(reader, there, [5]), "the connection goes on"


@pytest.mark.parametrize(
    "said",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b"RBP1" + bytes(100), os.urandom(5000)],
    ids=["nothing", "HTTP", "zeros", "noise"],
)
def test_nonsense_ends_its_own_connection_only(world: World, said: bytes) -> None:
    server = world.serve()
    with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
        with suppress(OSError):  # it may have been closed over what came first
            sock.sendall(said)
            sock.shutdown(socket.SHUT_WR)
        assert len(_all(sock)) <= GREETING_BYTES
    name = new_name()
    world.made.create(name, [b"there"])
    assert world.fetch(world.reader(), name, [5])


def test_a_message_that_is_too_long_is_not_read(world: World) -> None:
    ours, theirs = socket.socketpair()
    wires = Wire(ours, tls=False), Wire(theirs, tls=False)
    reader: list[session.Session] = []
    thread = threading.Thread(target=lambda: reader.append(as_reader(wires[0], world.signer, HOST, b"")))
    thread.start()
    server = as_server(wires[1], world.signer, HOST, b"")
    thread.join(10)
    reader[0]._send(b"peer ask", bytes(2000))
    with pytest.raises(session.Impostor, match="2,000 bytes"):
        server.next_ask()
    for wire in wires:
        wire.close()


def test_a_certificate_is_part_of_the_proof(world: World) -> None:
    ours, theirs = socket.socketpair()
    wires = Wire(ours, tls=False), Wire(theirs, tls=False)
    told: list[PeerLost] = []

    def read() -> None:
        try:
            as_reader(wires[0], world.signer, HOST, b"seen")
        except PeerLost as error:
            told.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    with pytest.raises(session.Impostor):
        as_server(wires[1], world.signer, HOST, b"shown")
    wires[1].close()
    thread.join(10)
    wires[0].close()
    assert told


def test_who_finds_no_room_ends_a_connection_that_nobody_uses(world: World) -> None:
    server = world.serve(connections=2)
    name = new_name()
    world.made.create(name, [b"there"])
    readers = [world.reader() for _ in range(4)]
    for reader in readers:
        assert world.fetch(reader, name, [5])
        wait_until(lambda: all(each.state.value == "idle" for each in server._open), "nobody uses them")
    assert len(server._open) == 2
    assert world.fetch(readers[0], name, [5]), "whose connection has ended makes another"


def test_who_finds_all_connections_at_work_is_turned_away(world: World) -> None:
    server = world.serve(connections=1)
    name, size = new_name(), 32 * MIB
    world.made.create(name, [bytes(size)])
    begun, go_on = threading.Event(), threading.Event()

    def keep(fill: Callable[[memoryview], None]) -> None:
        begun.set()
        go_on.wait(30)
        with memoryview(bytearray(size)) as whole:
            fill(whole)

    slow = world.reader()
    thread = threading.Thread(target=slow.read, args=(HOST, name, [size], keep), kwargs={"digest": False})
    thread.start()
    assert begun.wait(10)
    other = world.reader()
    with pytest.raises(PeerLost):
        world.fetch(other, name, [size])
    assert not other.can_ask(HOST), "it goes elsewhere for a while"
    go_on.set()
    thread.join(30)
    assert server.sent == 1


def test_connections_that_nobody_uses_end_and_are_made_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "IDLE_SECONDS", 0.05)
    server = world.serve()
    reader, name = world.reader(), new_name()
    world.made.create(name, [b"there"])
    for _ in range(2):
        assert world.fetch(reader, name, [5])
        wait_until(lambda: not server._open, "the connection ends")


def test_a_host_that_cannot_be_reached_is_left_alone_for_a_while(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(reading.time, "monotonic", lambda: now[0])
    server = world.serve()
    server.close()
    reader = world.reader()
    assert reader.can_ask(HOST)
    for pause in (reading.AWAY_SECONDS, 2 * reading.AWAY_SECONDS):
        with pytest.raises(PeerLost, match="cannot be reached"):
            world.fetch(reader, new_name(), [5])
        now[0] += pause - 0.1
        assert not reader.can_ask(HOST)
        now[0] += 0.2
        assert reader.can_ask(HOST)
    assert world.places.forgotten == [HOST, HOST], "it may be elsewhere"


def test_where_no_host_can_be_reached_none_is_tried(world: World) -> None:
    world.serve()
    closed = world.serve(b"0")
    closed.close()
    reader = world.reader()
    for number in range(reading.IN_A_ROW):
        host = b"%d" % number
        world.places.places[host] = ("127.0.0.1", closed.port)
        with pytest.raises(PeerLost):
            reader.read(host, new_name(), [5], lambda fill: None, digest=False)
    assert not reader.can_ask(HOST)


def test_a_host_without_nodes_is_not_asked(world: World) -> None:
    assert not world.reader().can_ask(b"nobody")


def test_a_bounded_number_of_connections_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "IDLE_KEPT", 2)
    name = new_name()
    world.made.create(name, [b"there"])
    reader = world.reader()
    servers = []
    for number in range(4):
        host = b"%d" % number
        servers.append(world.serve(host))
        assert reader.read(host, name, [5], lambda fill: fill(memoryview(bytearray(5))), digest=False)
    wait_until(lambda: sum(len(each._open) for each in servers) == 2, "the others are ended")


def test_values_are_received_into_files_that_are_used_again(world: World) -> None:
    world.serve()
    reader = world.reader()
    used: set[int] = set()
    for _ in range(4):
        name, value = new_name(), os.urandom(2 * MIB)
        world.made.create(name, [value])
        assert world.fetch(reader, name, [2 * MIB])
        assert world.values(name) == [value]
        used.add(os.stat(f"{default_directory()}/rabbitry-{world.read.session_id}-{name.hex()}").st_ino)
        world.read.trim()  # nothing views it any more
        SharedMemoryStore(world.read.session_id).delete([name])  # as the sweep of a node does
    assert len(used) < 4


def test_a_value_for_which_there_is_no_room_is_not_begun(world: World) -> None:
    world.serve()
    reader, name = world.reader(), new_name()
    world.made.create(name, [bytes(MIB)])
    world.read.room.limit_bytes = MIB // 2
    with pytest.raises(shared_memory.ObjectStoreFull):
        world.fetch(reader, name, [MIB])
    world.read.room.limit_bytes = None
    assert world.fetch(reader, name, [MIB])


def test_a_child_makes_connections_of_its_own(world: World) -> None:
    between = world.between(world.serve())
    reader, name = world.reader(), new_name()
    world.made.create(name, [b"there"])
    assert world.fetch(reader, name, [5])
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if reader.can_ask(HOST) and reader.read(
                HOST, name, [5], lambda fill: fill(memoryview(bytearray(5))), digest=False
            ):
                code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert world.fetch(reader, name, [5]), "the connection of the parent is as it was"
    assert len(between.to_server) == 2


def test_the_shortest_limit_is_none_but_a_limit() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire = Wire(ours, tls=False)
        wire.limit(1e-9)
        with pytest.raises(PeerLost, match="silent"):
            wire.read(1)


def test_asks_are_short() -> None:
    assert len(session._encode(Ask(bytes(OBJECT_BYTES + TOKEN_BYTES), True))) < session._ASK_LIMIT
