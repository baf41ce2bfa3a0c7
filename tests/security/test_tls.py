"""TLS to both servers, with client certificates, on a certificate authority made here."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

import rabbitry
from rabbitry.cluster_utils import Cluster
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import ConnectError
from rabbitry_broker.queues import open_publisher
from rabbitry_broker.store.reader import Reader
from rabbitry_broker.store.redis.connection import Connection
from tests.redis_cluster import RedisCluster
from tests.security.certificates import Certificates, make_certificates
from tests.servers import RabbitMQServer, RedisServer, free_port, wait_until

PASSWORD = "correct-horse-battery"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def other_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("others"))


def tls_redis(start: Callable[..., RedisServer], certificates: Certificates) -> tuple[RedisServer, str]:
    """Start a Redis that wants TLS and a client certificate; return it with its address."""
    port = free_port()
    server = start(password=PASSWORD, config={"tls-port": str(port), **tls_config(certificates)}, tls=True)
    return server, f"rediss://:{PASSWORD}@localhost:{port}/0?{redis_options(certificates)}"


def tls_rabbitmq(start: Callable[..., RabbitMQServer], certificates: Certificates) -> tuple[RabbitMQServer, str]:
    """Start a RabbitMQ that wants TLS and a client certificate; return it with its address."""
    port = free_port()
    server = start(
        config={
            "listeners.ssl.1": f"127.0.0.1:{port}",
            "ssl_options.cacertfile": str(certificates.authority),
            "ssl_options.certfile": str(certificates.certificate),
            "ssl_options.keyfile": str(certificates.key),
            "ssl_options.verify": "verify_peer",
            "ssl_options.fail_if_no_peer_cert": "true",
        }
    )

    def listens() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    wait_until(listens, "RabbitMQ listens for TLS")  # RabbitMQ 4 does a moment later than without
    plain = urlsplit(server.url)
    address = f"amqps://{plain.username}:{plain.password}@localhost:{port}{plain.path}?{amqp_options(certificates)}"
    return server, address


@pytest.fixture
def store_url(start_redis: Callable[..., RedisServer], certificates: Certificates) -> str:
    """The address of a Redis that wants TLS and a client certificate."""
    return tls_redis(start_redis, certificates)[1]


@pytest.fixture
def broker_url(start_rabbitmq: Callable[..., RabbitMQServer], certificates: Certificates) -> str:
    """The address of a RabbitMQ that wants TLS and a client certificate."""
    return tls_rabbitmq(start_rabbitmq, certificates)[1]


@pytest.fixture
def redis_cluster_url(session_directory: Path, certificates: Certificates) -> Iterator[str]:
    """A Redis Cluster that wants the same, and announces itself by the name in the certificate."""
    config = {
        **tls_config(certificates),
        "cluster-announce-hostname": "localhost",
        "cluster-preferred-endpoint-type": "hostname",
    }
    directory = session_directory / f"tls-{free_port()}"
    servers = RedisCluster(directory, password=PASSWORD, config=config, tls=True, version=(7,))
    try:
        servers.start()
        yield f"rediss+cluster://:{PASSWORD}@localhost:{servers.tls_ports[0]}?{redis_options(certificates)}"
    finally:
        servers.stop()


def tls_config(certificates: Certificates) -> dict[str, str]:
    """Return the lines of redis.conf for TLS but the port."""
    return {
        "tls-cert-file": str(certificates.certificate),
        "tls-key-file": str(certificates.key),
        "tls-ca-cert-file": str(certificates.authority),
        "tls-auth-clients": "yes",
    }


def redis_options(certificates: Certificates) -> str:
    """Return the query of a `rediss://` address."""
    return (
        f"ssl_ca_certs={certificates.authority}&ssl_certfile={certificates.certificate}&ssl_keyfile={certificates.key}"
    )


def amqp_options(certificates: Certificates) -> str:
    """Return the query of an `amqps://` address."""
    options = {
        "ca_certs": str(certificates.authority),
        "certfile": str(certificates.certificate),
        "keyfile": str(certificates.key),
    }
    return "ssl_options=" + quote(repr(options))


@rabbitry.remote
def double(value):
    return 2 * value


@rabbitry.remote
class Keeper:
    def keep(self, value):
        return value


@pytest.mark.parametrize("store", ["store_url", "redis_cluster_url"])
def test_work_goes_over_tls_to_both_servers(store: str, broker_url: str, request: pytest.FixtureRequest):
    store_url = request.getfixturevalue(store)
    with Cluster(engine="rabbitmq", broker_url=broker_url, store_url=store_url) as cluster:
        cluster.add_node(num_cpus=1)
        cluster.connect(log_to_driver=False)
        assert rabbitry.get([double.remote(each) for each in range(20)], timeout=30) == list(range(0, 40, 2))
        assert rabbitry.get(Keeper.remote().keep.remote(b"x" * 300_000), timeout=30) == b"x" * 300_000


def test_work_goes_on_over_tls_when_the_servers_close_every_connection(
    start_redis: Callable[..., RedisServer],
    start_rabbitmq: Callable[..., RabbitMQServer],
    certificates: Certificates,
):
    store, broker = tls_redis(start_redis, certificates), tls_rabbitmq(start_rabbitmq, certificates)
    with Cluster(engine="rabbitmq", broker_url=broker[1], store_url=store[1]) as cluster:
        node = cluster.add_node(num_cpus=1)
        cluster.connect(log_to_driver=False)
        assert rabbitry.get(double.remote(1), timeout=30) == 2
        for _ in range(2):
            with store[0].client() as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            broker[0].evaluate(
                'lists:foreach(fun(P) -> catch rabbit_networking:close_connection(P, "closed by a test") end, '
                "rabbit_networking:connections())."
            )
            assert rabbitry.get([double.remote(each) for each in range(20)], timeout=30) == list(range(0, 40, 2))
        assert "connection" in node.log.read_text(), "nothing was closed"


def test_a_store_of_another_authority_is_refused(store_url: str, other_certificates: Certificates):
    wrong = store_url.partition("?")[0] + "?" + redis_options(other_certificates)
    with pytest.raises(ConnectError) as caught:
        Connection.open(wrong)
    assert PASSWORD not in f"{caught.value} {caught.value!r}"


def test_a_broker_of_another_authority_is_refused(broker_url: str, other_certificates: Certificates):
    wrong = broker_url.partition("?")[0] + "?" + amqp_options(other_certificates)
    password = urlsplit(broker_url).password or ""
    with pytest.raises(ConnectError) as caught:
        open_publisher(Endpoint("redis://localhost", wrong, (b"0123456789abcdef",)), name="stranger")
    assert password not in f"{caught.value} {caught.value!r}"


@contextmanager
def impostor(certificates: Certificates) -> Iterator[int]:
    """Listen with a certificate; yields the port. Nobody may say anything after the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError), context.wrap_socket(connection, server_side=True) as wrapped:
                        received.append(wrapped.recv(1000))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
    assert not any(received), "something was said to a server that nobody vouches for"


