"""A Redis master, its replica and three Sentinels, on ports of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import redis

from tests.server_binaries import find_redis_server
from tests.servers import RedisServer, Server, free_port, wait_until

SERVICE = "rabbitry-test"
DOWN_AFTER_MS = 500
COUNT = 3
KNOWN_TIMEOUT = 40.0  # seconds; 2 where the machine is idle


class Sentinel(Server):
    """One Sentinel process."""

    name = "redis-sentinel"

    def __init__(self, directory: Path, master_port: int) -> None:
        super().__init__(directory)
        self.port = free_port()
        (directory / "sentinel.conf").write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {directory}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {master_port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
        )

    def _command(self) -> tuple[Sequence[str], Mapping[str, str]]:
        binary = find_redis_server()
        assert binary is not None
        return [binary, str(self.directory / "sentinel.conf"), "--sentinel"], {}

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port, socket_timeout=2) as client:
                return bool(client.info("server")["process_id"] == self.pid)  # else another has its port
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def state(self) -> dict[str, str]:
        """Return what it knows of the master."""
        with redis.Redis(port=self.port, socket_timeout=2, decode_responses=True) as client:
            flat = client.execute_command("SENTINEL", "MASTER", SERVICE)
            return flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))


class Sentinels:
    """All five processes.

    Attributes:
        servers: two Redis servers; the first one begins as the master.
        url: what rabbitry is told.
    """

    def __init__(self, directory: Path) -> None:
        first = RedisServer(directory / "a", appendonly=True, appendfsync="always")
        replica_of = {"replicaof": f"127.0.0.1 {first.port}", "repl-diskless-sync-delay": "0"}
        self.servers = [first, RedisServer(directory / "b", appendonly=True, appendfsync="always", config=replica_of)]
        self.sentinels = [Sentinel(directory / f"s{number}", first.port) for number in range(COUNT)]
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/{SERVICE}"

    def start(self) -> None:
        """Start all, and return when the Sentinels know each other and the replica."""
        for server in self.servers:
            server.start()
        # Before the Sentinels look: they ask a master for its replicas at their start, and then each 10 s only.
        wait_until(self._replicates, "the replica has caught up", 20)
        for sentinel in self.sentinels:
            sentinel.start()

        def known(sentinel: Sentinel) -> bool:
            state = sentinel.state()
            return str(state["num-slaves"]) == "1" and int(state["num-other-sentinels"]) == COUNT - 1

        wait_until(lambda: all(known(each) for each in self.sentinels), "the Sentinels know all servers", KNOWN_TIMEOUT)

    def _replicates(self) -> bool:
        with self.servers[1].client() as client:
            return bool(client.info("replication").get("master_link_status") == "up")

    def master(self) -> RedisServer:
        """Return the server that is the master now."""
        port = int(self.sentinels[0].state()["port"])
        return next(server for server in self.servers if server.port == port)

    def fail_over(self) -> None:
        """Have the Sentinels make the replica the master, and wait until the old master is a replica."""
        old = self.master()
        with redis.Redis(port=self.sentinels[0].port, socket_timeout=2) as client:
            client.execute_command("SENTINEL", "FAILOVER", SERVICE)

        def demoted() -> bool:
            try:
                with old.client() as client:
                    return bool(client.info("replication")["role"] == "slave")
            except redis.ConnectionError:
                return False  # a Sentinel ends all connections of a server that it makes a replica

        wait_until(demoted, "the old master is a replica", 20)

    def stop(self) -> None:
        """Kill all."""
        for server in [*self.sentinels, *self.servers]:
            server.kill()
