"""The server of a cluster with several nodes on the embedded engine: `python -m rabbitry_workers server <descriptor>`.

One small process that keeps a private redis-server, and takes it down when the other end of the link closes, however
the process that held it ended. Nodes join by the address of its directory (see `rabbitry_broker.cluster_file`).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import socket

from rabbitry_broker.cluster_file import ClusterFile, write
from rabbitry_broker.embedded_server import EmbeddedServer
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.shared_memory import SharedMemoryStore
from rabbitry_workers.spilling import place_to_spill


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
    except (RabbitryBrokerError, OSError) as error:
        _answer(link, {"error": f"the embedded server could not be started: {error}"})
        return 1
    session = secrets.token_hex(8)
    disk = contextlib.ExitStack()
    try:
        endpoint = Endpoint(store_url=server.url, secrets=(secrets.token_bytes(32),))
        spill_url = disk.enter_context(place_to_spill(server.run_dir))
        cluster = ClusterFile(endpoint, session, spill_url=spill_url, **json.loads(request))
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
        disk.close()
    return 0


def _answer(link: socket.socket, facts: dict[str, str]) -> None:
    with contextlib.suppress(OSError):
        link.sendall(json.dumps(facts).encode() + b"\n")
