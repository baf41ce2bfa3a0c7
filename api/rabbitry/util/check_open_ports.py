"""Which ports a cluster has open: `python -m rabbitry.util.check_open_ports`.

Nodes and drivers of rabbitry listen on none: they only connect, to RabbitMQ and Redis. Those servers are what may be
open to others. (Ray's tool of this name asks a service on the internet to try; this one sends nothing anywhere.)
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from rabbitry import environment

SERVERS = {"RABBITRY_BROKER_URL": "RabbitMQ", "RABBITRY_STORE_URL": "Redis"}


def check_open_ports() -> list[tuple[str, str, bool]]:
    """Print where the servers of the cluster that the environment names listen, and who may reach them.

    Returns:
        For each (server, "host:port", True if its address is a public one).
    """
    found = []
    for variable, server in SERVERS.items():
        url = urlsplit(environment.text(variable))
        if not url.hostname:
            print(f"{server}: {variable} names none.")
            continue
        public = [address for address in _addresses(url.hostname) if ipaddress.ip_address(address).is_global]
        port = url.port or {"amqp": 5672, "amqps": 5671}.get(url.scheme, 6379)
        found.append((server, f"{url.hostname}:{port}", bool(public)))
        print(
            f"{server}: {url.hostname}:{port} has the public address {', '.join(public)}: whoever has its password can "
            "run code on every node. Close it to the internet, or let it take TLS only."
            if public
            else f"{server}: {url.hostname}:{port} has no public address."
        )
    print("Nodes, executors and drivers listen on no port.")
    return found


def _addresses(host: str) -> list[str]:
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(entry[4][0]).partition("%")[0] for entry in entries})


if __name__ == "__main__":
    check_open_ports()
