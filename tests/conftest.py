"""Fixtures for all tests: real servers, the two engines, and a session that leaves nothing behind.

| fixture | scope | gives |
|---|---|---|
| `redis_server` | session | a running `RedisServer` that tests share; do not stop it |
| `rabbitmq_server` | session | a running `RabbitMQServer` that tests share; do not stop it |
| `start_redis` | test | a function that starts a `RedisServer` for this test alone, to be killed at will |
| `start_rabbitmq` | test | the same for a `RabbitMQServer`; a start costs 6 s |
| `sentinels` | test | a running Redis master, its replica and three Sentinels, to be killed at will |
| `engine` | test | an `Engine`, once embedded and once RabbitMQ: a fresh cluster's addresses, prefix and secret |
"""

from __future__ import annotations

import gc
import logging
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
import redis

from tests import coverage_of_parts
from tests.across_workers import LinesAtTheEnd
from tests.processes import MARKER_VARIABLE, find_processes, kill_processes
from tests.sentinels import Sentinels
from tests.server_binaries import AMQP_URL_VARIABLE, REDIS_URL_VARIABLE
from tests.servers import (
    ForeignRabbitMQServer,
    ForeignRedisServer,
    RabbitMQServer,
    RedisServer,
)

if TYPE_CHECKING:
    from rabbitry_broker.endpoint import Endpoint

LEFTOVER_TIMEOUT = 10.0  # seconds that processes and files of finished tests have to go away
LONGEST_TEMPORARY_DIRECTORY = 28  # bytes; a run directory's socket, 73 bytes below it, must stay under 104 (macOS)
SHARED_MEMORY = Path("/dev/shm")
# What rabbitry calls its files outside of TMPDIR: run directories, and objects in shared memory with their lock.
OURS = {Path("/tmp"): re.compile(r"rabbitry-\d+-[0-9a-f]{8}"), SHARED_MEMORY: re.compile(r"rabbitry-[\w.]+-")}
LOCK_SUFFIX = "-lock"  # of the file that everybody in a shared-memory session holds open


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run all tests in one process where they share servers that are not theirs: some look at all that is there."""
    if os.environ.get(REDIS_URL_VARIABLE) or os.environ.get(AMQP_URL_VARIABLE):
        config.option.numprocesses = 0


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGTERM end the run like Ctrl-C does: fixtures are torn down and servers stopped.

    A shell that runs us in the background has SIGINT ignored, and so would the processes that tests interrupt.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "chaos: kills servers or processes; slow")
    config.pluginmanager.register(LinesAtTheEnd())
    coverage_of_parts.register(config)
    signal.signal(signal.SIGTERM, lambda _number, _frame: pytest.exit("terminated by SIGTERM", returncode=143))


def pytest_collection_finish() -> None:
    """Have thousands of tests, and all modules, cost no time of the collector."""
    _pass_over_what_is_left()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Do the same for what the tests of a module left: their reports."""
    if nextitem is None or nextitem.path != item.path:
        _pass_over_what_is_left()


def _pass_over_what_is_left() -> None:
    """Have the collector of cycles pass over what is there now, and stays for the whole run.

    Each of its full collections would take a quarter of a second by the end of a run, where some tests have hundreds.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def session_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the session one directory for all servers and temporary files; fail if anything is left at the end."""
    # pytest's own directory first: what failed tests left there stays for a look at it.
    tmp_path_factory.getbasetemp()
    files_before = _files_of_rabbitry()  # whoever uses them: a session beside this one may end first and leave them
    base = tempfile.gettempdir()
    path = Path(tempfile.mkdtemp(prefix="wt-", dir=base if len(base) <= LONGEST_TEMPORARY_DIRECTORY else "/tmp"))
    temporary = path / "tmp"
    temporary.mkdir()
    watchdog = _start_watchdog(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARKER_VARIABLE, str(path))
        patch.setenv("TMPDIR", str(temporary))
        patch.setattr(tempfile, "tempdir", None)
        patch.setenv("RABBITRY_ENVIRONMENTS", str(path / "environments"))
        patch.setenv("RABBITRY_LOG_DIR", str(path / "logs"))  # where nodes leave what was printed before a crash
        patch.delenv("XDG_RUNTIME_DIR", raising=False)  # Run directories go to TMPDIR, where nobody else's are.
        for variable in ("RABBITRY_ADDRESS", "RABBITRY_BROKER_URL", "RABBITRY_STORE_URL", "RABBITRY_SECRET"):
            patch.delenv(variable, raising=False)  # The developer's own cluster is no place for tests.
        yield path
        leftovers = _wait_for_leftovers(path, temporary, files_before)
    kill_processes(str(path))
    shutil.rmtree(path, ignore_errors=True)
    watchdog.communicate(b"done\n", timeout=10)
    if leftovers:
        pytest.fail("left behind by this session:\n  " + "\n  ".join(leftovers), pytrace=False)


