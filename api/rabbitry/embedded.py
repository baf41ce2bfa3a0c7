"""The embedded cluster, as its driver sees it: one subprocess that runs the server and the node, gone with the driver.

The driver holds one end of a socket pair; the supervisor (`python -m rabbitry_workers embedded`) ends when that closes,
also if the driver was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from typing import Any, Final

from rabbitry_broker.endpoint import Endpoint
from rabbitry_broker.run_directory import RunDirectory, RunDirectoryError
from rabbitry_broker.shared_memory import SharedMemoryStore
from rabbitry_broker.store.spill import OFF, Spill

START_SECONDS = 30.0
STOP_SECONDS = 5.0

# The directory whose `sitecustomize` sets up each process that finds it.
INSTRUMENTS_PROCESSES: Final = os.path.join("opentelemetry", "instrumentation", "auto_instrumentation")


class EmbeddedNode:
    """A running embedded cluster. Make one with `start`."""

    def __init__(self, process: subprocess.Popen[bytes], link: socket.socket, facts: dict[str, Any]) -> None:
        self._process = process
        self._link = link
        self.directory: str = facts["directory"]
        self.address: str = facts["address"]
        self.spill_url: str = facts["spill_url"]
        self.session: str = facts["session"]
        self.host: bytes = facts["host"].encode()
        self.node_id = bytes.fromhex(facts["node_id"])
        self.endpoint = Endpoint(store_url=facts["store_url"], secrets=(bytes.fromhex(facts["secret"]),))

    @classmethod
    def start(cls, node: dict[str, Any], objects: dict[str, Any]) -> EmbeddedNode:
        """Start server and node; return when the node takes work.

        Args:
            node: its `totals`, `labels` and `address`, see `rabbitry.nodes.implicit`.
            objects: `object_ttl`, `spill_url` and `memory_limit` of its store.

        Raises:
            RuntimeError: it did not start; the message holds what it said.
        """
        ours, theirs = socket.socketpair()
        environment = dict(os.environ)
        # The supervisor must find the same packages as this process, wherever they were imported from. But it is no
        # process of the user's for `opentelemetry-instrument` to set up: worker processes do that for themselves.
        path = [each for each in sys.path if each and not each.endswith(INSTRUMENTS_PROCESSES)]
        environment["PYTHONPATH"] = os.pathsep.join(path)
        process = subprocess.Popen(
            [sys.executable, "-m", "rabbitry_workers", "embedded", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            env=environment,
            # A Ctrl-C at the terminal is for the driver; it decides what to cancel.
            start_new_session=True,
        )
        theirs.close()
        try:
            ours.sendall(json.dumps({"node": node, "objects": objects}).encode() + b"\n")
            facts = cls._wait(ours, process)
        except BaseException:
            ours.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            raise
        return cls(process, ours, facts)

    @staticmethod
    def _wait(link: socket.socket, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        answer = b""
        deadline = time.monotonic() + START_SECONDS
        while not answer.endswith(b"\n"):
            readable, _, _ = select.select([link], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                process.kill()
                raise RuntimeError(f"the embedded node did not start within {START_SECONDS:g} s")
            data = link.recv(65536)
            if not data:
                raise RuntimeError(
                    f"the embedded node ended while it started (exit code {process.wait()}); its output is above"
                )
            answer += data
        facts: dict[str, Any] = json.loads(answer)
        if "error" in facts:
            raise RuntimeError(facts["error"])
        return facts

    def stop(self) -> None:
        """Stop node and server, and wait until they are gone."""
        self._link.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode < 0:
            self._clear_up()

    def _clear_up(self) -> None:
        """Remove what a supervisor that was killed could not."""
        with contextlib.suppress(RunDirectoryError):
            RunDirectory.join(self.directory).remove()
        SharedMemoryStore(self.session).clear()
        if self.spill_url not in ("", OFF):
            Spill(self.spill_url, self.session).clear()
