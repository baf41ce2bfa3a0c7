"""The supervisor of the embedded engine: `python -m rabbitry_workers embedded <descriptor>`.

One small process without threads. It starts the private server, forks the agent (which forks the template), starts the
agent again if it dies, and takes everything down when the driver's end of the link closes, however the driver ended.
An agent that cannot start is tried a few times with growing pauses, and then given up with the reason.

    driver --link--> supervisor --+-- redis-server
                                  '-- agent --> template --> executors
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import secrets
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from rabbitry_broker.cluster_file import ClusterFile, write
from rabbitry_broker.embedded_server import EmbeddedServer
from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import new_node_id
from rabbitry_broker.parent_death import die_with_parent
from rabbitry_broker.shared_memory import SharedMemoryStore, raise_file_limit
from rabbitry_broker.store.host import host_id
from rabbitry_broker.store.spill import OFF, Spill
from rabbitry_workers.node.services.memory import limit_from_environment
from rabbitry_workers.spilling import place_to_spill

STOP_SECONDS = 2.0
# Pauses before an agent is started again, by how many ended in a row soon after their start or before it.
RESTART_PAUSES = (0.0, 0.2, 0.5, 1.0, 2.0)
LASTING_SECONDS = 30.0  # an agent that lived so long ends the row
REASON_BYTES = 2000
_READY = b"1"
_FAILED = b"!"

log = logging.getLogger("rabbitry.node")


class Supervisor:
    """Starts, watches and stops the processes of an embedded cluster. Single-threaded."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._wake, wake_write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_terminate)
        self._ending = False

    def _on_terminate(self, *_: Any) -> None:
        self._ending = True

    def run(self) -> int:
        """Start everything, serve until the driver is gone, take everything down."""
        request = json.loads(_read_line(self._link))
        raise_file_limit()  # inherited by the server and the agent: an actor takes three descriptors of each
        try:
            server = EmbeddedServer.start()
        except (RabbitryBrokerError, OSError) as error:
            self._answer({"error": f"the embedded server could not be started: {error}"})
            return 1
        session = secrets.token_hex(8)
        disk = contextlib.ExitStack()
        try:
            secret = secrets.token_bytes(32)
            endpoint = Endpoint(store_url=server.url, secrets=(secret,))
            objects = request["objects"]
            objects["spill_url"] = objects["spill_url"] or disk.enter_context(place_to_spill(server.run_dir))
            config: dict[str, Any] = {
                "endpoint": endpoint,
                **request["node"],
                "name": socket.gethostname(),
                "session": session,
                "host": host_id(),
                "node_id": new_node_id(),
                "executor_memory": limit_from_environment(),
                **objects,
            }
            agent, reason = self._fork_agent(config)
            if not agent:
                self._answer({"error": f"the node could not be started: {reason}"})
                return 1
            # Now others can join; the file goes with the server's directory.
            address = write(server.run_dir, ClusterFile(endpoint, session, **objects))
            self._answer(
                {
                    "address": address,
                    "spill_url": objects["spill_url"],
                    "store_url": server.url,
                    "secret": secret.hex(),
                    "session": session,
                    "host": config["host"].decode(),
                    "node_id": config["node_id"].hex(),
                    "directory": str(server.run_dir),
                }
            )
            return self._watch(server, agent, config)
        finally:
            server.stop()
            SharedMemoryStore(session).clear()
            if request["objects"]["spill_url"] not in ("", OFF):
                Spill(request["objects"]["spill_url"], session).clear()
            disk.close()

    def _answer(self, facts: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._link.sendall(json.dumps(facts).encode() + b"\n")

    def _fork_agent(self, config: dict[str, Any]) -> tuple[int, str]:
        """Fork the agent; return its pid once it takes work, or 0 and why it does not."""
        ready_read, ready_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ready_read)
            _run_agent(config, ready_write, (self._link.fileno(), self._wake))
        os.close(ready_write)
        try:
            readable, _, _ = select.select([ready_read, self._link.fileno()], [], [])
            told = os.read(ready_read, REASON_BYTES) if ready_read in readable else b""
        finally:
            os.close(ready_read)
        if told == _READY:
            return pid, ""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        reason = told.removeprefix(_FAILED).decode(errors="replace")
        return 0, reason or f"its process ended with status {os.waitstatus_to_exitcode(status)}"

    def _watch(self, server: EmbeddedServer, agent: int, config: dict[str, Any]) -> int:
        """Start dead agents again until the driver is gone; return the exit code."""
        in_a_row, started, start_at, reason, code = 0, time.monotonic(), math.inf, "", 0
        while not self._ending:
            pause = None if agent else max(0.0, start_at - time.monotonic())
            readable, _, _ = select.select([self._link.fileno(), self._wake], [], [], pause)
            if self._wake in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 4096)
                if agent and os.waitpid(agent, os.WNOHANG)[0]:
                    agent = 0
                    in_a_row = 0 if time.monotonic() - started > LASTING_SECONDS else in_a_row
                    start_at = time.monotonic() + RESTART_PAUSES[min(in_a_row, len(RESTART_PAUSES) - 1)]
                    in_a_row += 1
                if not server.alive():
                    break
            if self._link.fileno() in readable and not self._link.recv(4096):
                break
            if not agent and time.monotonic() >= start_at:
                # A dead node's work comes back to the next one: a new agent is a new node.
                config["node_id"] = new_node_id()
                started = time.monotonic()
                agent, reason = self._fork_agent(config)
                if not agent:
                    if in_a_row >= len(RESTART_PAUSES):
                        log.error("the node could not be started again, %d times in a row: %s", in_a_row, reason)
                        code = 1
                        break
                    log.warning("the node could not be started again: %s", reason)
                    start_at = time.monotonic() + RESTART_PAUSES[in_a_row]
                    in_a_row += 1
        if agent:
            self._end_agent(agent)
        return code

    def _end_agent(self, agent: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(agent, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            done, _ = os.waitpid(agent, os.WNOHANG)
            if done:
                return
            select.select([self._wake], [], [], 0.05)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
        with contextlib.suppress(ProcessLookupError):
            os.kill(agent, signal.SIGKILL)
            os.waitpid(agent, 0)


def _run_agent(config: dict[str, Any], ready: int, close: tuple[int, ...]) -> NoReturn:
    """Body of the forked agent process."""
    code = 1
    try:
        die_with_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in close:
            os.close(fd)
        from rabbitry_workers.node.dispatch.forker import fork_template

        template = fork_template()
        from rabbitry.cluster import check_cluster
        from rabbitry_workers.node.agent import Agent
        from rabbitry_workers.node.model.config import NodeConfig

        check_cluster(config["endpoint"])  # leaves the mark that drivers who join compare themselves with
        agent = Agent(NodeConfig(**config), template, ready=lambda: os.write(ready, _READY))
        signal.signal(signal.SIGTERM, lambda *_: agent.stop())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        agent.run()
        code = 0
    except BaseException as error:
        import traceback

        traceback.print_exc()
        with contextlib.suppress(OSError):
            os.write(ready, _FAILED + f"{type(error).__name__}: {error}".encode()[: REASON_BYTES - 1])
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _read_line(link: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        data = link.recv(65536)
        if not data:
            raise SystemExit(0)  # the driver is gone already
        line += data
    return line


def main(descriptor: int) -> int:
    """Run the supervisor on the link that the driver passed."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return Supervisor(socket.socket(fileno=descriptor)).run()