@pytest.mark.parametrize("server", ["redis", "rabbitmq"])
@pytest.mark.parametrize("fault", ["expired", "of another host", "of another authority"])
def test_a_server_whose_certificate_is_no_good_is_refused_and_told_nothing(server: str, fault: str, tmp_path: Path):
    good = make_certificates(tmp_path / "good")
    shown = {
        "expired": lambda: make_certificates(tmp_path / "expired", days=-1),
        "of another host": lambda: make_certificates(tmp_path / "elsewhere", names="DNS:elsewhere.example"),
        "of another authority": lambda: make_certificates(tmp_path / "stranger"),
    }[fault]()
    trusted = good if fault == "of another authority" else shown

    def connect(port: int) -> None:
        if server == "redis":
            Connection.open(f"rediss://:{PASSWORD}@localhost:{port}/0?ssl_ca_certs={trusted.authority}", timeout=5)
        else:
            url = f"amqps://ada:{PASSWORD}@localhost:{port}/jobs?ssl_options=" + quote(
                repr({"ca_certs": str(trusted.authority)})
            )
            open_publisher(Endpoint("redis://localhost", url, (b"0123456789abcdef",)), name="stranger")

    with impostor(shown) as port, pytest.raises(ConnectError) as caught:
        connect(port)
    text = f"{caught.value} {caught.value!r}"
    assert PASSWORD not in text
    assert "certificate" in text.replace("certificates", "")
    wanted = {"expired": "expired", "of another host": "localhost", "of another authority": "self-signed"}
    assert wanted[fault] in text.replace("self signed", "self-signed").replace(
        "unable to get local issuer", "self-signed"
    )


def test_a_broker_that_wants_a_certificate_refuses_who_has_none(broker_url: str, certificates: Certificates):
    options = "ssl_options=" + quote(repr({"ca_certs": str(certificates.authority)}))
    bare = broker_url.partition("?")[0] + "?" + options
    with pytest.raises(ConnectError) as caught:
        open_publisher(Endpoint("redis://localhost", bare, (b"0123456789abcdef",)), name="stranger")
    assert (urlsplit(broker_url).password or "") not in f"{caught.value} {caught.value!r}"
    assert "client certificate" in str(caught.value) or "TLS failed" in str(caught.value)


def test_a_client_without_a_certificate_is_refused(store_url: str, certificates: Certificates):
    with pytest.raises(ConnectError):
        Connection.open(f"{store_url.partition('?')[0]}?ssl_ca_certs={certificates.authority}", timeout=3)


@pytest.mark.parametrize("store", ["store_url", "redis_cluster_url"])
def test_redis_py_reads_over_tls_with_the_same_address(store: str, request: pytest.FixtureRequest) -> None:
    with Reader(Endpoint(request.getfixturevalue(store), "amqp://unused")) as reader:
        assert reader.call(b"ROLE")[0] == b"master"
