"""The systems under test: Ray, rabbitry embedded, rabbitry on RabbitMQ and Redis. Each round is a fresh process."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from benchmarks.workloads import CPUS, LIMIT_SECONDS, MARKER, SERVERS, marked

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / ".bench"
RAY = "ray[default]==2.60.0"
PATH = os.pathsep.join(str(ROOT / each) for each in ("broker", "api", "workers"))
PROGRAM = ROOT / "benchmarks" / "workloads.py"

STOP_SECONDS = 15.0
"""What a node has to leave in good order."""


class BenchmarkError(RuntimeError):
    """A system could not be set up, or a round of it failed. The message has its last words."""


class Round(NamedTuple):
    """What one process measured.

    Attributes:
        results: number by workload.
        errors: what went wrong, by workload.
        version: of the system.
        python: of its interpreter.
    """

    results: dict[str, float]
    errors: dict[str, str]
    version: str
    python: str


class System(Protocol):
    """One of those that are compared."""

    name: str

    def run(self, names: Sequence[str]) -> Round:
        """Run workloads once, in a fresh process with a cluster of its own.

        Raises:
            BenchmarkError: the process failed.
        """


class Ray:
    """Ray, in an interpreter of its own."""

    name = "ray"

    def __init__(self, python: str | None) -> None:
        """Find Ray, or install it under `.bench/`.

        Args:
            python: path of an interpreter that has Ray; None for the one under `.bench/`, made if missing.

        Raises:
            BenchmarkError: it cannot be installed.
        """
        self._python = python or install_ray()

    def run(self, names: Sequence[str]) -> Round:
        """Run workloads once."""
        # Ray leaves its session's files behind, and its sockets want a short path.
        with tempfile.TemporaryDirectory(prefix="rb-", dir="/tmp", ignore_cleanup_errors=True) as directory:
            environment = {"RAY_TMPDIR": directory, "RAY_DEDUP_LOGS": "0", "RAY_USAGE_STATS_ENABLED": "0"}
            return _measure(self._python, self.name, names, environment)


class Embedded:
    """Rabbitry with nothing but itself."""

    name = "embedded"

    def run(self, names: Sequence[str]) -> Round:
        """Run workloads once."""
        return _measure(sys.executable, self.name, names, {"PYTHONPATH": PATH})


class Cluster:
    """Rabbitry on RabbitMQ and Redis, with one node on this machine. The servers stay from round to round."""

    name = "rabbitmq"

    def __init__(self, stack: ExitStack, *, appendonly: bool, broker_url: str | None, store_url: str | None) -> None:
        """Start servers, unless they are given.

        Args:
            stack: what stops them at its end.
            appendonly: let Redis keep an append-only file, flushed every second.
            broker_url: a RabbitMQ that runs already.
            store_url: a Redis that runs already.

        Raises:
            BenchmarkError: a server is not installed or does not start.
        """
        self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wb-", dir="/tmp")))
        self.server_pids: list[int] = []
        if broker_url is None or store_url is None:
            broker_url, store_url = self._start(stack, appendonly)
        self.broker_url, self.store_url = broker_url, store_url
        self.environment = {
            "PYTHONPATH": PATH,
            "RABBITRY_BROKER_URL": broker_url,
            "RABBITRY_STORE_URL": store_url,
            "RABBITRY_SECRET": secrets.token_hex(16),
            "RABBITRY_PREFIX": f"rabbitry-bench-{secrets.token_hex(4)}:",
        }

    def _start(self, stack: ExitStack, appendonly: bool) -> tuple[str, str]:
        try:
            from tests.server_binaries import find_rabbitmq_directory, find_redis_server
            from tests.servers import RabbitMQServer, RedisServer
        except ModuleNotFoundError as error:
            raise BenchmarkError(f"{error}: pip install {error.name}") from error
        missing = [] if find_redis_server() else ["redis-server"]
        missing += [] if find_rabbitmq_directory() else ["rabbitmq-server"]
        if missing:
            raise BenchmarkError(f"not installed: {', '.join(missing)}; or give --broker-url and --store-url")
        redis = RedisServer(self._directory / "redis", appendonly=appendonly)
        rabbitmq = RabbitMQServer(self._directory / "rabbitmq")
        for server in (redis, rabbitmq):
            server.start()
            stack.callback(server.stop)
            self.server_pids.append(server.pid)
        return rabbitmq.url, redis.url

    def run(self, names: Sequence[str]) -> Round:
        """Run workloads once, with a node that is started for it."""
        environment = {
            **self.environment,
            MARKER: secrets.token_hex(8),
            SERVERS: " ".join(map(str, self.server_pids)),
        }
        log = self._directory / "node.log"
        with log.open("wb") as output:
            node = subprocess.Popen(
                [sys.executable, "-m", "rabbitry_workers", "start", "--num-cpus", str(CPUS)],
                env={**os.environ, **environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            return _measure(sys.executable, self.name, names, environment, address="auto")
        except BenchmarkError as error:
            raise BenchmarkError(f"{error}\nthe node said:\n{log.read_text()[-2000:]}") from None
        finally:
            node.terminate()
            try:
                node.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(node.pid, signal.SIGKILL)
                node.wait()


def install_ray() -> str:
    """Return the Python that has Ray, in an environment under `.bench/` that is made if it is missing.

    Raises:
        BenchmarkError: it cannot be installed.
    """
    home = BENCH / "ray"
    python = home / "bin" / "python"
    stamp = home / RAY
    if not stamp.exists():
        print(f"installing {RAY} into {home.relative_to(ROOT)}", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        for command in (
            [sys.executable, "-m", "venv", str(home)],
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", RAY, "numpy"],
        ):
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            if done.returncode != 0:
                what = f"{' '.join(command)} failed; --ray-python names a Python that has Ray"
                raise BenchmarkError(f"{what}:\n{done.stdout}")
        stamp.touch()
    return str(python)


def _measure(
    python: str, system: str, names: Sequence[str], environment: Mapping[str, str], address: str | None = None
) -> Round:
    """Run the measuring program; whatever happens, nothing of its cluster is left."""
    marker = {MARKER: secrets.token_hex(8), **environment}
    # Without the paths of this interpreter: the other one may be another Python.
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RAY_ADDRESS")}
    command = [python, str(PROGRAM), system, ",".join(names), *([address] if address else [])]
    process = subprocess.Popen(
        command,
        env={**variables, **marker},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, complaints = process.communicate(timeout=60 + LIMIT_SECONDS * (1 + len(names)))
    except subprocess.TimeoutExpired:
        process.kill()
        output, complaints = process.communicate()
        complaints += "\nit did not end"
    finally:
        if process.poll() is None:
            process.kill()
        if address is None:
            _end(marker[MARKER])
    for line in output.splitlines():
        if line.startswith("RESULT "):
            found: dict[str, Any] = json.loads(line[len("RESULT ") :])
            return Round(**found)
    raise BenchmarkError(f"{system} failed:\n{output[-2000:]}\n{complaints[-4000:]}")


def _end(mark: str) -> None:
    """Wait for the processes of a cluster to go, and kill those that stay: the next round shall not meet them."""
    deadline = time.monotonic() + STOP_SECONDS
    while remaining := marked(mark):
        if time.monotonic() > deadline:
            for pid in remaining:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