@pytest.fixture(autouse=True)
def logs_reach_caplog(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test that asks for `caplog` see the logs of rabbitry, also after an `init()` gave them a handler."""
    if "caplog" in request.fixturenames:
        monkeypatch.setattr(logging.getLogger("rabbitry"), "propagate", True)


@pytest.fixture(scope="session")
def redis_server(session_directory: Path) -> Iterator[RedisServer]:
    """A Redis that all tests share, or the one at RABBITRY_TEST_REDIS_URL."""
    url = os.environ.get(REDIS_URL_VARIABLE)
    if url:
        foreign = ForeignRedisServer(url)
        foreign.start()
        yield foreign
        return
    server = RedisServer(session_directory / "redis")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def rabbitmq_server(session_directory: Path) -> Iterator[RabbitMQServer]:
    """A RabbitMQ that all tests share, or the one at RABBITRY_TEST_AMQP_URL."""
    url = os.environ.get(AMQP_URL_VARIABLE)
    if url:
        foreign = ForeignRabbitMQServer(url)
        foreign.start()
        yield foreign
        return
    server = RabbitMQServer(session_directory / "rabbitmq")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def start_redis(session_directory: Path) -> Iterator[Callable[..., RedisServer]]:
    """Return a function that starts a Redis of this test's own; it takes the keywords of `RedisServer`."""
    with ExitStack() as cleanup:

        def start(**options: object) -> RedisServer:
            directory = session_directory / f"redis-{secrets.token_hex(3)}"
            server = RedisServer(directory, **options)  # type: ignore[arg-type]
            cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
            cleanup.callback(server.kill)
            server.start()
            return server

        yield start


@pytest.fixture
def start_rabbitmq(session_directory: Path) -> Iterator[Callable[..., RabbitMQServer]]:
    """Return a function that starts a RabbitMQ of this test's own; it takes the keywords of `RabbitMQServer`."""
    with ExitStack() as cleanup:

        def start(**options: object) -> RabbitMQServer:
            directory = session_directory / f"rabbitmq-{secrets.token_hex(3)}"
            server = RabbitMQServer(directory, **options)  # type: ignore[arg-type]
            cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
            cleanup.callback(server.kill)
            server.start()
            return server

        yield start


@pytest.fixture
def sentinels(session_directory: Path) -> Iterator[Sentinels]:
    """A Redis master, its replica and their Sentinels, of this test's own."""
    directory = session_directory / f"sentinels-{secrets.token_hex(3)}"
    servers = Sentinels(directory)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()
        shutil.rmtree(directory, ignore_errors=True)


@dataclass(frozen=True)
class Engine:
    """One fresh cluster, on one of the two engines, that no other test sees.

    Attributes:
        name: which engine.
        store_url: address of its Redis; a unix socket for the embedded engine.
        broker_url: address of its RabbitMQ vhost; None for the embedded engine.
        prefix: prefix of its keys and queues.
        secrets: keys that authenticate its messages.
        redis_server: the server behind `store_url`, shared with other tests.
        rabbitmq_server: the server behind `broker_url`, shared with other tests; None for the embedded engine.
        vhost: name of the vhost; None for the embedded engine.
    """

    name: Literal["embedded", "rabbitmq"]
    store_url: str
    broker_url: str | None
    prefix: str
    secrets: tuple[bytes, ...]
    redis_server: RedisServer
    rabbitmq_server: RabbitMQServer | None
    vhost: str | None

    @property
    def endpoint(self) -> Endpoint:
        """The same as an `Endpoint`, with which engines and connections are opened."""
        from rabbitry_broker.endpoint import Endpoint  # Tests of the servers alone need no rabbitry.

        return Endpoint(self.store_url, self.broker_url, self.secrets, self.prefix)

    def keys(self) -> list[str]:
        """Return the names of all keys of this cluster in Redis, sorted: empty if nothing was left there."""
        with redis.Redis.from_url(self.store_url) as client:
            return sorted(key.decode(errors="replace") for key in client.scan_iter(f"{self.prefix}*", count=1000))

    def queues(self) -> list[str]:
        """Return the names of all RabbitMQ queues of this cluster, sorted; empty on the embedded engine.

        Skips the test where the broker is a foreign one, which cannot be asked.
        """
        return self.rabbitmq_server.queues(self.vhost or "") if self.rabbitmq_server else []


@pytest.fixture(params=["embedded", "rabbitmq"])
def engine(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Engine]:
    """Run the test once for each engine, on a cluster of its own that is wiped afterwards."""
    tag = secrets.token_hex(4)
    prefix = f"rabbitry-{tag}:"
    secret = (secrets.token_bytes(32),)
    try:
        if request.param == "embedded":
            yield Engine("embedded", redis_server.unix_url, None, prefix, secret, redis_server, None, None)
        else:
            broker: RabbitMQServer = request.getfixturevalue("rabbitmq_server")
            foreign = isinstance(broker, ForeignRabbitMQServer)
            vhost = None if foreign else f"test-{tag}"
            url = broker.add_vhost(vhost) if vhost else broker.url
            try:
                yield Engine("rabbitmq", redis_server.url, url, prefix, secret, redis_server, broker, vhost)
            finally:
                if vhost:
                    broker.delete_vhost(vhost)
    finally:
        with redis.Redis.from_url(redis_server.url) as client:
            for key in client.scan_iter(f"{prefix}*", count=1000):
                client.unlink(key)


def _start_watchdog(session_dir: Path) -> subprocess.Popen[bytes]:
    """Start the process that cleans up if this one is killed."""
    program = Path(__file__).with_name("watchdog.py")
    process = subprocess.Popen([sys.executable, str(program)], stdin=subprocess.PIPE, start_new_session=True, cwd="/")
    assert process.stdin is not None
    process.stdin.write(f"{session_dir}\n".encode())
    process.stdin.flush()
    return process


def _wait_for_leftovers(session_dir: Path, temporary: Path, files_before: set[Path]) -> list[str]:
    """Return what is still there of the session when it has had time to go; called after all other fixtures ended."""
    deadline = time.monotonic() + LEFTOVER_TIMEOUT
    while True:
        leftovers = [f"process {pid}: {command}" for pid, command in find_processes(str(session_dir)).items()]
        leftovers += [f"file {path}" for path in sorted(temporary.iterdir())]
        new = _files_of_rabbitry() - files_before
        leftovers += [f"file {path}" for path in sorted(new - _files_in_foreign_use(new))]
        if not leftovers or time.monotonic() > deadline:
            return leftovers
        time.sleep(0.05)


def _files_of_rabbitry() -> set[Path]:
    """Return what rabbitry keeps outside of TMPDIR, of any session."""
    return {path for root, name in OURS.items() for path in root.glob("rabbitry-*") if name.match(path.name)}


def _files_in_foreign_use(candidates: set[Path]) -> set[Path]:
    """Return those that a process outside of this session maps, works in or names: a cluster beside the tests."""
    if not candidates or sys.platform != "linux":
        return set()
    ours = set(find_processes(os.environ.get(MARKER_VARIABLE, "no session yet"))) | {os.getpid()}
    # The lock of a cluster that began before the tests is none of the candidates, what it makes meanwhile is.
    candidates = candidates | {path for path in _files_of_rabbitry() if path.name.endswith(LOCK_SUFFIX)}
    used: set[Path] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in ours:
            continue
        try:
            known = (entry / "maps").read_text(errors="replace") + (entry / "cmdline").read_text(errors="replace")
            known += os.readlink(entry / "cwd") + (entry / "environ").read_text(errors="replace")
            known += " ".join(os.readlink(each) for each in (entry / "fd").iterdir())  # of files that are only locked
        except OSError:
            continue
        used |= {path for path in candidates if str(path) in known}
    # Objects that nobody maps just now belong to whoever holds the lock of their session.
    sessions = tuple(str(path).removesuffix(LOCK_SUFFIX) for path in used if path.name.endswith(LOCK_SUFFIX))
    return used | {path for path in candidates if sessions and str(path).startswith(sessions)}
