"""Several nodes on one machine, mostly for tests: `Cluster`, with the methods of Ray's.

All processes are subprocesses that hold one end of a link; they end when this process does, however that comes.

    this process --+-- link --> server (embedded engine: private redis-server)
                   +-- link --> node: agent --> template --> executors
                   '-- link --> node ...

On the RabbitMQ engine the servers are yours; the cluster has a prefix and a secret of its own there, and `shutdown`
deletes its keys and queues.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from rabbitry import environment, init_checks, option_checks
from rabbitry.arguments import amount, optional_text, seconds, shown, wrong_type
from rabbitry.runtime_env import check_runtime_env
from rabbitry_broker import cluster_file

if TYPE_CHECKING:
    from rabbitry.context import RabbitryContext
    from rabbitry_broker.endpoint import Endpoint

START_SECONDS = 30.0
STOP_SECONDS = 10.0
DRAIN_SECONDS = 10.0  # how long `remove_node` lets a node finish what it runs
NODE_LEASE_SECONDS = 10.0
CLIENT_LEASE_SECONDS = 30.0
LOG_SHOWN_BYTES = 4000


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # what tasks print is for this user alone


class ClusterNode:
    """A node of a `Cluster`.

    Attributes:
        address: of its cluster, for `rabbitry.init(address=...)`; `gcs_address` is the same.
        node_id: its id, as `rabbitry.nodes()` shows it; `unique_id` is the same.
        pid: of its agent.
        log: file that its agent writes to.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], link: socket.socket, *, address: str, node_id: str, log: Path
    ) -> None:
        self._process = process
        self._link = link
        self.address = address
        self.gcs_address = address
        self.node_id = node_id
        self.unique_id = node_id
        self.pid = process.pid
        self.log = log

    def alive(self) -> bool:
        """Return True while the agent's process runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the agent at once, as a crash would. The kernel ends its executors."""
        self._process.kill()
        self._process.wait()
        self._link.close()

    def drain(self, timeout: float = DRAIN_SECONDS + STOP_SECONDS) -> None:
        """Let the node finish what it runs, hand back the rest and leave; wait until it is gone.

        Args:
            timeout: seconds after which it is killed.
        """
        if self.alive():
            self._process.send_signal(signal.SIGTERM)
        self._await_end(timeout)

    def stop(self) -> None:
        """End the node at once, but in good order; what it ran goes back to its queue."""
        self._link.close()
        self._await_end(STOP_SECONDS)

    def _await_end(self, timeout: float) -> None:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        self._link.close()

    def __repr__(self) -> str:
        return f"ClusterNode({self.node_id[:8]}, pid={self.pid})"


