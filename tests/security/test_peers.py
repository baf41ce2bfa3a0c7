"""TLS between hosts that read large values of each other, by the options of the store's address."""

from __future__ import annotations

import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_broker.shared_memory import SharedMemoryStore
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.peers import serving, session
from rabbitry_broker.store.peers.reading import PeerReader
from rabbitry_broker.store.peers.security import ServerSecurity
from rabbitry_broker.store.peers.serving import PeerServer, listen
from rabbitry_broker.store.peers.wire import PeerLost
from rabbitry_broker.store.redis.address import parse
from tests.security.certificates import Certificates, make_certificates
from tests.servers import wait_until

HOST = b"the host"
VALUE = b"confidential" * 10_000
SIGNER = Signer((b"0123456789abcdef",))
Read = Callable[[str, int], bytes]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("others"))


def url(files: Certificates, more: str = "") -> str:
    return f"rediss://x?ssl_ca_certs={files.authority}&ssl_certfile={files.certificate}&ssl_keyfile={files.key}{more}"


@pytest.fixture
def memory() -> Iterator[SharedMemoryStore]:
    store = SharedMemoryStore(f"tls{secrets.token_hex(4)}")
    yield store
    store.clear()


@pytest.fixture
def serve(memory: SharedMemoryStore) -> Iterator[Callable[[ServerSecurity | None], PeerServer]]:
    servers: list[PeerServer] = []

    def start(security: ServerSecurity | None) -> PeerServer:
        servers.append(PeerServer(listen("127.0.0.1", 0), memory, SIGNER, HOST, security))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def read(memory: SharedMemoryStore) -> Iterator[Read]:
    """Return a function that reads the value, as a process with that store address does, at some port."""
    name = secrets.token_bytes(36)
    memory.create(name, [VALUE])
    readers: list[PeerReader] = []

    def read_it(address: str, port: int) -> bytes:
        directory: Any = SimpleNamespace(find=lambda host: ("127.0.0.1", port), forget=lambda host, place: None)
        readers.append(PeerReader(directory, SIGNER, parse(address)))
        found = bytearray(len(VALUE))
        assert readers[-1].read(HOST, name, [len(VALUE)], lambda fill: fill(memoryview(found)), digest=False)
        return bytes(found)

    yield read_it
    for reader in readers:
        reader.close()


def test_values_are_encrypted_on_their_way(ours: Certificates, serve: Any, read: Read) -> None:
    server = serve(ServerSecurity(parse(url(ours))))
    assert read(url(ours), server.port) == VALUE
    assert read(url(ours, "&ssl_cert_reqs=none"), server.port) == VALUE
    assert read(f"rediss://x?ssl_ca_certs={ours.authority}", server.port) == VALUE, "a driver may have no certificate"


def test_a_certificate_of_another_authority_is_refused(
    ours: Certificates, others: Certificates, serve: Any, read: Read
) -> None:
    server = serve(ServerSecurity(parse(url(others))))
    with pytest.raises(PeerLost, match=r"(?i)certificate"):
        read(url(ours), server.port)


@pytest.mark.parametrize("plain", ["reader", "server"])
def test_nobody_goes_on_in_plain_text(
    ours: Certificates, serve: Any, read: Read, plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "GREETING_SECONDS", 0.5)
    server = serve(None if plain == "server" else ServerSecurity(parse(url(ours))))
    with pytest.raises(PeerLost):
        read("redis://x" if plain == "reader" else url(ours), server.port)
    assert not server.sent


def test_who_does_not_shake_hands_makes_room_for_those_who_do(
    ours: Certificates, memory: SharedMemoryStore, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "GREETING_SECONDS", 0.0)
    server = PeerServer(listen("127.0.0.1", 0), memory, SIGNER, HOST, ServerSecurity(parse(url(ours))), connections=1)
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as silent:
            wait_until(lambda: len(server._open) == 1, "it is there")
            assert read(url(ours), server.port) == VALUE
            silent.settimeout(10)
            assert not silent.recv(1), "it was ended"
    finally:
        server.close()


def test_who_stands_between_with_a_certificate_that_is_trusted_gets_nothing(
    ours: Certificates, others: Certificates, serve: Any, read: Read, tmp_path: Path
) -> None:
    server = serve(ServerSecurity(parse(url(ours))))
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_stand_between, args=(listener, server.port, others, seen))
        thread.start()
        with pytest.raises(PeerLost):
            read(url(ours, "&ssl_cert_reqs=none"), listener.getsockname()[1])
        thread.join(10)
    assert seen, "it read along as far as it came"
    assert not any(VALUE[:12] in each for each in seen)
    assert not server.sent


def _stand_between(listener: socket.socket, port: int, files: Certificates, seen: list[bytes]) -> None:
    """Decrypt what one reader and the server say to each other, and pass it on."""
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(files.certificate, files.key)
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    raw, _ = listener.accept()
    with (
        shown.wrap_socket(raw, server_side=True) as reader,
        trusting.wrap_socket(socket.create_connection(("127.0.0.1", port))) as server,
    ):

        def forward(source: ssl.SSLSocket, target: ssl.SSLSocket) -> None:
            with suppress(OSError):
                while data := source.recv(1 << 16):
                    seen.append(data)
                    target.sendall(data)
            for each in (source, target):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

        back = threading.Thread(target=forward, args=(server, reader))
        back.start()
        forward(reader, server)
        back.join(10)
