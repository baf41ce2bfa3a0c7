"""Where the HTTP service of a cluster is: named by an address or a variable, or told by the cluster itself.

A service writes its address into the store while it runs (`announce`), so that whoever can join the cluster finds it.
"""

from __future__ import annotations

import socket
from typing import Final
from urllib.parse import urlsplit

from rabbitry import current, dashboard_token, environment, session
from rabbitry.arguments import shown
from rabbitry.dashboard import DEFAULT_PORT
from rabbitry_broker import cluster_file, local_clusters
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import RabbitryBrokerError, without_password
from rabbitry_broker.messages import decode, encode
from rabbitry_broker.signing import ForgedMessage, Signer
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.server import Connection

ANNOUNCED_SECONDS: Final = 30.0
DEFAULT_ADDRESS: Final = f"http://127.0.0.1:{DEFAULT_PORT}"
_CLUSTERS: Final = ("amqp://", "amqps://", cluster_file.SCHEME)


def announce(endpoint: Endpoint, url: str) -> None:
    """Say in the store where a service is; it counts for `ANNOUNCED_SECONDS`.

    Raises:
        ConnectError: the store cannot be reached.
    """
    record = {"url": url, "host": socket.gethostname()}
    sealed = Signer(endpoint.secrets).seal(b"dashboard", encode(record))
    connection = Connection.open(endpoint, name="rabbitry-dashboard")
    try:
        connection.call(b"SET", Keys.of(endpoint).dashboard, sealed, b"PX", int(ANNOUNCED_SECONDS * 1000))
    finally:
        connection.close()


def announced(endpoint: Endpoint) -> str | None:
    """Return where the service of a cluster is; None if none runs, or none that this host can reach.

    Raises:
        ConnectError: the store cannot be reached.
    """
    connection = Connection.open(endpoint, name="rabbitry-dashboard")
    try:
        sealed = connection.call(b"GET", Keys.of(endpoint).dashboard)
    finally:
        connection.close()
    try:
        record = decode(Signer(endpoint.secrets).open(b"dashboard", sealed)) if sealed else {}
    except ForgedMessage:
        return None
    url = record.get("url")
    if url and is_loopback(url) and record.get("host") != socket.gethostname():
        return None
    return str(url) if url else None


def find_service(address: str | None) -> str:
    """Return the URL of the HTTP service that an address means.

    Args:
        address: `http://host:port`, `host:port`, the address of a cluster ("auto", `unix:///...`, `amqp://...`), or
            None for that of this process's session, else of the cluster that the environment names or the newest
            session on this machine, else `http://127.0.0.1:8265`. RABBITRY_API_SERVER_ADDRESS counts more.

    Raises:
        ConnectionError: the cluster cannot be reached, or no service of it runs.
        ValueError: it is no such address.
    """
    given = environment.text(*environment.API_SERVER_ADDRESS) or address
    if given is None:
        return _of_session() or _of_surroundings() or DEFAULT_ADDRESS
    if given.startswith(("http://", "https://")):
        return given
    if given == local_clusters.AUTO or given.startswith(_CLUSTERS):
        url = announced(_endpoint(given))
        if url is None:
            raise ConnectionError(
                f"no dashboard of the cluster {without_password(given)!r} runs where this host could reach it: start "
                "one with `rabbitry dashboard`"
            )
        return url
    if "://" in given:
        raise ValueError(
            "the address of a dashboard is http://host:port, or that of a cluster (auto, unix:///..., amqp://...), but "
            f"is {shown(without_password(given))}"
        )
    return f"http://{given}"


def token_for(url: str) -> str | None:
    """Return the token to show to a service: the variable's, or, on this host, that of the user's file."""
    given = environment.text(environment.DASHBOARD_TOKEN)
    return given or (dashboard_token.known_token() if is_loopback(url) else None)


def is_loopback(url: str) -> bool:
    """True if a URL names this host itself."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _of_session() -> str | None:
    if current.peek() is None:
        return None
    context = session.context()
    if context is not None and context.dashboard_url:
        return f"http://{context.dashboard_url}"
    return announced(current.client().endpoint)


def _of_surroundings() -> str | None:
    given = environment.text(environment.ADDRESS) or environment.text("RAY_ADDRESS")
    if given.startswith(("http://", "https://")):
        return given
    try:
        return announced(_endpoint(local_clusters.AUTO))
    except RabbitryBrokerError:
        return None  # no cluster is near


def _endpoint(address: str) -> Endpoint:
    if address == local_clusters.AUTO:
        address = local_clusters.resolve_auto()
    if cluster_file.is_address(address):
        return cluster_file.read(address).endpoint
    from rabbitry_broker.settings import Settings  # slow to load, and not always needed

    return Settings.load(address).endpoint()


__all__ = ["ANNOUNCED_SECONDS", "announce", "announced", "find_service", "is_loopback", "token_for"]
