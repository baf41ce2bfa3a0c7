"""Addresses of Redis: what a URL says, and the TLS that it asks for."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from rabbitry_broker.errors import ConnectError, without_password

if TYPE_CHECKING:
    import ssl

DEFAULT_PORT: Final = 6379
DEFAULT_SENTINEL_PORT: Final = 26379


class Address(NamedTuple):
    """A parsed URL.

    Attributes:
        url: as written.
        path: of the unix socket, "" for TCP.
        host: for TCP.
        port: for TCP.
        username: "" for the default user.
        password: "" for none.
        database: number of the logical database.
        tls: True for `rediss`.
        options: the query.
        sentinels: host and port of each Sentinel; () if the server itself is named.
        service: what the Sentinels call the server.
        nodes: host and port of some servers of a Redis Cluster; () if there is none.
    """

    url: str
    path: str
    host: str
    port: int
    username: str
    password: str
    database: int
    tls: bool
    options: dict[str, str]
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    nodes: tuple[tuple[str, int], ...] = ()

    def __repr__(self) -> str:
        """Show the address, and no password."""
        return f"Address({without_password(self.url)!r})"


def parse(url: str) -> Address:
    """Return the parts of a `redis://`, `unix://`, `redis+sentinel://` or `redis+cluster://` URL (TLS: `rediss...`).

    Sentinels are named as `redis+sentinel://user:password@host:26379,host:26379/service/db`; user and password are
    those of the server, and `?sentinel_username=...&sentinel_password=...` those of the Sentinels. Of a Redis Cluster
    some servers are named, which know the others: `redis+cluster://user:password@host:6379,host:6379`.

    Raises:
        ConnectError: it is none of these, or malformed.

    Example:
        >>> parse("redis://:s%40fe@cache.example/3")[2:7]
        ('cache.example', 6379, '', 's@fe', 3)
        >>> parse("redis+sentinel://one,two:26380/main").sentinels
        (('one', 26379), ('two', 26380))
        >>> parse("redis+cluster://one,two:6380").nodes
        (('one', 6379), ('two', 6380))
    """

    def wrong(cause: str) -> ConnectError:
        return ConnectError(
            url,
            cause,
            "Write it as redis://[user:password@]host[:port][/db], rediss://..., unix:///path/to/socket, "
            "redis+sentinel://[user:password@]host[:port],.../service[/db] or "
            "redis+cluster://[user:password@]host[:port],...",
        )

    try:
        parts = urlsplit(url)
        scheme, plus, several = parts.scheme.partition("+")
        watched, spread = several == "sentinel", several == "cluster"
        sentinels = _hosts(parts.netloc, DEFAULT_SENTINEL_PORT) if watched else ()
        nodes = _hosts(parts.netloc, DEFAULT_PORT) if spread else ()
        port = DEFAULT_PORT if several else parts.port or DEFAULT_PORT
    except ValueError:
        raise wrong("the address cannot be parsed (is a character of the password not percent-encoded?)") from None
    known = ("redis", "rediss") if watched or spread else ("redis", "rediss", "unix")
    if scheme not in known or (plus and not watched and not spread):
        raise wrong("it is not a Redis address")
    options = dict(parse_qsl(parts.query))
    local = parts.scheme == "unix"
    if local and not parts.path:
        raise wrong("the path of the socket is missing")
    service, path = "", parts.path.strip("/")
    if watched:
        service, _, path = path.partition("/")
        if not service or not sentinels:
            raise wrong("the name of the service that the Sentinels watch over is missing")
    database = options.get("db") or ("" if local else path) or "0"
    if not database.isdigit():
        # Not quoted: it may be the rest of a password with an unescaped "/".
        raise wrong("the database (what follows the host) must be a whole number")
    if spread and not nodes:
        raise wrong("the hosts are missing")
    if spread and int(database):
        raise wrong("a Redis Cluster has no databases")
    return Address(
        url=url,
        path=unquote(parts.path) if local else "",
        host=(sentinels or nodes)[0][0] if several else parts.hostname or "localhost",
        port=port,
        username=unquote(parts.username or "") or options.get("username", ""),
        password=unquote(parts.password or "") or options.get("password", ""),
        database=int(database),
        tls=scheme == "rediss",
        options=options,
        sentinels=sentinels,
        service=unquote(service),
        nodes=nodes,
    )


def _hosts(netloc: str, default_port: int) -> tuple[tuple[str, int], ...]:
    found = [urlsplit(f"//{each}") for each in netloc.rpartition("@")[2].split(",") if each]
    return tuple((each.hostname or "localhost", each.port or default_port) for each in found)


def wrap_tls(raw: socket.socket, address: Address) -> socket.socket:
    """Shake hands over `raw` as the address' options say, and return the encrypted socket.

    Raises:
        OSError: the handshake failed, or a certificate file cannot be read.
    """
    return tls_context(address).wrap_socket(raw, server_hostname=address.host)


def tls_context(address: Address) -> ssl.SSLContext:
    """Return what the options of an address say of TLS.

    Raises:
        OSError: a certificate file cannot be read.
    """
    import ssl  # Not at the top: it costs 10 ms of import, and few stores are reached by TLS.

    options = address.options
    context = ssl.create_default_context(
        cafile=options.get("ssl_ca_certs") or options.get("ca_certs"),
        capath=options.get("ssl_ca_path"),
    )
    certificate, key = certificate_files(address)
    if certificate:
        context.load_cert_chain(certificate, key)
    required = (options.get("ssl_cert_reqs") or options.get("cert_reqs") or "required").lower()
    if required in ("none", "optional") or options.get("ssl_check_hostname", "true").lower() in ("0", "no", "false"):
        context.check_hostname = False
    if required == "none":
        context.verify_mode = ssl.CERT_NONE
    elif required == "optional":
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def certificate_files(address: Address) -> tuple[str, str | None]:
    """Return the files of the certificate and the key that an address names, "" for no certificate."""
    options = address.options
    certificate = options.get("ssl_certfile") or options.get("certfile") or ""
    return certificate, options.get("ssl_keyfile") or options.get("keyfile")
