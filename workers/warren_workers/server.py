"""The server of a cluster with several nodes on the embedded engine: `python -m warren_workers server <descriptor>`.

One small process that keeps a private redis-server, and takes it down when the other end of the link closes, however
the process that held it ended. Nodes join by the address of its directory (see `warren_broker.cluster_file`).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import socket

from warren_broker.cluster_file import ClusterFile, write
from warren_broker.embedded_server import EmbeddedServer
from warren_broker.endpoint import Endpoint
from warren_broker.errors import WarrenBrokerError
from warren_broker.shared_memory import SharedMemoryStore


def main(descriptor: int) -> int:
    """Serve until the link ends. Its first line is JSON: `node_lease` and `client_lease`; the answer has `address`."""
    link = socket.socket(fileno=descriptor)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    with link.makefile("rb") as lines:
        request = lines.readline()
    if not request:
        return 0
    try:
        server = EmbeddedServer.start()
    except (WarrenBrokerError, OSError) as error:
        _answer(link, {"error": f"the embedded server could not be started: {error}"})
        return 1
    session = secrets.token_hex(8)
    try:
        endpoint = Endpoint(store_url=server.url, secrets=(secrets.token_bytes(32),))
        cluster = ClusterFile(endpoint, session, **json.loads(request))
        _answer(link, {"address": write(server.run_dir, cluster)})
        while server.alive():
            readable, _, _ = select.select([link.fileno(), wake_read], [], [])
            if wake_read in readable and signal.SIGTERM in os.read(wake_read, 512):
                break
            if link.fileno() in readable and not link.recv(4096):
                break
    finally:
        server.stop()
        SharedMemoryStore(session).clear()
    return 0


def _answer(link: socket.socket, facts: dict[str, str]) -> None:
    with contextlib.suppress(OSError):
        link.sendall(json.dumps(facts).encode() + b"\n")