class Cluster:
    """Nodes on this machine, on either engine. May be used with `with`, which shuts it down at the end.

    Args:
        initialize_head: start a first node with `head_node_args`.
        connect: call `connect` then.
        head_node_args: arguments of `add_node` for the first node.
        shutdown_at_exit: shut down when this process exits in good order.
        engine: "embedded" (a private server) or "rabbitmq".
        broker_url: RabbitMQ, for that engine; default: RABBITRY_BROKER_URL.
        store_url: Redis, for that engine; default: RABBITRY_STORE_URL.
        node_lease: seconds without a sign of life after which a node counts as dead.
        client_lease: the same for drivers and other clients.
        environment: variables for the nodes besides those of this process.

    Attributes:
        address: what `rabbitry.init(address=...)` and `rabbitry start --address` take to join it.

    Raises:
        ValueError: another engine, or no addresses for RabbitMQ.
        RuntimeError: the server or the first node did not start.

    Example:
        >>> with Cluster(initialize_head=True, head_node_args={"num_cpus": 2}) as cluster:     # doctest: +SKIP
        ...     node = cluster.add_node(num_cpus=4, resources={"license": 1}, labels={"zone": "b"})
        ...     rabbitry.init(address=cluster.address)
    """

    def __init__(
        self,
        initialize_head: bool = False,
        connect: bool = False,
        head_node_args: Mapping[str, Any] | None = None,
        shutdown_at_exit: bool = True,
        *,
        engine: str = "embedded",
        broker_url: str | None = None,
        store_url: str | None = None,
        node_lease: float = NODE_LEASE_SECONDS,
        client_lease: float = CLIENT_LEASE_SECONDS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if engine not in ("embedded", "rabbitmq"):
            raise ValueError(f"engine must be 'embedded' or 'rabbitmq', but is {shown(engine)}")
        leases = {"node_lease": _lease("node_lease", node_lease), "client_lease": _lease("client_lease", client_lease)}
        if head_node_args is not None and not isinstance(head_node_args, Mapping):
            raise wrong_type("head_node_args", head_node_args, "a dict of arguments of add_node, or None")
        if not initialize_head and (connect or head_node_args):
            raise ValueError("connect and head_node_args need initialize_head=True; or call add_node and connect")
        self._environment = (check_runtime_env({"env_vars": environment}) or {}).get("env_vars", {})
        self._nodes: list[ClusterNode] = []
        self._own_hosts: list[bytes] = []  # nodes that have shared memory of their own
        self._started = 0
        self._connected = False
        self._server: tuple[subprocess.Popen[bytes], socket.socket] | None = None
        self._directory: Any = None
        if engine == "embedded":
            process, link, answer = self._spawn(["server"], leases, None)
            self._server = process, link
            self.address: str = answer["address"]
        else:
            self.address = self._prepare(broker_url, store_url, **leases)
        self._endpoint: Endpoint = cluster_file.read(self.address).endpoint
        if shutdown_at_exit:
            atexit.register(self.shutdown)
        if initialize_head:
            try:
                self.add_node(**dict(head_node_args or {}))
                if connect:
                    self.connect()
            except BaseException:
                self.shutdown()
                raise

    def _prepare(self, broker_url: str | None, store_url: str | None, node_lease: float, client_lease: float) -> str:
        """Make the directory of a cluster on RabbitMQ."""
        from rabbitry_broker.endpoint import Endpoint
        from rabbitry_broker.run_directory import RunDirectory
        from rabbitry_broker.store.host import shared_session

        broker_url = broker_url or environment.text(environment.BROKER_URL)
        store_url = store_url or environment.text(environment.STORE_URL)
        if not broker_url or not store_url:
            raise ValueError(
                "engine='rabbitmq' needs servers: pass broker_url='amqp://...' and store_url='redis://...', or set "
                "RABBITRY_BROKER_URL and RABBITRY_STORE_URL"
            )
        prefix = f"rabbitry-{secrets.token_hex(4)}:"
        endpoint = Endpoint(store_url, broker_url, (secrets.token_bytes(32),), prefix)
        self._directory = RunDirectory.create()
        cluster = cluster_file.ClusterFile(endpoint, shared_session(endpoint), node_lease, client_lease)
        return cluster_file.write(self._directory.path, cluster)

    @property
    def gcs_address(self) -> str:
        """Ray's name for `address`."""
        return self.address

    @property
    def head_node(self) -> ClusterNode | None:
        """The first node. Rabbitry has no head: it is like the others."""
        return self._nodes[0] if self._nodes else None

    @property
    def worker_nodes(self) -> list[ClusterNode]:
        """All nodes but the first."""
        return self._nodes[1:]

    def list_all_nodes(self) -> list[ClusterNode]:
        """Return the nodes that were added and not removed."""
        return list(self._nodes)

    def add_node(
        self,
        wait: bool = True,
        *,
        num_cpus: float = 1,
        num_gpus: float = 0,
        memory: float | None = None,
        resources: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
        node_ip_address: str | None = None,
        own_host: bool = False,
        **_: Any,
    ) -> ClusterNode:
        """Start a node; return when it takes work.

        Args:
            wait: accepted; every node is waited for.
            num_cpus: CPUs it offers.
            num_gpus: GPUs it offers, whether there are any or not.
            memory: bytes it offers; None for most of the machine's.
            resources: custom resources it offers, by name.
            labels: its labels.
            name: what people call it; None for the host's name.
            own_host: share no memory with other nodes and drivers, as a node on another machine (RabbitMQ engine only).
            node_ip_address: which address it says it has; None for this machine's. All are reached at this machine's.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: an impossible value.
            RuntimeError: it did not start; the message holds what it said.
        """
        num_cpus, num_gpus = amount("num_cpus", num_cpus), amount("num_gpus", num_gpus)
        memory = None if memory is None else amount("memory", memory)
        resources = option_checks.resources("resources", resources)
        labels = init_checks.node_labels(labels)
        name = optional_text("name", name)
        arguments = ["start", "--address", self.address, f"--num-cpus={num_cpus}", f"--num-gpus={num_gpus}"]
        arguments += ["--resources", json.dumps(resources)]
        if memory is not None:
            arguments.append(f"--memory={int(memory)}")
        if labels:
            arguments.append("--labels=" + ",".join(f"{key}={value}" for key, value in labels.items()))
        if name:
            arguments.append(f"--name={name}")
        if optional_text("node_ip_address", node_ip_address):
            arguments.append(f"--node-ip-address={node_ip_address}")
        if own_host and self._server is not None:
            raise ValueError("own_host=True needs engine='rabbitmq': the embedded engine has one host")
        arguments += ["--own-host"] * own_host
        self._started += 1
        log = _directory_of(self.address) / f"node-{self._started}.log"
        process, link, answer = self._spawn([*arguments, "--link"], None, log)
        node = ClusterNode(process, link, address=self.address, node_id=answer["node_id"], log=log)
        self._nodes.append(node)
        if own_host:
            self._own_hosts.append(bytes.fromhex(node.node_id))
        return node

    def remove_node(self, node: ClusterNode, allow_graceful: bool = True) -> None:
        """Take a node away, and return when its process is gone.

        Args:
            node: one that `add_node` returned.
            allow_graceful: let it finish what it runs, for some seconds; False kills it as a crash would.

        Raises:
            ValueError: it is no node of this cluster (any more).
        """
        if node not in self._nodes:
            raise ValueError(f"{node!r} is no node of this cluster (any more)")
        self._nodes.remove(node)
        if allow_graceful:
            node.drain()
        else:
            node.kill()

    def wait_for_nodes(self, timeout: float = 30.0) -> None:
        """Wait until the cluster knows of all nodes that were added, and of the end of those that were removed.

        Args:
            timeout: seconds; a node that was killed counts as alive until its lease has ended.

        Raises:
            TimeoutError: it did not within `timeout`.
        """
        expected = {node.node_id for node in self._nodes if node.alive()}
        patience = seconds("timeout", timeout)
        deadline = math.inf if patience is None else time.monotonic() + patience
        while (living := self._living()) != expected:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"after {timeout:g} s the cluster has {len(living)} living nodes, not {len(expected)}; "
                    f"missing: {sorted(each[:8] for each in expected - living)}, "
                    f"not gone: {sorted(each[:8] for each in living - expected)}"
                )
            time.sleep(0.05)

    def _living(self) -> set[str]:
        from rabbitry.nodes import read_nodes
        from rabbitry_broker.signing import Signer
        from rabbitry_broker.store.keys import Keys
        from rabbitry_broker.store.server import Connection

        connection = Connection.open(self._endpoint, name="rabbitry-cluster-utils")
        try:
            nodes = read_nodes(connection, Keys.of(self._endpoint), Signer(self._endpoint.secrets))
        finally:
            connection.close()
        return {node["id"].hex() for node in nodes if node["alive"]}

    def connect(self, namespace: str | None = None, **options: Any) -> RabbitryContext:
        """Call `rabbitry.init` for this cluster and return its context; `shutdown` ends that session too.

        Args:
            namespace: where named actors live.
            options: other arguments of `rabbitry.init`.
        """
        import rabbitry

        self._connected = True
        return rabbitry.init(address=self.address, namespace=namespace, **options)

    def shutdown(self) -> None:
        """End the session that `connect` made, then all nodes and the server. May be called twice."""
        atexit.unregister(self.shutdown)
        if self._connected:
            import rabbitry

            self._connected = False
            rabbitry.shutdown()
        nodes, self._nodes = self._nodes, []
        ids, self._own_hosts = self._own_hosts, []
        for node in nodes:
            node._link.close()  # They all leave at the same time.
        for node in nodes:
            node.stop()
        if self._server is not None:
            process, link = self._server
            self._server = None
            link.close()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        elif self._directory is not None:
            from rabbitry.cluster import delete_cluster
            from rabbitry_broker.shared_memory import SharedMemoryStore
            from rabbitry_broker.store.host import own_host, shared_session

            delete_cluster(self._endpoint)
            session = shared_session(self._endpoint)
            for each in (session, *[own_host(session, node_id)[1] for node_id in ids]):
                SharedMemoryStore(each).clear()
            self._directory.remove()
            self._directory = None

    def _spawn(
        self, arguments: list[str], request: dict[str, Any] | None, log: Path | None
    ) -> tuple[subprocess.Popen[bytes], socket.socket, dict[str, Any]]:
        """Start `python -m rabbitry_workers <arguments> <descriptor>`; return process, our end of its link, answer."""
        ours, theirs = socket.socketpair()
        environment = {"RABBITRY_DRAIN_SECONDS": str(DRAIN_SECONDS), **os.environ, **self._environment}
        # It must find the same packages as this process, wherever they were imported from.
        environment["PYTHONPATH"] = os.pathsep.join([path for path in sys.path if path])
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(theirs.close)
            output = cleanup.enter_context(open(log, "wb", opener=_private)) if log is not None else None
            process = subprocess.Popen(
                [sys.executable, "-m", "rabbitry_workers", *arguments, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,  # a Ctrl-C at the terminal is for this process alone
            )
        try:
            if request is not None:
                ours.sendall(json.dumps(request).encode() + b"\n")
            answer = _read_answer(ours, process, log)
        except BaseException:
            ours.close()
            process.kill()
            process.wait()
            raise
        return process, ours, answer

    def __enter__(self) -> Cluster:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Shut it down."""
        self.shutdown()

    def __repr__(self) -> str:
        return f"Cluster({self.address!r}, {len(self._nodes)} nodes)"


cluster_not_supported = False
"""Every platform that rabbitry runs on has clusters; Ray's name for the question."""


def _lease(what: str, value: Any) -> float:
    """Return how long a lease is, in seconds."""
    checked = seconds(what, value)
    if not checked:
        raise ValueError(f"{what} must be a finite number of seconds above 0, but is {shown(value)}")
    return checked


def _directory_of(address: str) -> Path:
    return Path(unquote(urlsplit(address).path))


def _read_answer(link: socket.socket, process: subprocess.Popen[bytes], log: Path | None) -> dict[str, Any]:
    line = b""
    deadline = time.monotonic() + START_SECONDS
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([link], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise RuntimeError(f"it did not start within {START_SECONDS:g} s{_last_words(log)}")
        data = link.recv(65536)
        if not data:
            raise RuntimeError(f"it ended while it started, with exit code {process.wait()}{_last_words(log)}")
        line += data
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer


def _last_words(log: Path | None) -> str:
    if log is None:
        return "; its output is above"
    return ":\n" + log.read_bytes()[-LOG_SHOWN_BYTES:].decode(errors="replace")


__all__ = ["Cluster", "ClusterNode", "cluster_not_supported"]
