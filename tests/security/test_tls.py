"""TLS to both servers, with client certificates, on a certificate authority made here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

import warren
from tests.redis_cluster import RedisCluster
from tests.security.certificates import Certificates, make_certificates
from tests.servers import RabbitMQServer, RedisServer, free_port
from warren.cluster_utils import Cluster
from warren_broker.endpoint import Endpoint
from warren_broker.errors import ConnectError
from warren_broker.queues import open_publisher
from warren_broker.store.connection import Connection

PASSWORD = "correct-horse-battery"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def other_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("others"))


@pytest.fixture
def store_url(start_redis: Callable[..., RedisServer], certificates: Certificates) -> str:
    """A Redis that wants TLS and a client certificate."""
    port = free_port()
    start_redis(password=PASSWORD, config={"tls-port": str(port), **tls_config(certificates)}, tls=True)
    return f"rediss://:{PASSWORD}@localhost:{port}/0?{redis_options(certificates)}"


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


@pytest.fixture
def broker_url(start_rabbitmq: Callable[..., RabbitMQServer], certificates: Certificates) -> str:
    """A RabbitMQ that wants TLS and a client certificate."""
    port = free_port()
    server = start_rabbitmq(
        config={
            "listeners.ssl.1": f"127.0.0.1:{port}",
            "ssl_options.cacertfile": str(certificates.authority),
            "ssl_options.certfile": str(certificates.certificate),
            "ssl_options.keyfile": str(certificates.key),
            "ssl_options.verify": "verify_peer",
            "ssl_options.fail_if_no_peer_cert": "true",
        }
    )
    plain = urlsplit(server.url)
    return f"amqps://{plain.username}:{plain.password}@localhost:{port}{plain.path}?{amqp_options(certificates)}"


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


@warren.remote
def double(value):
    return 2 * value


@warren.remote
class Keeper:
    def keep(self, value):
        return value


@pytest.mark.parametrize("store", ["store_url", "redis_cluster_url"])
def test_work_goes_over_tls_to_both_servers(store: str, broker_url: str, request: pytest.FixtureRequest):
    store_url = request.getfixturevalue(store)
    with Cluster(engine="rabbitmq", broker_url=broker_url, store_url=store_url) as cluster:
        cluster.add_node(num_cpus=1)
        cluster.connect(log_to_driver=False)
        assert warren.get([double.remote(each) for each in range(20)], timeout=30) == list(range(0, 40, 2))
        assert warren.get(Keeper.remote().keep.remote(b"x" * 300_000), timeout=30) == b"x" * 300_000


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


def test_a_client_without_a_certificate_is_refused(store_url: str, certificates: Certificates):
    with pytest.raises(ConnectError):
        Connection.open(f"{store_url.partition('?')[0]}?ssl_ca_certs={certificates.authority}", timeout=3)
