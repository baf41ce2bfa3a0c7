"""The store read through redis-py: for tools that look at a cluster now and then, such as `rabbitry status`.

redis-py knows every topology (one server, Sentinel, Redis Cluster), and nothing here is in a hurry. It is imported when
a reader is opened, since that takes longer than all of rabbitry; what is hot has `server` and the wire in `redis/`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import ConnectionLost, StoreError
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.redis import refusals
from rabbitry_broker.store.redis.address import Address, parse

if TYPE_CHECKING:
    import redis


class Reader:
    """Runs commands on the server that has a cluster's keys. For one thread; close it, or use it with `with`.

    Args:
        endpoint: the cluster.
        timeout: seconds to reach each server, and for each reply.

    Raises:
        ConnectError: no server can be reached, or it would not have us.
    """

    def __init__(self, endpoint: Endpoint, *, timeout: float = 5.0) -> None:
        import redis

        self._errors = redis.exceptions
        address = parse(endpoint.store_url)
        try:
            self._client = _client(address, Keys.of(endpoint).cluster, timeout)
            self._client.ping()
        except (redis.exceptions.ResponseError, redis.exceptions.AuthenticationError) as error:
            raise refusals.refused(address, str(error)) from error
        except (redis.exceptions.RedisError, OSError) as error:
            raise refusals.unreachable(address, error.__cause__ or error.__context__ or error, timeout) from error

    def call(self, *args: Any) -> Any:
        """Run one command and return its reply as it came: bytes, a number, a list or None.

        Raises:
            StoreError: the server answered with an error.
            ConnectionLost: it did not answer.
        """
        try:
            return self._client.execute_command(*args)
        except self._errors.ResponseError as error:
            raise StoreError(str(error)) from error
        except (self._errors.RedisError, OSError) as error:
            raise ConnectionLost(str(error)) from error

    def pipeline(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run commands in one round trip; a reply that is an error is returned as a StoreError. See `call`."""
        if not commands:
            return []
        batch = self._client.pipeline(transaction=False)
        for command in commands:
            batch.execute_command(*command)
        try:
            replies = batch.execute(raise_on_error=False)
        except (self._errors.RedisError, OSError) as error:
            raise ConnectionLost(str(error)) from error
        return [StoreError(str(each)) if isinstance(each, Exception) else each for each in replies]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _client(address: Address, anchor: bytes, timeout: float) -> redis.Redis:
    """Return a client of the one server that has the key `anchor`."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    # One try: whoever looks at a cluster wants to know that a server is away, at once.
    limits: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
    }
    common = {**limits, **_tls(address), **_nameless()}
    common |= {"username": address.username or None, "password": address.password or None}
    at = (address.host, address.port)
    if address.sentinels:
        from redis.sentinel import Sentinel

        asked = {**common}
        for name in ("username", "password"):
            asked[name] = address.options.get(f"sentinel_{name}") or None
        at = Sentinel(list(address.sentinels), sentinel_kwargs=asked).discover_master(address.service)
    elif address.nodes:
        at = _owner(address, anchor, common)
    where: dict[str, Any] = {"unix_socket_path": address.path} if address.path else {"host": at[0], "port": at[1]}
    client = redis.Redis(**where, **common, db=address.database, protocol=2, single_connection_client=True)
    client.response_callbacks.clear()  # replies as they come
    return client


@cache
def _nameless() -> dict[str, None]:
    """Return what keeps redis-py from telling its name: accounts with few rights may not, and Redis would log that."""
    import redis

    if "driver_info" in inspect.signature(redis.Redis.__init__).parameters:
        return {"driver_info": None}
    return {"lib_name": None, "lib_version": None}  # before redis-py 7.1


def _owner(address: Address, key: bytes, common: dict[str, Any]) -> tuple[str, int]:
    """Return the server of a Redis Cluster that has a key: whichever is asked knows, without a command of its own."""
    import redis

    lost: Exception | None = None
    for host, port in address.nodes:
        try:
            with redis.Redis(host=host, port=port, **common, protocol=2) as asked:
                asked.execute_command("EXISTS", key)
        except redis.exceptions.MovedError as moved:
            return moved.host or host, int(moved.port)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
            lost = error
        else:
            return host, int(port)
    raise lost or redis.exceptions.ConnectionError("the address names no server")


def _tls(address: Address) -> dict[str, Any]:
    """Return the TLS options of a URL as redis-py takes them; see `address.wrap_tls`."""
    if not address.tls:
        return {}
    found: dict[str, Any] = {"ssl": True}
    for name in ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs"):
        value = address.options.get(name) or address.options.get(name.removeprefix("ssl_"))
        if value:
            found[name] = value.lower() if name == "ssl_cert_reqs" else value
    unchecked = address.options.get("ssl_check_hostname", "true").lower() in ("0", "no", "false")
    found["ssl_check_hostname"] = found.get("ssl_cert_reqs") not in ("none", "optional") and not unchecked
    return found
