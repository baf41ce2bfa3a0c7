"""Several nodes on one machine, for tests: `Cluster`, with the methods of Ray's.

On the embedded engine the cluster has a private server of its own and `address` looks like `embedded:/run/dir`; on
RabbitMQ the servers are those of `WARREN_BROKER_URL`, `WARREN_STORE_URL` and `WARREN_SECRET`.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from warren.embedded_address import SECRET_FILE, SESSION_FILE, embedded_address, endpoint_of

START_SECONDS = 30.0
STOP_SECONDS = 10.0


class ClusterNode:
    """A node of a `Cluster`: its process and its id.

    Attributes:
        node_id: hexadecimal id; `unique_id` is the same.
        pid: of its agent.
    """

    def __init__(self, process: subprocess.Popen[bytes], node_id: str) -> None:
        self._process = process
        self.node_id = node_id
        self.unique_id = node_id
        self.pid = process.pid

    def alive(self) -> bool:
        """True while the agent's process runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the agent at once; the kernel ends its executors."""
        self._process.kill()
        self._process.wait()

    def drain(self) -> None:
        """Let the node finish what runs, hand back the rest and leave; wait for it."""
        if self.alive():
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def __repr__(self) -> str:
        return f"ClusterNode({self.node_id[:8]}, pid={self.pid})"


class Cluster:
    """Starts nodes on this machine, and stops them. A context manager.

    Args:
        initialize_head: start a first node with `head_node_args`.
        connect: call `warren.init` for it.
        head_node_args: arguments of `add_node` for the first node.
        engine: "embedded" or "rabbitmq".
        environment: variables for the nodes, beside this process's own.

    Raises:
        ValueError: another engine.
    """

    def __init__(
        self,
        initialize_head: bool = False,
        connect: bool = False,
        head_node_args: Mapping[str, Any] | None = None,
        *,
        engine: str = "embedded",
        environment: Mapping[str, str] | None = None,
        **_: Any,
    ) -> None:
        if engine not in ("embedded", "rabbitmq"):
            raise ValueError(f"engine must be 'embedded' or 'rabbitmq', got {engine!r}")
        self._nodes: list[ClusterNode] = []
        self._server: Any = None
        self._environment = {**os.environ, **(environment or {})}
        self._embedded = engine == "embedded"
        self._connected = False
        if self._embedded:
            from warren_broker.embedded_server import EmbeddedServer

            self._server = EmbeddedServer.start()
            for name, content in (
                (SECRET_FILE, secrets.token_hex(32)),
                (SESSION_FILE, secrets.token_hex(8)),
            ):
                path = Path(self._server.run_dir) / name
                path.touch(mode=0o600)
                path.write_text(content)
            self.address = embedded_address(self._server.run_dir)
        else:
            self.address = "auto"
        if initialize_head:
            self.add_node(**dict(head_node_args or {}))
            if connect:
                self.connect()

    @property
    def head_node(self) -> ClusterNode | None:
        """The first node; warren has no head, so it is like the others."""
        return self._nodes[0] if self._nodes else None

    @property
    def worker_nodes(self) -> list[ClusterNode]:
        """All nodes but the first."""
        return self._nodes[1:]

    def list_all_nodes(self) -> list[ClusterNode]:
        """Return all nodes that were added and not removed."""
        return list(self._nodes)

    @property
    def gcs_address(self) -> str:
        """Ray's name for the address."""
        return self.address

    def add_node(
        self,
        *,
        num_cpus: float = 1,
        num_gpus: float = 0,
        memory: int | None = None,
        resources: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
        name: str = "",
        wait: bool = True,
        **_: Any,
    ) -> ClusterNode:
        """Start a node; returns when it takes work.

        Args:
            num_cpus: CPUs it offers.
            num_gpus: GPUs it pretends to have.
            memory: memory it offers, in bytes; default: the machine's.
            resources: custom resources.
            labels: its labels.
            name: its name.
            wait: accepted; the node is always waited for.

        Raises:
            RuntimeError: it did not start.
        """
        request = {
            "address": self.address,
            "num_cpus": num_cpus,
            "num_gpus": num_gpus,
            "memory": memory,
            "resources": dict(resources or {}),
            "labels": dict(labels or {}),
            "name": name,
        }
        environment = dict(self._environment)
        environment["PYTHONPATH"] = os.pathsep.join([path for path in sys.path if path])
        process = subprocess.Popen(
            [sys.executable, "-m", "warren_workers", "join"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the node ended while it started (exit code {process.wait()}); its output is above")
        node = ClusterNode(process, json.loads(answer)["node_id"])
        self._nodes.append(node)
        return node

    def remove_node(self, node: ClusterNode, allow_graceful: bool = True) -> None:
        """Take a node away.

        Args:
            node: one that `add_node` returned.
            allow_graceful: drain it; False kills it.
        """
        self._nodes.remove(node)
        if allow_graceful:
            node.drain()
        else:
            node.kill()

    def connect(self, namespace: str | None = None, **options: Any) -> Any:
        """Call `warren.init` for this cluster; returns its context."""
        import warren

        if not self._embedded:
            for name in ("WARREN_BROKER_URL", "WARREN_STORE_URL", "WARREN_SECRET", "WARREN_PREFIX"):
                if name in self._environment:
                    os.environ[name] = self._environment[name]
        self._connected = True
        return warren.init(address=self.address, namespace=namespace, **options)

    def wait_for_nodes(self, timeout: float = 30.0) -> None:
        """Wait until the connected driver sees as many living nodes as there are.

        Raises:
            TimeoutError: not within `timeout` seconds.
        """
        import warren

        deadline = time.monotonic() + timeout
        while True:
            alive = {node["NodeID"] for node in warren.nodes() if node["Alive"]}
            if {node.node_id for node in self._nodes if node.alive()} == alive:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(alive)} nodes are alive, {len(self._nodes)} expected")
            time.sleep(0.05)

    def shutdown(self) -> None:
        """Disconnect the driver if `connect` was called, stop all nodes and the server."""
        import warren

        if self._connected:
            warren.shutdown()
            self._connected = False
        while self._nodes:
            self.remove_node(self._nodes[-1])
        if self._server is not None:
            from warren_broker.shared_memory import SharedMemoryStore

            _, session = endpoint_of(self.address)
            self._server.stop()
            SharedMemoryStore(session).clear()
            self._server = None

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


def cluster_not_supported(*_: Any, **__: Any) -> bool:
    """Ray's marker for platforms without clusters on one machine; there are none here."""
    return False
