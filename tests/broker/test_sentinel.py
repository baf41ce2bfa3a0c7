"""Redis behind Sentinels: the master is found, a failover followed; replicas are refused clearly."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import ConnectError
from rabbitry_broker.signing import Signer
from rabbitry_broker.store.reader import Reader
from rabbitry_broker.store.redis.address import parse
from rabbitry_broker.store.redis.connection import Connection
from rabbitry_broker.store.store import ObjectStore
from tests.sentinels import SERVICE, Sentinels
from tests.servers import RedisServer, free_port, wait_until


def test_the_master_is_found_and_a_failover_followed(sentinels: Sentinels):
    secret = (b"0123456789abcdef",)
    store = ObjectStore(Endpoint(sentinels.url, "amqp://unused", secret), Signer(secret))
    try:
        assert store.call(b"SET", b"key", b"before") == b"OK"
        with sentinels.servers[0].client() as client:
            assert client.wait(1, 5000) == 1
        sentinels.master().kill()
        assert store.call(b"GET", b"key") == b"before"
        assert store.call(b"SET", b"key", b"after") == b"OK"
        wait_until(lambda: sentinels.master() is sentinels.servers[1], "all Sentinels agree on the new master")
    finally:
        store.close()


def test_a_master_that_became_a_replica_counts_as_lost(sentinels: Sentinels):
    secret = (b"0123456789abcdef",)
    store = ObjectStore(Endpoint(sentinels.url, "amqp://unused", secret), Signer(secret))
    try:
        assert store.call(b"SET", b"key", b"before") == b"OK"
        sentinels.fail_over()
        assert store.pipeline([(b"SET", b"key", b"after"), (b"GET", b"key")]) == [b"OK", b"after"]
    finally:
        store.close()


def test_a_dead_sentinel_and_an_unknown_service(sentinels: Sentinels):
    sentinels.sentinels[0].kill()
    with Reader(Endpoint(sentinels.url, "amqp://unused")) as reader:
        assert reader.call(b"ROLE")[0] == b"master"
    connection = Connection.open(sentinels.url)
    assert connection.call("PING") == b"PONG"
    connection.close()
    with pytest.raises(ConnectError, match="'nobody'"):
        Connection.open(sentinels.url.replace(SERVICE, "nobody"))


def test_sentinels_that_are_not_there_are_named():
    with pytest.raises(ConnectError, match="no Sentinel answers") as caught:
        Connection.open(f"redis+sentinel://:rosebud@127.0.0.1:{free_port()}/main")
    assert "rosebud" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis+sentinel://host", "redis+sentinel:///main", "unix+sentinel://host/main"])
def test_malformed_addresses_are_refused(url: str):
    with pytest.raises(ConnectError, match="sentinel"):
        parse(url)


def test_credentials_and_database_of_an_address():
    address = parse("rediss+sentinel://ada:p%40ss@one,two:26380/main/3?sentinel_password=other")
    assert (address.username, address.password, address.database, address.tls) == ("ada", "p@ss", 3, True)
    assert address.sentinels == (("one", 26379), ("two", 26380)) and address.service == "main"
    assert "p@ss" not in repr(address) and "other" not in repr(address)


def test_a_replica_is_refused_with_the_reason(start_redis: Callable[..., RedisServer]):
    master = start_redis()
    replica = start_redis(config={"replicaof": f"127.0.0.1 {master.port}"})
    with pytest.raises(ConnectError, match="is a replica"):
        Connection.open(replica.url)
    wait_until(lambda: Connection.open(master.url).call("PING") == b"PONG", "the master answers")
