"""A Redis Cluster of three masters, with replicas if wanted, on ports of their own."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rabbitry_broker.store.redis.cluster import SLOTS, slot_of
from tests.servers import RedisServer, ServerError, free_port, wait_until

MASTERS = 3
BUS_OFFSET = 10_000  # a server listens there too, for the others
# The kernel gives ports from here on to outgoing connections.
EPHEMERAL_PORTS = 32_768
NODE_TIMEOUT_MS = 1000


class RedisCluster:
    """All its processes.

    Attributes:
        servers: masters first, then replicas; who is what may change.
        url: what rabbitry is told.
        tls_ports: where the servers listen for TLS, if they were told to have `tls`.
    """

    def __init__(
        self, directory: Path, *, replicas: int = 0, config: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        """Prepare it; `start()` starts it.

        Args:
            directory: where the servers keep their data.
            replicas: how many; the first belongs to the first master, and so on.
            config: further lines of each redis.conf.
            options: as `RedisServer` takes them.
        """
        settings = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": str(NODE_TIMEOUT_MS),
            "cluster-replica-validity-factor": "0",
            **(config or {}),
        }
        options = {"appendonly": True, "appendfsync": "always", **options}
        self.servers: list[RedisServer] = []
        self.tls_ports: list[int] = []
        for number in range(MASTERS + replicas):
            mine = dict(settings)
            if options.get("tls"):
                self.tls_ports.append(_port_with_bus())
                mine.update({"tls-cluster": "yes", "tls-port": str(self.tls_ports[-1])})
            server = RedisServer(directory / str(number), config=mine, port=_port_with_bus(), **options)
            self.servers.append(server)
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{each.port}" for each in self.servers[:MASTERS])

    def start(self) -> None:
        """Start all, and return when they have formed a cluster; a killed server is started again."""
        for server in self.servers:
            server.start()
        if self._ask(self.servers[0], "CLUSTER", "INFO")["cluster_slots_assigned"] != str(SLOTS):
            self._form()
        wait_until(lambda: all(map(self._is_ready, self.servers)), "the cluster is formed", 30)

    def _form(self) -> None:
        for number, server in enumerate(self.servers[:MASTERS]):
            first, end = SLOTS * number // MASTERS, SLOTS * (number + 1) // MASTERS
            self._ask(server, "CLUSTER", "ADDSLOTS", *range(first, end))
        wait_until(self._have_met, "all servers know each other", 30, interval=0.5)
        for number, replica in enumerate(self.servers[MASTERS:]):
            master = self.id_of(self.servers[number])
            wait_until(lambda r=replica, m=master: self._replicate(r, m), "the replica knows its master", 20)  # type: ignore[misc]

    def _have_met(self) -> bool:
        """Introduce who is not known to all; a handshake that takes longer than the node timeout is forgotten."""
        unknown = [
            each
            for each in self.servers[1:]
            if int(self._ask(each, "CLUSTER", "INFO")["cluster_known_nodes"]) < len(self.servers)
        ]
        for server in unknown:
            self._ask(server, "CLUSTER", "MEET", "127.0.0.1", (self.tls_ports or [self.servers[0].port])[0])
        return not unknown

    def _replicate(self, replica: RedisServer, master: str) -> bool:
        with suppress(Exception):
            self._ask(replica, "CLUSTER", "REPLICATE", master)
            return True
        return False

    def _is_ready(self, server: RedisServer) -> bool:
        facts = self._ask(server, "CLUSTER", "INFO")
        with server.client() as client:
            link = client.info("replication").get("master_link_status", "up")
        known = int(facts["cluster_known_nodes"])
        return facts["cluster_state"] == "ok" and known == len(self.servers) and link == "up"

    def id_of(self, server: RedisServer) -> str:
        """Return what the cluster calls a server."""
        return str(self._ask(server, "CLUSTER", "MYID"))

    def master_of(self, key: bytes) -> RedisServer:
        """Return the server that has a key now, as the first that answers says.

        Raises:
            ServerError: nobody has it.
        """
        slot = slot_of(key)
        for server in self.servers:
            if not server.running:
                continue
            for start, end, master, *_ in self._ask(server, "CLUSTER SLOTS"):
                if start <= slot <= end:
                    return next(each for each in self.servers if each.port == master[1])
        raise ServerError(f"no server of the cluster has slot {slot}")

    def keys(self, prefix: str = "") -> set[bytes]:
        """Return the keys of all masters that begin with a prefix, or with it as their hash tag."""
        return {key for server in self.masters() for form in _forms(prefix) for key in server.keys(form)}

    def delete(self, prefix: str) -> None:
        """Delete the keys of all masters that begin with a prefix, or with it as their hash tag."""
        for server in self.masters():
            for form in _forms(prefix):
                server.delete(form)

    def masters(self) -> list[RedisServer]:
        masters = []
        for server in self.servers:
            if not server.running:
                continue
            with server.client() as client:
                if client.info("replication")["role"] == "master":
                    masters.append(server)
        return masters

    def wait_until_whole(self) -> None:
        """Return when living masters have all slots: killing another one before would leave no majority."""

        def whole(server: RedisServer) -> bool:
            facts = self._ask(server, "CLUSTER", "INFO")
            return facts["cluster_state"] == "ok" and facts["cluster_slots_ok"] == str(SLOTS)

        def all_whole() -> bool:
            running = [server for server in self.servers if server.running]
            ports = {master[1] for _, _, master, *_ in self._ask(running[0], "CLUSTER SLOTS")}
            return ports <= {server.port for server in running} and all(map(whole, running))

        wait_until(all_whole, "living masters have all slots", 30)

    def begin_to_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Have a slot migrate from one server to another; no key moves yet."""
        self._ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        self._ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))

    def finish_to_move(self, slot: int, source: RedisServer, target: RedisServer) -> int:
        """Move the keys of a slot that migrates, and end that; return how many there were."""
        count = 0
        with source.client() as client:
            while keys := client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
                count += len(keys)
        for server in (target, *(each for each in self.servers if each is not target)):
            with suppress(Exception):  # replicas are told by their masters
                self._ask(server, "CLUSTER", "SETSLOT", slot, "NODE", self.id_of(target))
        return count

    def stop(self) -> None:
        """Kill all."""
        for server in self.servers:
            server.kill()

    @staticmethod
    def _ask(server: RedisServer, *command: Any) -> Any:
        with server.client() as client:
            reply = client.execute_command(*command)
        if isinstance(reply, bytes):
            text = reply.decode()
            if ":" in text:
                return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
            return text
        return reply


def _port_with_bus() -> int:
    """Return a free port whose second port is free as well."""
    for _ in range(100):
        port = free_port()
        if port + BUS_OFFSET < EPHEMERAL_PORTS:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, suppress(OSError):
                probe.bind(("127.0.0.1", port + BUS_OFFSET))
                return port
    raise ServerError("no two free ports for a server of a Redis Cluster")


def _forms(prefix: str) -> tuple[str, ...]:
    return (prefix, f"{{{prefix}}}") if prefix else ("",)
