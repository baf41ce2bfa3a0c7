"""What programs run on: the embedded engine, a cluster on RabbitMQ and Redis, or real Ray."""

from __future__ import annotations

import os
import random
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.restarts import Restarts

if TYPE_CHECKING:
    from tests.servers import RabbitMQServer, RedisServer, Server

ROOT = Path(__file__).resolve().parents[2]
RAY_VARIABLE = "RABBITRY_ORACLE_PYTHON"
RESTARTS = "FUZZ_RESTARTS"
"""Names the variable with the seconds from one restart of a server to the next."""
ADDRESSES = ("RABBITRY_BROKER_URL", "RABBITRY_STORE_URL")
ERRORS = re.compile(
    rb"^\d{4}-\d\d-\d\d [\d:,]+ (?:ERROR|CRITICAL) (?!rabbitry: Unhandled).*(?:\n(?!\d{4}-\d\d-\d\d ).*)*", re.MULTILINE
)
"""What a node logs when something went wrong in it that nobody foresaw, with its traceback.

A driver, whose words stand beside those of its embedded node, also logs errors of tasks that nobody asked for.
"""
NODES = [(4, '{"x": 2}'), (2, "{}")]
"""CPUs and resources of the nodes of a cluster: one has room for every task while all actors of a program are there."""


def errors_in(said: bytes) -> list[str]:
    """Return the errors in what nodes have logged."""
    return [each.decode(errors="replace") for each in ERRORS.findall(said)]


@contextmanager
def own_servers() -> Iterator[tuple[RabbitMQServer, RedisServer]]:
    """Run a broker, and a store that keeps what it has over a restart."""
    from tests.servers import RabbitMQServer, RedisServer

    with tempfile.TemporaryDirectory(prefix="fuzz-servers-") as directory:
        store = RedisServer(Path(directory, "redis"), appendonly=True)
        broker = RabbitMQServer(Path(directory, "rabbitmq"))
        try:
            store.start()
            broker.start()
            yield broker, store
        finally:
            broker.kill()
            store.kill()


class Engine:
    """Where sessions run. A context manager.

    Attributes:
        forgives: a session goes on after a program that failed.
    """

    forgives = False

    @property
    def patience(self) -> float:
        """Seconds that a program may take. What a killed node had is given to others when its lease ends, after ten."""
        return 90.0 if RESTARTS in os.environ else 45.0 if os.environ.get("FUZZ_FAULTS") else 20.0

    def command(self, path: str) -> list[str]:
        """Return the command that runs the programs of a file in a session."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the environment of that command."""
        roots = os.pathsep.join(str(ROOT / each) for each in ("", "broker", "api", "workers"))
        return {**os.environ, "PYTHONPATH": roots, "FUZZ_PATIENCE": str(self.patience)}

    def renew(self) -> None:
        """Something failed: what is left of it must not reach the next program."""

    def struck(self) -> list[str]:
        """Return which servers were struck since the last time."""
        return []

    def said(self) -> bytes:
        """Return what nodes have logged since the last time, beside what their session writes."""
        return b""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Embedded(Engine):
    """A session with a cluster of its own."""

    def command(self, path: str) -> list[str]:
        """See `Engine`."""
        return [sys.executable, "-m", "tests.fuzz.session", "embedded", path]


class Ray(Engine):
    """Real Ray, which keeps the model honest."""

    patience = 90.0
    forgives = True  # its sessions take long to start

    def command(self, path: str) -> list[str]:
        """See `Engine`."""
        python = os.environ.get(RAY_VARIABLE)
        if not python:
            raise SystemExit(f"{RAY_VARIABLE} must name a Python that has Ray")
        return [python, str(ROOT / "tests" / "fuzz" / "session.py"), "ray", path]

    def environment(self) -> dict[str, str]:
        """See `Engine`."""
        names = {"PYTHONPATH", "RAY_ADDRESS"}
        here = {name: value for name, value in os.environ.items() if name not in names}
        return {
            **here,
            "FUZZ_PATIENCE": str(self.patience),
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_raylet_start_wait_time_s": "120",
        }


class RabbitMQ(Engine):
    """A cluster of two nodes on RabbitMQ and Redis: those that the environment names, or servers of the tests."""

    def __init__(self, variables: dict[str, str] | None = None) -> None:
        """Name the servers.

        Args:
            variables: RABBITRY_BROKER_URL and RABBITRY_STORE_URL; else they come from the environment, and if that has
                none, this object starts servers of its own.
        """
        self._given = variables or {name: os.environ[name] for name in ADDRESSES if name in os.environ}
        self._cleanup = ExitStack()
        self._variables: dict[str, str] = {}
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._restarts: Restarts | None = None
        self._log = self._cleanup.enter_context(tempfile.TemporaryFile(prefix="fuzz-nodes-"))  # noqa: SIM115 (the stack does)
        self._read = 0

    def command(self, path: str) -> list[str]:
        """See `Engine`."""
        return [sys.executable, "-m", "tests.fuzz.session", "auto", path]

    def environment(self) -> dict[str, str]:
        """See `Engine`."""
        agents = ",".join(str(node.pid) for node in self._nodes)
        return {**super().environment(), **self._variables, "FUZZ_AGENTS": agents}

    def struck(self) -> list[str]:
        """See `Engine`."""
        return [] if self._restarts is None else self._restarts.take()

    def said(self) -> bytes:
        """See `Engine`."""
        # Read in place: the nodes write at the end that they share with this descriptor.
        said = os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size - self._read, self._read)
        self._read += len(said)
        return said

    def renew(self) -> None:
        """See `Engine`."""
        if "FUZZ_DRIVERS" not in os.environ:  # else another driver is at work
            self._stop()
            self._start()

    def __enter__(self) -> Engine:
        if not self._given:
            broker, store = self._cleanup.enter_context(own_servers())
            self._given = {"RABBITRY_BROKER_URL": broker.url, "RABBITRY_STORE_URL": store.url}
            if RESTARTS in os.environ:
                every = float(os.environ[RESTARTS])
                servers: dict[str, Server] = {"broker": broker, "store": store}
                self._restarts = self._cleanup.enter_context(Restarts(servers, random.Random(every), every))
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._cleanup.close()

    def _start(self) -> None:
        self._variables = {
            "RABBITRY_SECRET": secrets.token_hex(16),
            **self._given,
            "RABBITRY_PREFIX": f"fuzz-{secrets.token_hex(4)}:",
        }
        scale = int(os.environ.get("FUZZ_AT_ONCE", "1")) * int(os.environ.get("FUZZ_DRIVERS", "1"))
        for cpus, resources in NODES:
            command = [sys.executable, "-m", "rabbitry_workers", "start", "--num-cpus", str(scale * cpus)]
            command += ["--resources", resources]
            self._nodes.append(
                subprocess.Popen(command, env=self.environment(), stdout=subprocess.DEVNULL, stderr=self._log)
            )

    def _stop(self) -> None:
        for node in self._nodes:
            with suppress(ProcessLookupError):
                node.send_signal(signal.SIGTERM)
        for node in self._nodes:
            try:
                node.wait(20)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()
        self._nodes = []


ENGINES: dict[str, type[Engine]] = {"embedded": Embedded, "rabbitmq": RabbitMQ, "ray": Ray}
