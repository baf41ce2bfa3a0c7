"""When a node serves large values to other hosts, where, and what it says when it cannot."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.shared_memory import SharedMemoryStore
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.peers.reading import SWITCH, PeerReader
from rabbitry_broker.store.redis.address import parse
from rabbitry_workers.node.services import peers
from rabbitry_workers.node.services.peers import BIND_VARIABLE, PORT_VARIABLE, Peers
from tests.security.certificates import make_certificates

HOST = b"this host"
Make = Callable[..., Peers]


@pytest.fixture
def memory() -> Iterator[SharedMemoryStore]:
    store = SharedMemoryStore(f"node{secrets.token_hex(4)}")
    yield store
    store.clear()


@pytest.fixture
def make(memory: SharedMemoryStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Return a function that makes the part for a node whose facts a test gives."""
    for variable in (SWITCH, BIND_VARIABLE, PORT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    made: list[Peers] = []
    signer = Signer((b"0123456789abcdef",))

    def make_it(url: str = "redis://nowhere", broker: str | None = "amqp://nowhere", shared: Any = memory) -> Peers:
        node: Any = SimpleNamespace(
            endpoint=Endpoint(url, broker, (b"0123456789abcdef",)),
            config=SimpleNamespace(address="127.0.0.1", host=HOST),
            store=SimpleNamespace(large=SimpleNamespace(shared=shared)),
            signer=signer,
        )
        made.append(Peers(node))
        return made[-1]

    yield make_it
    for each in made:
        each.close()


def reader(served: Peers, url: str = "redis://nowhere") -> PeerReader:
    directory: Any = SimpleNamespace(find=lambda host: served.place, forget=lambda host, place: None)
    return PeerReader(directory, Signer((b"0123456789abcdef",)), parse(url))


def fetch(found: bytearray, served: Peers, name: bytes, url: str = "redis://nowhere") -> bool:
    asking = reader(served, url)
    try:
        return asking.read(HOST, name, [len(found)], lambda fill: fill(memoryview(found)), digest=False)
    finally:
        asking.close()


def test_a_node_serves_where_its_record_says(make: Make, memory: SharedMemoryStore) -> None:
    served = make()
    served.start()
    assert served.place is not None
    assert served.place[0] == "127.0.0.1"
    name, found = secrets.token_bytes(36), bytearray(5)
    memory.create(name, [b"value"])
    assert fetch(found, served, name)
    assert found == b"value"
    assert served.figures() == {"values_sent": 1, "value_bytes_sent": 5}
    served.close()
    with pytest.raises(OSError):
        socket.create_connection(served.place, 5)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"broker": None}, "all processes share one host"),
        ({"shared": None}, "there is no shared memory"),
        ({"url": "rediss://nowhere?ssl_ca_certs=/ca.pem"}, "TLS without a certificate to show"),
        ({"url": "rediss://nowhere?ssl_certfile=/nowhere.pem"}, "TLS with a certificate that is not there"),
    ],
)
def test_a_node_that_cannot_serve_says_nothing_in_its_record(make: Make, facts: dict[str, Any], why: str) -> None:
    served = make(**facts)
    served.start()
    assert served.place is None, why
    assert served.figures() == {}


def test_it_is_switched_off(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "off")
    assert make().place is None


def test_where_it_listens_is_set(make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv(PORT_VARIABLE, str(port))
        with caplog.at_level(logging.WARNING):
            assert make().place is None
        assert PORT_VARIABLE in caplog.text and BIND_VARIABLE in caplog.text
    monkeypatch.setenv(BIND_VARIABLE, "0.0.0.0")
    assert make().place == ("127.0.0.1", port), "others reach it at the node's address"


def test_an_address_of_another_machine_is_told(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(BIND_VARIABLE, "192.0.2.77")
    with caplog.at_level(logging.WARNING):
        assert make().place is None
    assert "192.0.2.77" in caplog.text


@pytest.mark.parametrize("text", ["-1", "70000", "many"])
def test_an_impossible_port_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PORT_VARIABLE, text)
    with pytest.raises(ValueError, match=PORT_VARIABLE):
        peers.port_from_environment()


def test_with_tls_the_certificate_of_the_address_is_shown(
    make: Make, memory: SharedMemoryStore, tmp_path: Path
) -> None:
    files = make_certificates(tmp_path / "ours")
    url = f"rediss://nowhere?ssl_ca_certs={files.authority}&ssl_certfile={files.certificate}&ssl_keyfile={files.key}"
    served = make(url)
    served.start()
    assert served.place is not None
    name, value, found = secrets.token_bytes(36), secrets.token_bytes(3 << 20), bytearray(3 << 20)
    memory.create(name, [value])
    assert fetch(found, served, name, url)
    assert found == value
