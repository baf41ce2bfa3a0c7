"""The stage of a scenario: servers of its own, a cluster of two nodes on them, and the faults that befall them."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import rabbitry
from rabbitry.cluster_utils import Cluster, ClusterNode
from rabbitry_broker import cluster_file
from tests.across_workers import say_at_the_end
from tests.chaos.proxy import Proxy
from tests.servers import RabbitMQServer, RedisServer, wait_until

NODE_LEASE = 3.0  # seconds; the default of 10 would only make the scenarios longer
CLIENT_LEASE = 6.0  # instead of 30
NODE_CPUS = 2
RECOVERY_GOAL = 5.0  # seconds after a fault heals
RECOVERY_TIMEOUT = 20.0


def report(line: str) -> None:
    """Tell something now, and again at the end of the run: how long a recovery took."""
    say_at_the_end("chaos", line)
    print(line)


class Stage:
    """Two servers, two nodes and a driver (this process).

    Attributes:
        rabbitmq: the broker, with an administrator.
        redis: the store, with an append-only file.
        cluster: the nodes.
        random: decides whom a fault befalls.
        healed_at: when the last fault was over (`time.monotonic`).
        forged: a test wrote records and messages of its own, which nobody clears away.
    """

    def __init__(
        self,
        rabbitmq: RabbitMQServer,
        redis: RedisServer,
        seed: int,
        *,
        store_url: str | None = None,
        broker_url: str | None = None,
    ) -> None:
        self.rabbitmq = rabbitmq
        self.redis = redis
        self.random = random.Random(seed)
        self.cluster = Cluster(
            engine="rabbitmq",
            broker_url=broker_url or rabbitmq.url,
            store_url=store_url or redis.url,
            node_lease=NODE_LEASE,
            client_lease=CLIENT_LEASE,
        )
        self.healed_at = 0.0
        self.forged = False

    def start(self) -> None:
        """Start the nodes and connect the driver."""
        for _ in range(2):
            self.cluster.add_node(num_cpus=NODE_CPUS)
        self.cluster.connect(log_to_driver=False)

    def add_node_behind(self, *proxies: Proxy, resources: dict[str, float] | None = None) -> ClusterNode:
        """Add a node that reaches broker and store by two proxies only."""
        broker, store = proxies
        mine = cluster_file.read(self.cluster.address)
        endpoint = replace(
            mine.endpoint,
            broker_url=(mine.endpoint.broker_url or "").replace(f":{self.rabbitmq.port}/", f":{broker.port}/"),
            store_url=mine.endpoint.store_url.replace(f":{self.redis.port}/", f":{store.port}/"),
        )
        directory = self.redis.directory.parent / f"behind-{broker.port}"
        directory.mkdir(mode=0o700)
        address = self.cluster.address
        self.cluster.address = cluster_file.write(directory, replace(mine, endpoint=endpoint))
        try:
            return self.cluster.add_node(num_cpus=NODE_CPUS, resources=resources)
        finally:
            self.cluster.address = address

    def stop(self) -> None:
        """End everything but the servers."""
        for node in self.cluster.list_all_nodes():
            with suppress(ProcessLookupError):
                os.kill(node.pid, signal.SIGCONT)
        self.cluster.shutdown()

    def logs(self) -> str:
        """Return the end of what each node logged."""
        nodes = self.cluster.list_all_nodes()
        return "\n".join(f"--- {node!r}\n" + node.log.read_text(errors="replace")[-6000:] for node in nodes)

    # -- whom to hit

    def nodes(self) -> list[ClusterNode]:
        """Return the nodes whose agents live."""
        return [node for node in self.cluster.list_all_nodes() if node.alive()]

    def workers(self, node: ClusterNode | None = None) -> list[int]:
        """Return the process ids of executors and actor hosts, of one node or of all."""
        found = []
        for each in [node] if node is not None else self.nodes():
            for template in children(each.pid):
                found += children(template)
        return found

    def templates(self) -> list[int]:
        """Return the process ids of the template processes."""
        return [pid for node in self.nodes() for pid in children(node.pid)]

    # -- faults

    def kill_worker(self) -> bool:
        """Kill one executor or actor host at random; False if there is none."""
        workers = self.workers()
        if not workers:
            return False
        with suppress(ProcessLookupError):
            os.kill(self.random.choice(workers), signal.SIGKILL)
        return True

    def kill_node(self) -> None:
        """Kill one agent at random and put a new node in its place."""
        victim = self.random.choice(self.nodes())
        victim.kill()
        self.cluster.add_node(num_cpus=NODE_CPUS)

    def restart_rabbitmq(self, down: float = 0.5) -> None:
        """Kill the broker and start it again after so many seconds."""
        self.rabbitmq.kill()
        time.sleep(down)
        self.rabbitmq.start()

    def restart_redis(self, down: float = 0.5) -> None:
        """Kill the store and start it again after so many seconds."""
        self.redis.kill()
        time.sleep(down)
        self.redis.start()

    def kill_clients(self) -> None:
        """Close every connection to the store."""
        with self.redis.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    def close_connections(self) -> None:
        """Have the broker close every connection."""
        self.rabbitmq.evaluate(
            'lists:foreach(fun(P) -> catch rabbit_networking:close_connection(P, "closed by a test") end, '
            "rabbit_networking:connections())."
        )

    # -- recovery

    def healed(self) -> None:
        """The last fault is over: recovery is timed from now."""
        self.healed_at = time.monotonic()

    def recovery(self, what: str, probe: Callable[[], object], *, timeout: float = RECOVERY_TIMEOUT) -> float:
        """Run a probe, print how long after `healed` it succeeded, and return that.

        Raises:
            AssertionError: it took longer than any recovery may.
        """

        def works() -> bool:
            try:
                probe()
            except (rabbitry.exceptions.RabbitryError, rabbitry.exceptions.GetTimeoutError, ConnectionError):
                return False
            return True

        wait_until(works, f"work goes on after {what}", timeout=timeout)
        seconds = time.monotonic() - self.healed_at
        late = "" if seconds <= RECOVERY_GOAL else f" (the goal is {RECOVERY_GOAL:g} s)"
        report(f"recovery from {what}: {seconds:.2f} s{late}")
        return seconds


def children(pid: int) -> list[int]:
    """Return the process ids of a process's living children (Linux)."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(each) for thread in threads for each in (thread / "children").read_text().split()]
    except OSError:
        return []
